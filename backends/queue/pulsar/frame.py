"""One message's payload: what the port calls head and body, and the little that the ledger needs, in one piece.

Layout, little-endian: version u8, flags u8 (1: replay), writer 8 bytes, events u32, length of the head u32, head, body.
The numbers stand in front rather than in message properties, which cost the client more than the whole frame.
"""

from __future__ import annotations

import struct

from msgspec import Struct

VERSION = 1
REPLAY = 1
WRITER_BYTES = 8
_PREFIX = struct.Struct("<BB8sII")


class Framed(Struct):
    writer: bytes
    """Which publisher's counters include it."""
    events: int
    replay: bool
    head: bytes
    body: bytes


def encode(writer: bytes, head: bytes, body: bytes, events: int, replay: bool) -> bytes:
    assert len(writer) == WRITER_BYTES
    return b"".join((_PREFIX.pack(VERSION, REPLAY if replay else 0, writer, events, len(head)), head, body))


def decode(payload: bytes) -> Framed:
    """Raises ``ValueError`` for what no publisher of ours wrote."""
    try:
        version, flags, writer, events, head_length = _PREFIX.unpack_from(payload)
    except struct.error as error:
        raise ValueError("too short") from error
    start = _PREFIX.size
    if version != VERSION or start + head_length > len(payload):
        raise ValueError("not a frame of ours")
    middle = start + head_length
    return Framed(writer, events, bool(flags & REPLAY), payload[start:middle], payload[middle:])
