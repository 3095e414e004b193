"""``http1.parse`` understands nothing in another way than aiohttp's parser does: no request can be smuggled between."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import dataclass
from unittest.mock import Mock

import pytest
from aiohttp import HttpVersion11
from aiohttp.base_protocol import BaseProtocol
from aiohttp.http import HttpRequestParser
from aiohttp.http_exceptions import HttpProcessingError
from hypothesis import example, given, settings
from hypothesis import strategies as st

from tracardi_lite.intake import http1
from tracardi_lite.intake.headers import readable

NEXT = b"GET /the-next-one HTTP/1.1\r\nHost: next\r\n\r\n"
"""What follows a request: found again behind it only if its end was found where the client meant it."""
BODY_MAX = 5_000


@pytest.fixture(scope="module")
def loop() -> Iterator[asyncio.AbstractEventLoop]:
    loop = asyncio.new_event_loop()
    yield loop
    loop.close()


@dataclass
class Seen:
    """What aiohttp's parser, as ``web.RequestHandler`` sets it up, makes of a head with its body and a next request."""

    method: str
    target: str
    headers: list[tuple[str, str]]
    close: bool
    then: str | None
    """The target of the request that it finds behind."""


def seen_by_aiohttp(loop: asyncio.AbstractEventLoop, head: bytes, length: int) -> Seen | None:
    protocol = BaseProtocol(loop)
    parser = HttpRequestParser(
        protocol, loop, 2**18, max_line_size=8190, max_field_size=8190, max_headers=128, auto_decompress=False
    )
    protocol._parser = parser
    protocol.transport = Mock(spec=asyncio.Transport)
    try:
        found, upgraded, _ = parser.feed_data(head + http1.END)
    except HttpProcessingError:
        return None
    ((first, body),) = found
    # From here on an error would be a disagreement.
    parser.feed_data(b"b" * length)
    assert body.is_eof()
    later, _, _ = parser.feed_data(NEXT)
    assert first.version == HttpVersion11
    assert not any((upgraded, first.upgrade, first.chunked))
    return Seen(
        first.method,
        first.path,
        [(name.lower(), readable(value)) for name, value in first.headers.items()],
        first.should_close,
        later[0][0].path if later else None,
    )


def agree(loop: asyncio.AbstractEventLoop, head: bytes) -> bool:
    """Whether ``head`` was taken, after having made sure that both understand the same by it."""
    request = http1.parse(head)
    if request is None:
        return False
    length = request.length or 0
    if length > BODY_MAX:
        return True  # the digits are the same; the test of lengths is another
    seen = seen_by_aiohttp(loop, head, length)
    if seen is None:
        # Refused: the connection ends with a 400, so nothing can stand behind. Of our own call that must not happen.
        assert not (request.method == "POST" and request.target.startswith("/track"))
        return True
    assert (request.method, request.target) == (seen.method, seen.target)
    assert list(request.headers.items()) == seen.headers
    assert request.close == seen.close
    # One that closes has nothing behind it.
    assert seen.then == (None if seen.close else "/the-next-one")
    return True


# --- grammar: heads that are valid, nearly so, or look like it ---


def one_of(words: bytes, *more: bytes) -> st.SearchStrategy[bytes]:
    return st.sampled_from([*words.split(b"|"), *more])


_methods = one_of(
    b"POST|POST|POST|POST|POST|POST|GET|PUT|HEAD|OPTIONS|TRACE|DELETE|PATCH|CONNECT|PRI|SOURCE|SEARCH|QUERY|DESCRIBE|"
    b"FOO|M-SEARCH|post|PoST|| POST|\r\nPOST|POST\x00"
)
_targets = one_of(
    b"/track|/track|/track|/track|/track|/track/|/|/track?a=b|/track#f|//track|/%00|/[|//[::1|/\\|/;:@&=+$,|"
    b"/tr ack|/\xc3\xa9|/\x01|/track\t|*||http://h/track|h:80"
)
_versions = one_of(b"HTTP/1.0|http/1.1|HTTP/1.2|HTTP/2.0|HTTP/1.1 |HTTP/11||HTTP/1.1\t", *[b"HTTP/1.1"] * 12)
_names = one_of(
    b"Host|Content-Length|Content-Length|content-length|Content_Length|Content-Length | Content-Length|"
    b"Content\x00-Length|Transfer-Encoding|TRANSFER-ENCODING|Transfer-Encoding\t|Connection|Proxy-Connection|Keep-Alive|Upgrade|Expect|"
    b"TE|Trailer|HTTP2-Settings|Sec-WebSocket-Key1|Content-Encoding|Content-Type|X-Context|X-Forwarded-For|Cookie|"
    b"\xc3\xa9||a b|!#$%&'*+-.^_`~09|q\"|p(|c,"
)
_values = one_of(
    b"5|5|+5|-5|5, 5|5,5|0x5|5 5|05|0|5.0|5;a|5\x0b|5\x00|\t5\t|\x1c5|_5|1_0|\xd9\xa5|111111111111111|"
    b"9999999999999999999|18446744073709551615|18446744073709551621|4294967301|| |chunked|Chunked|identity|"
    b"chunked, identity|xchunked|\x0bchunked|chunked\x00|gzip|close|Close|keep-alive|KEEP-ALIVE|"
    b"close, keep-alive|keep-alive,|upgrade|te|websocket|100-continue|\xff\xfe|caf\xc3\xa9|a\tb|a\x7fb|a\x01b|\x85|"
    b"\xa0|a\rb|a\nb|a\r\n b|a\r\n\tb|a\n\nb|a\r\n:|\xe2\x80\xa8|\xe2",
    b"x" * 300,
)
_colons = one_of(b" :| : |\t:||::|:\r\n |:\x0b", *[b":", b": "] * 6)
_ends = one_of(b"\n|\r|\r\r\n|\n\r\n| \r\n|\x00\r\n", *[b"\r\n"] * 20)
_fields = st.lists(st.tuples(_names, _colons, _values, _ends).map(b"".join), max_size=6)


