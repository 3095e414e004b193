"""The HTTP surface under nonsense: never a 5xx, never a hang, no growth, and the good events around it still arrive.

Requests are written byte by byte on a socket, because the wrong ones are exactly what an HTTP client refuses to send.
"""

from __future__ import annotations

import asyncio
import gzip
import json
import re
import socket
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import Phase, example, given, settings
from hypothesis import strategies as st

from tests.acceptance.oracle import Oracle
from tests.acceptance.program import Program
from tests.acceptance.sites import Site

pytestmark = pytest.mark.acceptance

EXAMPLES = 800
ANSWER_S = 10.0
PATIENCE_S = 0.2
BODY_MAX = 1 << 20
GROWTH_MAX = 48 << 20
"""Bytes of resident memory that a run may add: some bodies of BODY_MAX, and what the allocator keeps of them."""

_STATUS = re.compile(rb"^HTTP/1\.[01] (\d{3}) ", re.MULTILINE)

GOOD = {
    "source": {"id": "default"},
    "session": {"id": "fuzzed"},
    "events": [{"type": "page-view", "properties": {"a": 1}}],
}
BODY = json.dumps(GOOD).encode()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, installed: Path) -> Iterator[Program]:
    site = Site(tmp_path_factory.mktemp("fuzz"), installed)
    program = site.program(env={"BODY_MAX": str(BODY_MAX), "REQUEST_TIMEOUT": "1", "LOGGING_LEVEL": "warning"})
    try:
        asyncio.run(program.start())
        yield program
    finally:
        site.close()


def exchange(server: Program, request: bytes, patience_s: float = PATIENCE_S) -> bytes:
    """What the server answers, up to its last answer on this connection.

    A request may be one that never ends. After ``patience_s`` without an answer we say that nothing more will come, and
    the server must answer or close. Raises TimeoutError, which fails the test, when it does neither.
    """
    with socket.create_connection(("127.0.0.1", server.port), timeout=patience_s) as connection:
        answer = b""
        try:
            connection.sendall(request)
            # Having answered, it may linger for the rest of a request; that is no reason for us to wait.
            while not is_last(answer) and (chunk := _receive(connection)):
                answer += chunk
        except (ConnectionResetError, BrokenPipeError):
            pass  # it refused to read on, which is an answer too
        return answer


def _receive(connection: socket.socket) -> bytes:
    try:
        return connection.recv(1 << 16)
    except TimeoutError:
        connection.settimeout(ANSWER_S)
        connection.shutdown(socket.SHUT_WR)
        return connection.recv(1 << 16)


def is_last(answer: bytes) -> bool:
    """Whether the answer is whole and says that the connection ends with it."""
    head, found, body = answer.rpartition(b"HTTP/1.")[2].partition(b"\r\n\r\n")
    length = re.search(rb"content-length: (\d+)", head, re.IGNORECASE)
    return bool(found and length and len(body) >= int(length[1]) and b"connection: close" in head.lower())


def verdict(server: Program, answer: bytes) -> None:
    statuses = [int(status) for status in _STATUS.findall(answer)]
    assert all(status < 500 for status in statuses), answer[:2000]
    assert server.alive, server.log()
    head, _, body = answer.partition(b"\r\n\r\n")
    if len(statuses) == 1 and b"content-type: application/json" in head.lower() and b"chunked" not in head.lower():
        msgspec.json.decode(body or b"null")  # Python's own refuses an echo of 5000 digits


def framed(method: str, path: str, headers: list[tuple[str, bytes]], body: bytes) -> bytes:
    """A request that ends its connection, with a true Content-Length unless the headers say something else."""
    names = {name.lower() for name, _ in headers}
    lines = [f"{method} {path} HTTP/1.1".encode("utf-8", "surrogatepass")]
    if "host" not in names:
        lines.append(b"Host: localhost")
    lines += [name.encode() + b": " + value for name, value in headers]
    if not names & {"content-length", "transfer-encoding"}:
        lines.append(b"Content-Length: %d" % len(body))
    return b"\r\n".join([*lines, b"Connection: close", b"", b""]) + body


# --- what a request is made of ---------------------------------------------------------------------------------------

