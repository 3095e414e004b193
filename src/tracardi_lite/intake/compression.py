"""Compressed bodies, expanded when they are whole, within a bound.

Not left to aiohttp, which takes a gzip stream that breaks off for a complete one, and lets the sender of other broken
ones wait until its time is up. A body that can't be expanded to its end is 400, one that grows beyond the bound 413:
that is found out before it has grown.
"""

from __future__ import annotations

import sys
import zlib
from collections.abc import Callable
from typing import Protocol

import brotli

from tracardi_lite.errors import BadInput

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

GZIP = 16 + zlib.MAX_WBITS
# The low half of a zlib stream's first byte names the method; others are bare deflate, which some senders mean by it.
ZLIB_METHOD = 8


class _Broken(Exception):
    pass


class _Zlib(Protocol):
    @property
    def eof(self) -> bool: ...

    def decompress(self, data: bytes, max_length: int, /) -> bytes: ...


def expanded(body: bytes, encoding: str, most: int) -> bytes:
    """The body as it was before it was compressed; unchanged for an encoding that is not ours to undo."""
    expand = _EXPAND.get(encoding.strip().lower())
    if expand is None or not body:
        return body
    try:
        # One byte more than may be: there need not be another to know.
        whole = expand(body, most + 1)
    except (_Broken, zlib.error, brotli.error, zstd.ZstdError) as error:
        raise BadInput(
            400, f"The body can't be read: it is no complete {encoding.strip().lower()[:10]} stream."
        ) from error
    if len(whole) > most:
        raise BadInput(413, f"The body is larger than {most} bytes.")
    return whole


def _gzip(body: bytes, most: int) -> bytes:
    """A file may be several streams, one after another (RFC 1952 §2.2)."""
    parts: list[bytes] = []
    size = 0
    while body:
        stream = zlib.decompressobj(GZIP)
        parts.append(_inflated(stream, body, most - size))
        size += len(parts[-1])
        if size >= most:
            break
        body = stream.unused_data
    return b"".join(parts)


def _deflate(body: bytes, most: int) -> bytes:
    bits = zlib.MAX_WBITS if body[0] & 0xF == ZLIB_METHOD else -zlib.MAX_WBITS
    return _inflated(zlib.decompressobj(bits), body, most)


def _inflated(stream: _Zlib, body: bytes, most: int) -> bytes:
    data = stream.decompress(body, most)
    if len(data) < most and not stream.eof:
        raise _Broken
    return data


def _brotli(body: bytes, most: int) -> bytes:
    stream = brotli.Decompressor()
    data: bytes = stream.process(body, output_buffer_limit=most)
    while len(data) < most and not stream.is_finished() and not stream.can_accept_more_data():
        data += stream.process(b"", output_buffer_limit=most - len(data))
    if len(data) < most and not stream.is_finished():
        raise _Broken
    return data


def _zstd(body: bytes, most: int) -> bytes:
    parts: list[bytes] = []
    size = 0
    while body:
        stream = zstd.ZstdDecompressor()
        parts.append(stream.decompress(body, max_length=most - size))
        size += len(parts[-1])
        if size >= most:
            break
        if not stream.eof:
            raise _Broken
        body = stream.unused_data
    return b"".join(parts)


_EXPAND: dict[str, Callable[[bytes, int], bytes]] = {
    "gzip": _gzip,
    "x-gzip": _gzip,
    "deflate": _deflate,
    "br": _brotli,
    "zstd": _zstd,
}
