"""Pulsar's message ids as numbers.

``(ledger, entry, index)``: a ledger's number is never used again in a BookKeeper cluster and grows with time, entries
grow within it, and an entry holds a batch of messages of one key (key-based batching), by index.
"""

from __future__ import annotations

from typing import Any, NamedTuple

_BATCH_SIZE_FIELD = 6
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


class EntryId(NamedTuple):
    """What the broker acknowledges: an entry is redelivered whole until each of its messages is settled."""

    partition: int
    ledger: int
    entry: int


def entry_of(message_id: Any) -> EntryId:
    return EntryId(message_id.partition(), message_id.ledger_id(), message_id.entry_id())


def batch_size(message_id: Any) -> int:
    """How many messages its entry holds; the client tells it in the id's serialised form only (MessageIdData)."""
    if message_id.batch_index() < 0:
        return 1
    return max(1, read_field(message_id.serialize(), _BATCH_SIZE_FIELD))


def read_field(data: bytes, wanted: int) -> int:
    """A varint field of a protobuf message; 0 where it is missing."""
    place = 0
    while place < len(data):
        tag, place = _varint(data, place)
        kind = tag & 7
        if kind == _VARINT:
            value, place = _varint(data, place)
            if tag >> 3 == wanted:
                return value
        elif kind == _BYTES:
            length, place = _varint(data, place)
            place += length
        elif kind in (_FIXED64, _FIXED32):
            place += 8 if kind == _FIXED64 else 4
        else:
            break
    return 0


def _varint(data: bytes, place: int) -> tuple[int, int]:
    value = shift = 0
    while place < len(data):
        byte = data[place]
        place += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            break
        shift += 7
    return value, place
