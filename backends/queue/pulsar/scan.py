"""What writers published beyond what they wrote down: found in the log, where each message names its writer.

A live writer's counts are a second old at most; a killed one's never get newer. Its last messages are counted here, by
whoever asks for totals, until ``maintain`` enters them in the journal in its place. The reading starts at the oldest
position that an open writer wrote down, or where the last reading ended.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import msgspec
import pulsar

from tracardi_lite.backends.queue.pulsar import log
from tracardi_lite.backends.queue.pulsar.client import Blocking
from tracardi_lite.backends.queue.pulsar.counts import Counts, Position, Written
from tracardi_lite.backends.queue.pulsar.names import Names

_NOWHERE: Position = (-1, -1, -1)


class Scan:
    def __init__(self, blocking: Blocking, names: Names) -> None:
        self._blocking = blocking
        self._names = names
        self._ends: dict[int, Position] = {}
        """By partition: how far it was read."""
        self._beyond: dict[tuple[bytes, int], list[log.Logged]] = {}
        """By writer and partition: messages after what the writer wrote down, in order."""
        self._lock = asyncio.Lock()

    async def complete(self, processes: Mapping[str, Counts], own: str) -> dict[str, Counts]:
        """The same counts with what the log has more of open writers, ``own`` left as it is."""
        opened = {name: counts for name, counts in processes.items() if name != own and not counts.closed}
        starts: dict[int, Position] = {}
        for counts in opened.values():
            for number, written in counts.published.items():
                starts[number] = min(starts.get(number, written.upto), written.upto)
        async with self._lock:
            await asyncio.gather(*(self._read(number, start) for number, start in starts.items()))
            self._forget(opened)
            return dict(processes) | {name: self._completed(counts) for name, counts in opened.items()}

    async def _read(self, number: int, start: Position) -> None:
        start = max(start, self._ends.get(number, _NOWHERE))
        at = pulsar.MessageId(number, *start)._msg_id if start > _NOWHERE else pulsar.MessageId.earliest
        async for burst in log.read(self._blocking, self._names.partition(number), at):
            for message in burst:
                if message.position > start:
                    self._beyond.setdefault((message.writer, number), []).append(message)
                    self._ends[number] = message.position

    def _forget(self, opened: Mapping[str, Counts]) -> None:
        """Drop what writers have written down meanwhile."""
        written = {
            (counts.writer, number): written.upto
            for counts in opened.values()
            for number, written in counts.published.items()
        }
        for key, messages in list(self._beyond.items()):
            upto = written.get(key)
            left = [] if upto is None else [message for message in messages if message.position > upto]
            if left:
                self._beyond[key] = left
            else:
                del self._beyond[key]

    def _completed(self, counts: Counts) -> Counts:
        published = dict(counts.published)
        for number, written in counts.published.items():
            more = self._beyond.get((counts.writer, number))
            if more:
                sums = Written(written.messages, written.events, written.replayed, written.upto)
                for message in more:
                    sums.add(message.events, message.replay, message.position)
                published[number] = sums
        return msgspec.structs.replace(counts, published=published)
