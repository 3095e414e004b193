"""The journal on its topic: this process's counts written to it, everybody's read from it.

Counts are written with each acknowledgement, ``REPORT_S`` after a publication at the latest, and when the queue closes.
What a killed publisher had not written yet stands in the log itself, where ``Scan`` finds it: each message names its
writer, and each writer's counts say up to which position they go. So that the log knows every writer, the first
publication to a partition waits until the writer is in the journal.
"""

from __future__ import annotations

import os
import time
import uuid
from collections.abc import Mapping
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
HEARTBEAT_S = 60.0
"""A process that has nothing to report says at least that it lives."""
INCARNATION_TRIES = 5


class Ledger:
    def __init__(self, blocking: Blocking, sender: Sender, topic: str) -> None:
        self._sender = sender
        self.journal = Journal()
        self.tail = Tail(blocking, topic, self._apply)
        self.counts = Counts()
        self._dirty = False
        self._reported = 0.0
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
        """Say that this process is over, if it can be said now."""
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

    def note_refused(self, refused: Mapping[str, int]) -> None:
        self.counts.note_refused(refused)
        self._dirty = True

    async def report(self, subscription: str = "", settled: list[EntryId] | None = None) -> None:
        """Write this process's counts, with the entries that they newly include. Durable when it returns."""
        self._dirty = False
        self._reported = time.monotonic()
        try:
            await self._sender.send(encode_report(self.counts, subscription, settled), f"c:{self._name}")
        except BaseException:
            self._dirty = True
            raise

    async def report_if_due(self) -> None:
        """Called about once a second."""
        if self._dirty or time.monotonic() - self._reported > HEARTBEAT_S:
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

    async def bury_silent(self, processes: Mapping[str, Counts], horizon_ms: int) -> None:
        """Close the counts, as the log completes them, of processes that were last heard of before ``horizon_ms``.

        One that was only paused writes its own again when it comes back, and those hold.
        """
        for name, counts in processes.items():
            if name == self._name or counts.closed or self.journal.heard_ms.get(name, horizon_ms) >= horizon_ms:
                continue
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
