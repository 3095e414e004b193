"""Ids that are derived, so that a redelivered or replayed message makes the same ones again."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from hashlib import blake2b
from itertools import count

_RANDOM_BYTES = 9
_IDS_AT_ONCE = 256


def derive_uuid(*parts: str) -> str:
    """A UUID (version 8 layout, RFC 9562 §5.8) that is a function of ``parts`` alone. Parts are joined by NUL."""
    text = blake2b("\0".join(parts).encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
    return f"{text[:8]}-{text[8:12]}-8{text[13:16]}-a{text[17:20]}-{text[20:]}"


def event_id(message_id: str, index: int) -> str:
    """The id of the event at ``index`` of a message's ``events[]`` when the client gave none. A UUID (version 8).

    It begins with the end of the message's id, which counts up: ids that grow are written to a B-tree two to three
    times faster than random ones (measured on the SQLite store). The rest is a hash of both.
    """
    return event_ids(message_id)(index)


def event_ids(message_id: str) -> Callable[[int], str]:
    """``event_id`` of one message's events: what they share is done once, which leaves a third of the time for each."""
    count = message_id[-12:]
    if len(count) < 12 or not count.isalnum() or not count.isascii():
        return lambda index: derive_uuid(message_id, str(index))
    begin = f"{count[:8]}-{count[8:]}-8"
    message = blake2b(f"{message_id}\0".encode("utf-8", "surrogatepass"), digest_size=9)

    def event_id(index: int) -> str:
        hashed = message.copy()
        hashed.update(b"%d" % index)
        text = hashed.hexdigest()
        return f"{begin}{text[:3]}-a{text[3:6]}-{text[6:]}"

    return event_id


def message_ids() -> Callable[[], str]:
    """A source of unique ids, shaped as UUIDs (version 8): 72 random bits each, then a counter.

    Unpredictable, though everybody is told their own: who could guess the next message's id would know the ids of its
    events and send them first, and who could guess a session's id would have its profile. Random bits are asked of the
    system for many ids at a time, which makes one several times cheaper than uuid4; that shows at the door's rate.
    """
    counter = count(int.from_bytes(os.urandom(4)))

    def ids() -> Iterator[str]:
        while True:
            text = os.urandom(_RANDOM_BYTES * _IDS_AT_ONCE).hex()
            for at in range(0, len(text), 2 * _RANDOM_BYTES):
                yield (
                    f"{text[at : at + 8]}-{text[at + 8 : at + 12]}-8{text[at + 12 : at + 15]}"
                    f"-a{text[at + 15 : at + 18]}-{next(counter):012x}"
                )

    return ids().__next__
