"""The express lane and aiohttp alone, given the same bytes in the same pieces: nobody may see a difference."""

from __future__ import annotations

import asyncio
import gzip
import socket
from collections.abc import Iterator
from contextlib import AsyncExitStack

import msgspec
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tests.door import Door, opened, payload

LIMIT_S = 30.0
BODY_MAX = 3_000
BAD = 400
END = b'POST /healthcheck HTTP/1.1\r\nHost: h\r\nContent-Length: 9\r\n\r\n{"end":1}'
ENDED = b'"json":{"end":1}'


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[asyncio.AbstractEventLoop, Door, Door]]:
    with asyncio.Runner() as runner:
        stack = AsyncExitStack()

        async def open_both() -> list[Door]:
            return [
                await stack.enter_async_context(opened(tmp_path_factory.mktemp("door"), express=way, body_max=BODY_MAX))
                for way in (True, False)
            ]

        express, plain = runner.run(open_both())
        yield runner.get_loop(), express, plain
        runner.run(stack.aclose())


class Answer(msgspec.Struct):
    status: int
    headers: dict[str, str]
    body: object


async def answers(door: Door, pieces: list[bytes]) -> list[Answer]:
    """What comes back until the connection ends, or the request that stands at the end is answered."""
    loop = asyncio.get_running_loop()
    data = b""
    with socket.socket() as client:
        client.setblocking(False)
        await loop.sock_connect(client, (door.host, door.port))

        async def send() -> None:
            try:
                for piece in pieces:
                    await loop.sock_sendall(client, piece)
                    for _ in range(4):  # turns of the loop, for the server to see them as pieces
                        await asyncio.sleep(0)
            except ConnectionError:
                pass  # closed before it has read all: the answers tell

        sending = asyncio.create_task(send())
        async with asyncio.timeout(LIMIT_S):
            while ENDED not in data:
                try:
                    more = await loop.sock_recv(client, 1 << 16)
                except ConnectionError:
                    break
                if not more:
                    break
                data += more
        await sending
    return parsed(data)


def parsed(data: bytes) -> list[Answer]:
    found = []
    while data:
        head, _, data = data.partition(b"\r\n\r\n")
        first, *fields = head.decode().split("\r\n")
        headers = {name: value for name, _, value in (field.partition(": ") for field in fields)}
        length = int(headers.get("Content-Length", "0"))
        body, data = data[:length], data[length:]
        found.append(Answer(int(first.split()[1]), headers, body))
    return found


def comparable(answer: Answer) -> Answer:
    """Without what is different for each call: times, ids, and where in its data aiohttp met an error."""
    headers = {name: "" if name in ("Date", "X-Process-Time") else value for name, value in answer.headers.items()}
    body: object = answer.body
    if answer.status == BAD:
        headers["Content-Length"], body = "", ""
    elif headers.get("Content-Type") == "application/json":
        body = msgspec.json.decode(answer.body)  # type: ignore[arg-type]
        if isinstance(body, dict) and "task" in body:
            body["task"] = ""
    return Answer(answer.status, headers, body)


_bodies = st.sampled_from(
    [
        msgspec.json.encode(payload("page-view")),
        msgspec.json.encode(payload("a", "b", session={"id": "s-2"})),
        msgspec.json.encode(payload("a", "", "c")),
        msgspec.json.encode(payload("")),
        msgspec.json.encode(payload()),
        msgspec.json.encode(payload("a", source={"id": "nobody"})),
        msgspec.json.encode(payload("a", options={"queue": True})),
        msgspec.json.encode(payload("a", properties={"x": "y" * 1000})),
        b" " * (BODY_MAX + 1),
        b"{",
        b"[]",
        b"\xff",
        b"",
    ]
)
_targets = st.sampled_from(
    ["/track"] * 8
    + [
        "/track/",
        "/track?profile_less=true",
        "/track%20",
        "/health/live",
        "/nowhere",
        "/collect/x/hook",
        "/healthcheck",
    ]
)
_methods = st.sampled_from(["POST"] * 8 + ["PUT", "GET", "OPTIONS", "DELETE", "PATCH", "TRACE"])
PLAIN = [
    b"Content-Type: application/json",
    b"Content-Type: application/json; charset=utf-8",
    b"Content-Type: text/plain",
    b"content-type: application/x-www-form-urlencoded",
    b"Origin: https://shop.example",
    b"Origin: \xff\xfe",
    b"Cookie: a=b",
    b"X-Context: staging",
    b"X-Context: caf\xc3\xa9",
    b"x-context: \xffx",
    b"X-Context:",
    b"User-Agent: Mozilla/5.0 (compatible; Googlebot/2.1)",
    b"Access-Control-Request-Method: POST",
    b"Access-Control-Request-Headers: x-\xff",
    b"Connection: keep-alive",
    b"X-Forwarded-For: 1.2.3.4",
    b"Expect: 100-continue",
]
ODD = [
    b"Connection: close",
    b"Connection: Keep-Alive, TE",
    b"Proxy-Connection: close",
    b"Upgrade: h2c",
    b"X-Forwarded-For: 1.2.3.4",
    b"X-Forwarded-For: 5.6.7.8",
    b"Content-Length: 5",
    b"X-Bad : 1",
    b"X-Bad: 1\r\n 2",
    b"X-Bad: \x00",
]