methods = st.one_of(
    st.sampled_from(["POST", "POST", "POST", "GET", "PUT", "DELETE", "OPTIONS", "HEAD", "PATCH", "TRACE", "BREW"]),
    st.text(st.characters(codec="ascii", categories=["Lu"]), min_size=1, max_size=20),
)

_segment = st.one_of(
    st.sampled_from(["default", "%00", "..", "%2e%2e", "%", "%zz", "a b", "é", "@internal-1", "x" * 4000, "'"]),
    st.text(max_size=12).map(lambda text: text.replace("\r", "").replace("\n", "")),
)
paths = st.one_of(
    st.sampled_from(["/track", "/track", "/track", "/track/", "/track?profile_less=true", "/track?profile_less=%00"]),
    st.builds("/collect/{}/{}".format, _segment, _segment),
    st.builds("/collect/{}/{}/{}?a=1&a=2&b".format, _segment, _segment, _segment),
    st.builds("/redirect/{}/{}".format, _segment, _segment),
    st.sampled_from(["/user/token", "/user/logout", "/event/select", "/profile/select/histogram", "/install"]),
    st.sampled_from(["/event-sources?query=%27", "/event-source", "/queue/system/functions/backlog", "/info/version"]),
    st.builds("/{}/{}".format, st.sampled_from(["profile", "session", "event", "tracker", "health"]), _segment),
    st.builds("/{}".format, _segment),
    st.sampled_from(["*", "//", "http://elsewhere/track", "/metrics", "/healthcheck", ""]),
)

_bytes = st.binary(max_size=60).map(lambda value: value.translate(None, b"\r\n"))
_HEADERS = {
    "Content-Type": [
        *(
            b"application/json",
            b"text/plain",
            b"application/json; charset=utf-16",
            b"application/x-www-form-urlencoded",
        ),
        *(b"multipart/form-data", b"multipart/form-data; boundary=x", b";;", b""),
    ],
    "Content-Encoding": [b"gzip", b"deflate", b"br", b"zstd", b"identity", b"gzip, gzip", b"rot13", b""],
    "Content-Length": [b"0", b"3", b"-1", b"99999999999999999999", b"1e3", b""],
    "Transfer-Encoding": [b"chunked", b"gzip, chunked", b"x"],
    "Authorization": [b"Bearer x", b"Bearer ", b"Basic !", b"Bearer \xff"],
    "Cookie": [b"tracardi-session-id=a", b"=;=;", b"a" * 3000, b'x="\xff'],
}
_free_header = st.sampled_from(["Origin", "X-Forwarded-For", "X-Context", "User-Agent", "Expect", "Range"])
headers = st.lists(
    st.sampled_from(sorted(_HEADERS)).flatmap(lambda name: st.tuples(st.just(name), st.sampled_from(_HEADERS[name])))
    | st.tuples(_free_header | st.from_regex(r"[A-Za-z-]{1,20}", fullmatch=True), _bytes),
    max_size=5,
)

_json = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=20)
    | st.just("\ud800")
    | st.just("\x00"),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
_KEYS = ["source", "session", "profile", "events", "context", "properties", "options", "request", "metadata"]
_EVENT_KEYS = ["type", "id", "time", "properties", "options", "context", "tags"]
_payloads = st.builds(
    lambda wrong, event, events: GOOD | {"events": [GOOD["events"][0] | event] * events} | wrong,  # type: ignore[index]
    st.dictionaries(st.sampled_from(_KEYS), _json, max_size=2),
    st.dictionaries(st.sampled_from(_EVENT_KEYS), _json, max_size=2),
    st.integers(0, 3),
)


def _encoded(payload: Any) -> bytes:
    return json.dumps(payload).encode()


def _damaged(body: bytes, at: int, with_: bytes) -> bytes:
    at %= len(body)
    return body[:at] + with_ + body[at + len(with_) :]