@st.composite
def heads(draw: st.DrawFn) -> bytes:
    first = b" ".join((draw(_methods), draw(_targets), draw(_versions))) + draw(_ends)
    fields = draw(_fields)
    if draw(st.integers(0, 4)):
        fields.insert(draw(st.integers(0, len(fields))), b"Host: h\r\n")
    return (first + b"".join(fields)).removesuffix(b"\r\n")


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """A plain head with a few bytes changed, put in or taken out."""
    head = bytearray(b"POST /track HTTP/1.1\r\nHost: h\r\nContent-Type: application/json\r\nContent-Length: 12\r\nA: b")
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(head)))
        head[at : at + draw(st.integers(0, 2))] = draw(st.binary(max_size=2))
    return bytes(head)


EXAMPLES = 300


@given(
    head=st.binary(max_size=300)
    | st.binary(max_size=60).map(lambda tail: b"POST /track HTTP/1.1\r\nHost: h\r\n" + tail)
)
@settings(max_examples=EXAMPLES, deadline=None)
def test_of_any_bytes_both_understand_the_same(loop: asyncio.AbstractEventLoop, head: bytes) -> None:
    agree(loop, head)


@given(head=heads())
@settings(max_examples=4 * EXAMPLES, deadline=None)
@example(b"CONNECT /track HTTP/1.1\r\nHost: h\r\nContent-Length: 5")
@example(b"POST /track HTTP/1.1\r\nHost: h\r\nProxy-Connection: close")
@example(b"POST /track HTTP/1.1\r\nHost: h\r\nSec-WebSocket-Key1: x")
@example(b"POST /track HTTP/1.1\r\nHost: h\r\n" + b"".join(b"A%d: x\r\n" % number for number in range(127)) + b"B: x")
def test_of_heads_that_are_nearly_valid_both_understand_the_same(loop: asyncio.AbstractEventLoop, head: bytes) -> None:
    agree(loop, head)


@given(head=damaged())
@settings(max_examples=2 * EXAMPLES, deadline=None)
def test_of_damaged_heads_both_understand_the_same(loop: asyncio.AbstractEventLoop, head: bytes) -> None:
    agree(loop, head)


@given(
    method=st.sampled_from([b"POST", b"GET", b"PUT", b"DELETE", b"OPTIONS", b"HEAD", b"PATCH"]),
    target=st.text("abcXYZ019-._~%/?&=+;:@!$'()*,", max_size=30),
    fields=st.dictionaries(
        st.text("ABCxyz09-_", min_size=1, max_size=12).map(lambda name: "X-" + name).map(str.lower),
        st.text(st.characters(codec="utf-8", exclude_categories=["Cc", "Cs"]), max_size=40),
        max_size=8,
    ),
    length=st.none() | st.integers(0, 300),
)
@settings(max_examples=EXAMPLES, deadline=None)
def test_what_clients_write_is_taken(
    loop: asyncio.AbstractEventLoop, method: bytes, target: str, fields: dict[str, str], length: int | None
) -> None:
    lines = [method + b" /" + target.encode() + b" HTTP/1.1", b"Host: h"]
    lines += [f"{name}: {value}".encode() for name, value in fields.items()]
    if length is not None:
        lines.append(b"Content-Length: %d" % length)

    assert agree(loop, b"\r\n".join(lines))