@st.composite
def requests(draw: st.DrawFn, *, odd: bool) -> bytes:
    body = draw(_bodies)
    version = draw(st.sampled_from(["1.1", "1.0"])) if odd else "1.1"
    lines = [f"{draw(_methods)} {draw(_targets)} HTTP/{version}".encode(), b"Host: h"]
    lines += draw(st.lists(st.sampled_from(ODD), max_size=1)) if odd else []
    lines += draw(st.lists(st.sampled_from(PLAIN), max_size=4, unique_by=lambda field: field.lower().split(b":")[0]))
    framing = draw(st.sampled_from(["length"] * 6 + ["gzip", "chunked"]))
    if framing == "gzip":
        body = gzip.compress(body, mtime=0)
        lines.append(b"Content-Encoding: gzip")
    if framing == "chunked":
        lines.append(b"Transfer-Encoding: chunked")
        body = (b"%x\r\n%s\r\n" % (len(body), body) if body else b"") + b"0\r\n\r\n"
    else:
        lines.append(b"Content-Length: %d" % len(body))
    return b"\r\n".join([*lines, b"", b""]) + body


@st.composite
def streams(draw: st.DrawFn) -> list[bytes]:
    """Requests, one behind the other, in pieces that care nothing about where they begin and end."""
    some = st.lists(requests(odd=False), max_size=5)
    data = b"".join(draw(some))
    if draw(st.integers(0, 3)) == 3:
        data += draw(requests(odd=True)) + b"".join(draw(some))
    data += END
    cuts = sorted(draw(st.lists(st.integers(0, len(data)), max_size=6)))
    return [data[start:end] for start, end in zip([0, *cuts], [*cuts, len(data)], strict=True)]


ODD_ORIGIN = b"OPTIONS /track HTTP/1.1\r\nHost: h\r\nOrigin: \xff\r\nAccess-Control-Request-Method: POST\r\n\r\n"
ODD_CONTEXT = b"PUT /track HTTP/1.1\r\nHost: h\r\nX-Context: \xff\r\nContent-Length: 1\r\n\r\n{"


@given(pieces=streams())
@example([ODD_ORIGIN + ODD_CONTEXT + END])
@settings(max_examples=200, deadline=None)
def test_both_ways_give_the_same_answers(
    both: tuple[asyncio.AbstractEventLoop, Door, Door], pieces: list[bytes]
) -> None:
    loop, express, plain = both

    async def ask() -> list[list[Answer]]:
        return await asyncio.gather(answers(express, pieces), answers(plain, pieces))

    by_lane, by_aiohttp = loop.run_until_complete(ask())

    assert by_aiohttp, "something is answered"
    one, other = ([comparable(answer) for answer in found] for found in (by_lane, by_aiohttp))
    if BAD in (one[-1].status, other[-1].status):
        # Of a piece in which aiohttp finds an error, such as bytes behind the last request, it answers only that; and
        # where pieces begin and end may differ, since the lane hands on what is aiohttp's.
        one, other = ([answer for answer in found if answer.status != BAD] for found in (one, other))
        shorter = min(len(one), len(other))
        one, other = one[:shorter], other[:shorter]
    assert one == other
    assert express.metrics.in_flight_bytes.value == plain.metrics.in_flight_bytes.value == 0
