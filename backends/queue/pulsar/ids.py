"""Pulsar's message ids as numbers.

``(ledger, entry, index)``: a ledger's number is never used again in a BookKeeper cluster and grows with time, entries
grow within it, and an entry holds a batch of messages of one key (key-based batching), by index.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from tracardi_lite.backends.queue.pulsar.wire import protobuf

_BATCH_SIZE_FIELD = 6


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
    return max(1, protobuf.number(protobuf.decode(message_id.serialize()), _BATCH_SIZE_FIELD))
