"""What writers published beyond what they wrote down: found in the log, where each message names its writer.

A live writer's counts are a second old at most; a killed one's never get newer. What it sent last is counted here when
somebody asks for exact totals, and once more by ``maintain``, which enters it in the journal in its place.

Reading the log costs what writing it cost, so little of it is read: each report says since when the writer has sent
what it does not count (``Counts.since_ms``), and a writer that can't report stops publishing (``ledger.UNTOLD_MAX_S``).
What was read is remembered for whoever asks next.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping
from contextlib import aclosing

import msgspec
import pulsar
from msgspec import Struct

from tracardi_lite.backends.queue.pulsar import log
from tracardi_lite.backends.queue.pulsar.client import Blocking
from tracardi_lite.backends.queue.pulsar.counts import Counts, Position
from tracardi_lite.backends.queue.pulsar.ledger import UNTOLD_MAX_S
from tracardi_lite.backends.queue.pulsar.names import Names
from tracardi_lite.backends.queue.pulsar.sender import SEND_TIMEOUT_S

LEEWAY_MS = 5000
"""By which two machines' clocks may differ."""
LATE_MS = int(1000 * (UNTOLD_MAX_S + SEND_TIMEOUT_S))
"""How long after its last report a writer's last message may reach the log: it may have to be sent again."""
FAR_MS = 30_000
"""How much of what nobody needs is read, to go on from where reading has ended, before it is begun anew by time."""
_NOWHERE: Position = (-1, -1, -1)


class _Read(Struct):
    """What is known of a partition: all from ``since_ms`` on up to ``end``, but for what its writers have counted."""

    since_ms: int
    end: Position = _NOWHERE
    end_ms: int = 0
    """When the message at ``end`` was sent; 0 where nothing was found, and ``end`` is before ``since_ms``."""
    messages: list[log.Logged] = []


class Scan:
    def __init__(self, blocking: Blocking, names: Names) -> None:
        self._blocking = blocking
        self._names = names
        self._read: dict[int, _Read] = {}
        self._lock = asyncio.Lock()

    async def complete(
        self, processes: Mapping[str, Counts], wanted: Collection[str], heard_ms: Mapping[str, int]
    ) -> dict[str, Counts]:
        """The counts of the ``wanted`` among the processes, with what the log has more of them.

        ``heard_ms``: when each of them wrote its counts, by its own clock. Raises ``Unavailable``.
        """
        writers = [processes[name] for name in wanted]
        numbers = {number for counts in writers for number in counts.published}
        if not numbers:
            return {name: processes[name] for name in wanted}
        from_ms = min(counts.since_ms for counts in writers if counts.published) - LEEWAY_MS
        last_ms = max(heard_ms.get(name, 0) for name in wanted) + LATE_MS + LEEWAY_MS
        # What anybody has counted: the log's end is hardly further.
        newest = dict.fromkeys(numbers, _NOWHERE)
        for counts in processes.values():
            for number in numbers & counts.published.keys():
                newest[number] = max(newest[number], counts.published[number].upto)
        async with self._lock:
            await asyncio.gather(*(self._go_on(number, from_ms, last_ms, newest[number]) for number in numbers))
            self._forget(processes.values(), numbers, from_ms)
            return {name: self._completed(processes[name]) for name in wanted}

    async def _go_on(self, number: int, from_ms: int, last_ms: int, newest: Position) -> None:
        """Read a partition from ``from_ms`` up to ``last_ms`` or its end, as far as that was not done before."""
        known = self._read.get(number)
        if (
            known is None
            or known.end == _NOWHERE
            or known.since_ms > from_ms
            or (known.end_ms + FAR_MS < from_ms and known.end < newest)
        ):
            known = self._read[number] = _Read(since_ms=from_ms)
        at = from_ms if known.end == _NOWHERE else pulsar.MessageId(number, *known.end)._msg_id
        async with aclosing(log.read(self._blocking, self._names.partition(number), at)) as bursts:
            async for burst in bursts:
                for message in burst:
                    if message.position > known.end:
                        known.messages.append(message)
                        known.end, known.end_ms = message.position, message.published_ms
                if burst and burst[-1].published_ms > last_ms:
                    break
        if known.end == _NOWHERE:
            known.end = newest

    def _forget(self, processes: Collection[Counts], numbers: Collection[int], from_ms: int) -> None:
        """Drop what its writer has counted, and what nobody needs now."""
        upto = {
            (counts.writer, number): written.upto
            for counts in processes
            for number, written in counts.published.items()
        }
        closed = {counts.writer for counts in processes if counts.closed}
        for number in numbers:
            known = self._read[number]
            known.since_ms = max(known.since_ms, from_ms)
            known.messages = [
                message
                for message in known.messages
                if message.published_ms >= from_ms
                and message.writer not in closed
                and message.position > upto.get((message.writer, number), _NOWHERE)
            ]

    def _completed(self, counts: Counts) -> Counts:
        published = {}
        for number, written in counts.published.items():
            published[number] = sums = msgspec.structs.replace(written)
            for message in self._read[number].messages:
                if message.writer == counts.writer:
                    sums.add(message.events, message.replay, message.position)
        return msgspec.structs.replace(counts, published=published)
