"""Reading the partitions themselves: to go back in the log, and for what a killed publisher did not write down."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator
from typing import Any

import pulsar
from msgspec import Struct

from tracardi_lite.backends.queue.pulsar import frame
from tracardi_lite.backends.queue.pulsar.client import Blocking, reader
from tracardi_lite.backends.queue.pulsar.counts import Position
from tracardi_lite.backends.queue.pulsar.topic import burst

_RANGE = re.compile(r"\((\d+):(-?\d+)\.\.(\d+):(-?\d+)\]")


class Logged(Struct):
    """A message in the log."""

    position: Position
    published_ms: int
    events: int
    replay: bool
    writer: bytes


async def read(blocking: Blocking, topic: str, start: Any) -> AsyncGenerator[list[Logged], None]:
    """What stands in a partition from ``start`` (a message id, or ms since the epoch) to its end as of now."""
    by_time = isinstance(start, int)
    # From the earliest the broker would send a thousand old messages, before it is told of the time.
    async with reader(blocking, topic, pulsar.MessageId.latest if by_time else start) as opened:
        if by_time:
            await blocking.run(opened.seek, start)
        more = True
        while more:
            messages, more = await blocking.run(burst, opened)
            yield [_logged(message) for message in messages]


def _logged(message: Any) -> Logged:
    at = message.message_id()
    try:
        framed = frame.decode(message.data())
    except ValueError:
        framed = frame.Framed(b"", 0, False, b"", b"")
    position = (at.ledger_id(), at.entry_id(), max(0, at.batch_index()))
    return Logged(position, message.publish_timestamp(), framed.events, framed.replay, framed.writer)


class Cursor(Struct):
    """What a subscription has acknowledged of a partition."""

    passed: tuple[int, int]
    """(ledger, entry) up to which everything is."""
    beyond: list[tuple[tuple[int, int], tuple[int, int]]] = []
    """Ranges after it, each open below and closed above."""

    def acknowledged(self, position: Position) -> bool:
        entry = position[:2]
        return entry <= self.passed or any(low < entry <= high for low, high in self.beyond)


def parse_cursor(state: dict[str, Any]) -> Cursor:
    """From the admin API's internal stats: ``markDeletePosition`` "12:34", ``individuallyDeletedMessages``
    "[(12:36..12:37],(12:40..13:1]]"."""
    ledger, _, entry = str(state["markDeletePosition"]).partition(":")
    ranges = _RANGE.findall(str(state.get("individuallyDeletedMessages", "")))
    return Cursor((int(ledger), int(entry)), [((int(a), int(b)), (int(c), int(d))) for a, b, c, d in ranges])
