"""Dead letters: a compacted topic keyed by letter id, with a tombstone for each that was replayed or dropped.

In memory is only the index (id, where it stands, how many events): about 300 bytes a letter. Bodies are read when
somebody looks.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import pulsar
from msgspec import Struct

from tracardi_lite.backends.queue.pulsar.client import Blocking, reader
from tracardi_lite.backends.queue.pulsar.sender import Sender
from tracardi_lite.backends.queue.pulsar.topic import READ_TIMEOUT_MS, Tail
from tracardi_lite.ports.queue import DeadLetter

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(DeadLetter)


class _Place(Struct):
    at: Any
    """The message's id in the topic."""
    events: int


class _Events(Struct):
    """The little of a letter that the index needs."""

    events: int


_events = msgspec.msgpack.Decoder(_Events)


class Letters:
    def __init__(self, blocking: Blocking, sender: Sender, topic: str) -> None:
        self._blocking = blocking
        self._sender = sender
        self._topic = topic
        self._index: dict[str, _Place] = {}
        self.tail = Tail(blocking, topic, self._apply)

    @property
    def events(self) -> int:
        """In the letters that are here, as of the last refresh."""
        return sum(place.events for place in self._index.values())

    async def keep(self, letters: Sequence[DeadLetter]) -> None:
        """Durable when it returns."""
        waiting = [self._sender.send(_encoder.encode(letter), letter.id) for letter in letters]
        for one in waiting:
            await one

    async def drop(self, id: str) -> None:
        await self._sender.send(None, id)

    async def has(self, id: str) -> bool:
        await self.tail.refresh()
        return id in self._index

    async def page(self, limit: int, after: str) -> list[DeadLetter]:
        await self.tail.refresh()
        ids = sorted(id for id in self._index if id > after)[:limit]
        if not ids:
            return []
        places = sorted((self._index[id].at for id in ids), key=lambda at: (at.ledger_id(), at.entry_id()))
        async with reader(self._blocking, self._topic, places[0], compacted=True) as opened:
            found = {letter.id: letter for letter in await self._blocking.run(_read_at, opened, places)}
        return [found[id] for id in ids if id in found]

    def _apply(self, message: Any) -> None:
        id, data = message.partition_key(), message.data()
        if data:
            self._index[id] = _Place(message.message_id(), _events.decode(data).events)
        else:
            self._index.pop(id, None)


def _read_at(opened: Any, places: Sequence[Any]) -> list[DeadLetter]:
    """The letters at these places, which are in order; a letter that was compacted away meanwhile is passed over."""
    found = []
    for at in places:
        for attempt in ("next", "seek"):
            if attempt == "seek":
                opened.seek(at)
            try:
                message = opened.read_next(READ_TIMEOUT_MS)
            except pulsar.Timeout:
                continue
            here = message.message_id()
            if (here.ledger_id(), here.entry_id()) == (at.ledger_id(), at.entry_id()):
                found.append(_decoder.decode(message.data()))
                break
    return found
