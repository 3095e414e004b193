"""The journal on its topic: this process's counts written to it, everybody's read from it.

Counts are written with each acknowledgement, ``REPORT_S`` after a publication at the latest, and when the queue closes.
What a killed publisher had not written yet stands in the log itself, where ``Scan`` finds it: each message names its
writer, and each writer's counts say up to which position they go, and since when they miss anything. So that every
writer is known, the answer to the first publication to a partition waits until the journal says of it. So that the log
need not be searched far, a publisher whose counts can't be written stops (``check``).
"""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Callable, Mapping
from typing import Any

from tracardi_lite.backends.queue.pulsar.client import Blocking
from tracardi_lite.backends.queue.pulsar.counts import Amount, Counts, Position, Written
from tracardi_lite.backends.queue.pulsar.frame import WRITER_BYTES
from tracardi_lite.backends.queue.pulsar.ids import EntryId
from tracardi_lite.backends.queue.pulsar.journal import Journal, encode_report
from tracardi_lite.backends.queue.pulsar.sender import Sender
from tracardi_lite.backends.queue.pulsar.topic import Tail
from tracardi_lite.errors import TryLater, Unavailable
from tracardi_lite.ports.queue import SUBSCRIPTION

REPORT_S = 1.0
HEARTBEAT_S = 5.0
"""A process that has nothing to report says at least that it lives, and that nothing of its is missing so far."""
UNTOLD_MAX_S = 15.0
"""A publisher goes on for no longer after the last time that its counts were written."""
INCARNATION_TRIES = 5


class Ledger:
    def __init__(self, blocking: Blocking, sender: Sender, topic: str) -> None:
        self._sender = sender
        self.journal = Journal()
        self.tail = Tail(blocking, topic, self._apply)
        self.counts = Counts()
        self.unsure_s: Callable[[], float] = lambda: 0.0
        """For how long the oldest message has waited that may be in the log and is not counted."""
        self._dirty = False
        self._reported = 0.0
        self._told = time.monotonic()
        """When the last report began that was written."""
        self._renew()

    async def open(self) -> None:
        await self.refresh()
        for _ in range(INCARNATION_TRIES):
            if self.journal.incarnation:
                return
            await self._sender.send(b"1", f"i:{uuid.uuid4().hex}")
            await self.refresh()
        raise Unavailable("queue", "the journal's topic does not keep what is written to it")

    async def close(self) -> None:
        """Say that this process is over, if it can be said now, and is of any interest."""
        if self.counts.is_empty:
            return
        self.counts.closed = True
        try:
            await self.report()
        except TryLater:
            return

    async def refresh(self) -> None:
        """Know what all processes had written by now. Raises ``Unavailable``."""
        await self.tail.refresh()

    def note_published(self, counts: Counts, partition: int, events: int, replay: bool, place: Position) -> None:
        """A receipt came, for a message of the writer with these counts."""
        if counts is not self.counts:
            return  # that writer is closed for good: the log tells how far it came
        counts.published.setdefault(partition, Written()).add(events, replay, place)
        self._dirty = True

    def check(self) -> None:
        """Raise ``Unavailable`` while what was published can't be written down."""
        now = time.monotonic()
        if now - self._told > UNTOLD_MAX_S:
            if self.counts.is_empty:
                self._told = now  # there was nothing to tell
                return
            raise Unavailable("queue", "Pulsar does not keep the journal")

    def note_refused(self, refused: Mapping[str, int]) -> None:
        self.counts.note_refused(refused)
        self._dirty = True

    async def report(self, subscription: str = "", settled: list[EntryId] | None = None) -> None:
        """Write this process's counts, with the entries that they newly include. Durable when it returns."""
        self._dirty = False
        self._reported = began = time.monotonic()
        self.counts.since_ms = time.time_ns() // 1_000_000 - int(1000 * self.unsure_s())
        try:
            await self._sender.send(encode_report(self.counts, subscription, settled), f"c:{self._name}")
        except BaseException:
            self._dirty = True
            raise
        self._told = max(self._told, began)

    async def report_if_due(self) -> None:
        """Called about once a second."""
        if self._dirty or (time.monotonic() - self._reported > HEARTBEAT_S and not self.counts.is_empty):
            await self.report()

    async def write(self, records: Mapping[str, bytes | None]) -> None:
        """Write records of other kinds; None is a tombstone."""
        for future in [self._sender.send(payload, key) for key, payload in records.items()]:
            await future

    async def begin_seek(self, subscription: str, again: Mapping[int, Amount]) -> None:
        """Somebody is about to go back: what was settled may come again, and is pending again."""
        if subscription == SUBSCRIPTION:
            for number, amount in again.items():
                self.counts.sought.setdefault(number, Amount()).add(amount.messages, amount.events)
        await self.report()
        await self.write({f"s:{subscription}": uuid.uuid4().hex.encode()})
        await self.refresh()

    def unfinished(self) -> list[str]:
        """The other processes that may have published more than they wrote down."""
        return [name for name, counts in self.journal.processes.items() if name != self._name and not counts.closed]

    def silent(self, horizon_ms: int) -> list[str]:
        """Those of them that were last heard of before ``horizon_ms``: they are over."""
        return [name for name in self.unfinished() if self.journal.heard_ms.get(name, horizon_ms) < horizon_ms]

    async def bury(self, name: str, counts: Counts) -> None:
        """Close the counts, as the log completes them, of a process that is over.

        One that was only paused writes its own again when it comes back, and those hold.
        """
        counts.closed = True
        await self.write({f"c:{name}": encode_report(counts)})

    @property
    def name(self) -> str:
        """This process's in the journal."""
        return self._name

    def processes(self) -> dict[str, Counts]:
        """Everybody's counts by name; this process's as they are, not as it wrote them last."""
        return self.journal.processes | {self._name: self.counts}

    def _renew(self) -> None:
        self.counts = Counts(writer=os.urandom(WRITER_BYTES))
        self._name = self.counts.writer.hex()
        self.journal.own.add(self._name)

    async def rotate(self) -> None:
        """Go on under another name: the fate of some publications is unknown, and only the log can tell."""
        await self.report()
        old = self.counts
        self._renew()
        self.journal.processes[old.writer.hex()] = old

    def _apply(self, message: Any) -> None:
        self.journal.apply(message.partition_key(), message.data(), message.publish_timestamp())
