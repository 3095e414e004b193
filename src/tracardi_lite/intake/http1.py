"""HTTP/1.1 heads, as plain as nearly every client writes them. Pure.

``parse`` takes a strict subset of RFC 9112, in which no two parsers can differ about where a message ends, and says
None to everything else: that is for a complete server. In the subset: one request line in origin form, fields of
visible characters on one line each, no name twice, at most one length, and nothing that changes how the connection
works (``CONNECT``, ``Transfer-Encoding``, ``Expect``, ``Upgrade``, ``Connection`` but ``keep-alive`` and ``close``).
A property test holds it against aiohttp's parser.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from email.utils import formatdate
from functools import cache, lru_cache
from http import HTTPStatus

from msgspec import Struct

HEAD_MAX = 8190
"""Longest head that is looked at here, in bytes; the complete server's bound for one line."""
FIELDS_MAX = 128
"""The complete server's bound, too."""
LENGTH_DIGITS_MAX = 15
HEADS = 1024
REMEMBERED_MAX = 1024
"""At most this many heads of at most that many bytes are remembered: some 3 MiB if they are all long."""
END = b"\r\n\r\n"
SERVER = "tracardi-lite"

_HEAD = re.compile(
    rb"(?!CONNECT )[A-Z]{1,20} /[!-~]* HTTP/1\.1(?:\r\n[!#$%&'*+\-.^_`|~0-9A-Za-z]+:[\t\x20-\x7e\x80-\xff]*)+",
)
_DECIDES_THE_CONNECTION = frozenset(
    {
        "transfer-encoding",
        "expect",
        "upgrade",
        "trailer",
        "te",
        "http2-settings",
        # Obsolete; the complete server reads the one as ``Connection`` and refuses the other.
        "proxy-connection",
        "sec-websocket-key1",
    }
)


class Request(Struct, frozen=True):
    method: str
    target: str
    """Path and query, as they came."""
    headers: dict[str, str]
    """Lower-cased names; what is no UTF-8 in a value is U+FFFD."""
    length: int | None
    """Of the body that follows; None when no length is given, and then there is no body."""
    close: bool
    """The client wants the connection closed after the answer."""


def parse(head: bytes) -> Request | None:
    """What ``head`` asks for: all bytes before the empty line. None when it is not plain.

    Heads repeat: those of one client, or of one kind behind a proxy, differ in little but a length. So short ones are
    remembered (the same answer for the same bytes), which costs a miss 0.3 µs and saves a hit most of its time.
    """
    return _remembered(head) if len(head) <= REMEMBERED_MAX else _parse(head)


def _parse(head: bytes) -> Request | None:
    if _HEAD.fullmatch(head) is None:
        return None
    first, *fields = head.decode("utf-8", "replace").split("\r\n")
    method, target, _ = first.split(" ")
    headers: dict[str, str] = {}
    for field in fields:
        name, _, value = field.partition(":")
        headers[name.lower()] = value.strip(" \t")
    if not len(headers) == len(fields) <= FIELDS_MAX:
        return None
    if "host" not in headers or not _DECIDES_THE_CONNECTION.isdisjoint(headers):
        return None
    digits = headers.get("content-length")
    if digits is not None and not (digits.isascii() and digits.isdigit() and len(digits) <= LENGTH_DIGITS_MAX):
        return None
    connection = headers.get("connection")
    if connection is not None:
        connection = connection.lower()
        if connection not in ("keep-alive", "close"):
            return None
    return Request(method, target, headers, None if digits is None else int(digits), connection == "close")


class Clock:
    """The ``Date`` of answers, made once a second."""

    def __init__(self) -> None:
        self._second = -1
        self._text = ""

    def date(self) -> str:
        second = int(time.time())
        if second != self._second:
            self._second = second
            self._text = formatdate(second, usegmt=True)
        return self._text


def response(status: int, body: bytes, headers: Mapping[str, str], date: str, *, close: bool) -> bytes:
    """A whole JSON answer. Values of headers must hold no line breaks."""
    more = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
    if close:
        more += "Connection: close\r\n"
    return f"{_opening(status)}{len(body)}\r\nDate: {date}\r\n{more}\r\n".encode() + body


_remembered = lru_cache(maxsize=HEADS)(_parse)


@cache
def _opening(status: int) -> str:
    return (
        f"HTTP/1.1 {status} {HTTPStatus(status).phrase}\r\nServer: {SERVER}\r\n"
        "Content-Type: application/json\r\nContent-Length: "
    )