bodies = st.one_of(
    _payloads.map(_encoded),
    _json.map(_encoded),
    st.binary(max_size=200),
    st.builds(_damaged, st.just(BODY), st.integers(0), st.binary(max_size=3)),
    st.builds(lambda at: BODY[: at % len(BODY)], st.integers(0)),
    st.sampled_from(
        [
            b"[" * 100_000,
            b'{"a":' * 50_000,
            BODY.replace(b'{"a": 1}', b'{"a":' + b"[" * 20_000 + b"]" * 20_000 + b"}"),
            *(BODY.replace(b'"a": 1', b'"a": ' + b"[" * n + b"]" * n) for n in (500, 900, 1500)),
            BODY.replace(b'"a": 1', b'"a": 1e999999'),
            BODY.replace(b'"a": 1', b'"a": ' + b"9" * 5000),
            BODY.replace(b'"a": 1', b'"a": 1, "a": 2, "\\u0000": "\\ud800"'),
            BODY.replace(b'"page-view"', b'"\\u0000"'),
            BODY.replace(b'"fuzzed"', b'"' + b"s" * 100_000 + b'"'),
            BODY.replace(b'"a": 1', b'"a": "\xff\xfe"'),
            b"\xef\xbb\xbf" + BODY,
            BODY.decode().encode("utf-16"),
            b"7\r\n" + BODY + b"\r\n0\r\n\r\n",
            b"ffffffffffffffff\r\n" + BODY,
            gzip.compress(BODY),
            gzip.compress(BODY)[:-9],
            gzip.compress(b"\x00" * (20 * BODY_MAX)),
            gzip.compress(gzip.compress(BODY)),
            zlib.compress(b'{"a":' * (BODY_MAX // 2)),
            b" " * (BODY_MAX + 1),
        ]
    ),
)
requests = st.builds(framed, methods, paths, headers, bodies)


def test_no_request_makes_the_server_fail_hang_or_grow(server: Program) -> None:
    nonsense(server, 200)  # to fill what is only ever filled once: caches, arenas, thread stacks
    before = resident(server)
    nonsense(server, EXAMPLES)
    grown = resident(server) - before
    assert grown < GROWTH_MAX, f"grew by {grown >> 20} MiB over {EXAMPLES} requests"

    verdict(server, good := exchange(server, framed("POST", "/track", [("Content-Type", b"application/json")], BODY)))
    assert _STATUS.findall(good) == [b"200"], good
    assert "Traceback" not in server.log(1 << 20), server.log()
    asyncio.run(all_is_processed(server))


def test_a_body_that_never_ends_is_answered_when_its_time_is_up(server: Program) -> None:
    answer = exchange(server, framed("POST", "/track", [("Content-Length", b"1000")], BODY), patience_s=ANSWER_S)
    assert _STATUS.findall(answer) == [b"408"], answer


def nonsense(server: Program, examples: int) -> None:
    @settings(max_examples=examples, database=None, phases=[Phase.explicit, Phase.generate, Phase.shrink])
    @given(request=requests)
    @example(request=b"")
    @example(request=framed("POST", "/track", [], BODY.replace(b'"a": 1', b'"a": 1e999999')))  # JSON, and no double
    @example(request=b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03")  # a TLS hello
    @example(request=framed("POST", "/track", [("X", b"y" * 200_000)], BODY))
    @example(request=framed("POST", "/track", [(f"X{n}", b"y") for n in range(5000)], BODY))
    @example(request=framed("GET", "/" + "x" * 200_000, [], b""))
    @example(request=framed("POST", "/track", [("Referer", b"caf\xe9")], BODY))
    @example(request=framed("POST", "/track", [("Expect", b"\xe9")], BODY))
    @example(request=framed("POST", "/healthcheck", [("X", b"\xe9")], BODY))
    @example(request=framed("GET", "/redirect/x", [("Cookie", b"tracardi-session-id=\xe9")], b""))
    def fuzz(request: bytes) -> None:
        verdict(server, exchange(server, request))

    fuzz()


def resident(server: Program) -> int:
    """Bytes of memory that the process has now."""
    with open(f"/proc/{server.pid}/smaps_rollup") as rollup:
        return next(int(line.split()[1]) for line in rollup if line.startswith("Rss:")) << 10


async def all_is_processed(server: Program) -> None:
    """Whatever was let in, a worker could take it: stored, or a dead letter with a reason, but nothing stuck."""
    async with Oracle(server.data_dir) as oracle:
        totals = await oracle.drained(context=server.log)
        assert totals.stored > 0
        # What was stored can be read again, by whatever the store's own tools make of it.
        assert len(await oracle.records("event")) >= totals.stored
