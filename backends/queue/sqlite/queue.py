"""The open queue: the port's methods, over the writer, the files thread and the janitor."""

from __future__ import annotations

import asyncio
import sqlite3
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import TracebackType
from typing import Self

import msgspec
import structlog

from tracardi_lite.backends.queue.routing import partition_name
from tracardi_lite.backends.queue.sqlite.appender import SEGMENT_BYTES, Appender
from tracardi_lite.backends.queue.sqlite.batch import Packer
from tracardi_lite.backends.queue.sqlite.consumer import SqliteConsumer
from tracardi_lite.backends.queue.sqlite.database import translated
from tracardi_lite.backends.queue.sqlite.files import Files
from tracardi_lite.backends.queue.sqlite.folder import Folder
from tracardi_lite.backends.queue.sqlite.janitor import Janitor
from tracardi_lite.backends.queue.sqlite.room import Room, probe
from tracardi_lite.backends.queue.sqlite.segment import Segment
from tracardi_lite.backends.queue.sqlite.watcher import Watcher
from tracardi_lite.backends.queue.sqlite.writer import Waiting, Writer
from tracardi_lite.clock import Clock
from tracardi_lite.errors import Full, TryLater, Unavailable
from tracardi_lite.ports.queue import (
    SUBSCRIPTION,
    DeadLetter,
    PartitionBacklog,
    Posted,
    Publication,
    Totals,
    wait_posted,
)
from tracardi_lite.settings import Settings

REFUSED_EVERY_S = 1.0
"""How far the stored count of refused events may lag."""
MESSAGE_OVERHEAD = 512
"""What a publication in flight costs besides its bytes: small ones are bounded in number by it."""

log = structlog.get_logger(__name__)


class SqliteQueue:
    def __init__(self, folder: Path, settings: Settings, clock: Clock) -> None:
        self._path = folder
        self._settings = settings
        self._clock = clock
        self._folder = Folder(folder)
        self._files = Files(folder, clock)
        self._room = Room(folder, settings.queue_bytes_max, settings.disk_free_min)
        # Retention deletes whole segments, so a small bound needs small ones.
        self._segment_bytes = min(SEGMENT_BYTES, settings.queue_bytes_max // 8)
        self._janitor = Janitor(folder, settings, clock, self._room)
        self._cleaner: ThreadPoolExecutor | None = None
        self._cleaning: asyncio.Task[None] | None = None
        self._writer: Writer | None = None
        self._in_flight = 0
        self._failed: TryLater | None = None
        """Why the last group could not be written; None after one that was."""
        self._refused: Counter[str] = Counter()
        self._refused_at = 0.0
        self._consumers: set[SqliteConsumer] = set()
        self._watcher: Watcher | None = None
        """Runs from the first consumer on."""

    async def __aenter__(self) -> Self:
        self._cleaner = ThreadPoolExecutor(1, "queue-janitor")
        try:
            await self._clean(lambda: self._folder.open(self._settings.queue_partitions, self._clock))
            await self._files.open()
            control = self._files.control
            self._incarnation, partitions = control.incarnation, control.partitions
            await self._clean(self._janitor.measure)
        except BaseException:
            await self._close_files()
            raise
        self._writer = Writer(
            Appender(self._path, self._clock, self._segment_bytes, self._retire),
            Packer(partitions),
            asyncio.get_running_loop(),
            self._settle,
        )
        self._writer.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for consumer in list(self._consumers):
            await consumer.close()
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.flush()
            await asyncio.get_running_loop().run_in_executor(None, writer.join)
        if self._watcher is not None:
            await asyncio.get_running_loop().run_in_executor(None, self._watcher.stop)
        if self._cleaning is not None:
            await asyncio.wait([self._cleaning])
        try:
            await self._store_refused()
        except TryLater as refusal:
            log.warning("queue_refusals_not_stored", error=str(refusal))
        finally:
            await self._close_files()

    # --- publishing ---
    async def publish(self, publication: Publication) -> None:
        await wait_posted(self.post, publication)

    def post(self, publication: Publication, done: Posted) -> None:
        if self._writer is None:
            raise Unavailable("queue", "is closed")
        refusal = self._room.refusal()
        if refusal is not None:
            self._look_soon()
            raise refusal
        size = len(publication.head) + len(publication.body) + MESSAGE_OVERHEAD
        if self._in_flight and self._in_flight + size > self._settings.in_flight_max:
            raise Full("queue", "too much is waiting for the disk", 1.0)
        self._in_flight += size
        self._writer.submit(publication, done)

    def _settle(self, group: Sequence[Waiting], error: Exception | None, written: int) -> None:
        """Answer a group; called in the loop by the writer."""
        for publication, done in group:
            self._in_flight -= len(publication.head) + len(publication.body) + MESSAGE_OVERHEAD
            done(error)
        if error is not None:
            if self._failed is None:
                log.error("queue_write_failed", error=str(error), publications=len(group))
            self._failed = error if isinstance(error, TryLater) else Unavailable("queue", "its writer failed")
            return
        if self._failed is not None:
            log.warning("queue_writes_again")
        self._failed = None
        self._room.wrote(written)
        self._look_soon()
        self._wake()

    async def ping(self) -> None:
        if self._writer is None:
            raise Unavailable("queue", "is closed")
        refusal = self._room.refusal()
        if refusal is not None:
            self._look_soon()
            raise refusal
        if self._failed is not None:
            try:
                await self._clean(lambda: probe(self._path))
            except TryLater as error:
                raise self._failed from error
            self._failed = None

    # --- consuming ---
    async def subscribe(self, subscription: str) -> SqliteConsumer:
        if subscription != SUBSCRIPTION:
            await self._files.run(lambda: self._make(subscription))
        consumer = SqliteConsumer(self._files, self._incarnation, subscription, self._settings.lease_ttl, self._forget)
        try:
            await consumer.join()
        except BaseException:
            await consumer.close()
            raise
        self._consumers.add(consumer)
        if self._watcher is None:
            self._watcher = Watcher(self._path, asyncio.get_running_loop(), self._wake)
            self._watcher.start()
        self._nudge()
        return consumer

    async def seek(self, subscription: str, to_ms: int | None) -> int:
        again = await self._files.run(lambda: self._seek(subscription, to_ms))
        self._nudge()
        return again

    # --- looking ---
    async def backlog(self, *, rough: bool = False) -> list[PartitionBacklog]:
        return await self._files.run(self._backlog)

    async def totals(self, *, rough: bool = False) -> Totals:
        await self._store_refused()
        return await self._files.run(self._totals)

    async def note_refused(self, counts: Mapping[str, int]) -> None:
        self._refused.update(counts)
        now = self._clock.monotonic()
        if now - self._refused_at >= REFUSED_EVERY_S:
            self._refused_at = now
            await self._store_refused()

    # --- dead letters ---
    async def dead_letters(self, limit: int = 100, after: str = "") -> list[DeadLetter]:
        return await self._files.run(lambda: self._files.control.letters(limit, after))

    async def take_dead_letter(self, id: str, *, replay: Publication | None) -> bool:
        if replay is not None:
            if not await self._files.run(lambda: self._files.control.has_letter(id)):
                return False
            await self.publish(msgspec.structs.replace(replay, replay=True))
        return await self._files.run(lambda: self._files.control.drop_letter(id))

    # --- keeping house ---
    async def maintain(self) -> None:
        passed = await self._files.run(self._passed)
        await self._files.run(lambda: self._files.control.harden())
        await self._clean(lambda: self._janitor.maintain(passed))

    def _look_soon(self) -> None:
        """Have the janitor measure and checkpoint, if it is time and it is not at it."""
        if self._room.is_stale(self._clock.monotonic()) and (self._cleaning is None or self._cleaning.done()):
            self._cleaning = asyncio.create_task(self._look())

    async def _look(self) -> None:
        try:
            await self._clean(self._janitor.measure)
            if self._room.refusal() is not None:
                await self.maintain()
        except TryLater as error:
            log.warning("queue_not_measured", error=str(error))

    async def _clean(self, act: Callable[[], None]) -> None:
        if self._cleaner is None:
            raise Unavailable("queue", "is closed")
        try:
            await asyncio.get_running_loop().run_in_executor(self._cleaner, act)
        except (sqlite3.Error, OSError) as error:
            raise translated(error) from error

    def _retire(self, segment: Segment) -> None:
        """Called by the writer, whose thread ends before the janitor's."""
        assert self._cleaner is not None
        self._cleaner.submit(segment.close)

    async def _close_files(self) -> None:
        await self._files.close()
        cleaner, self._cleaner = self._cleaner, None
        if cleaner is not None:
            await asyncio.get_running_loop().run_in_executor(cleaner, self._folder.close)
            cleaner.shutdown()

    def _forget(self, consumer: SqliteConsumer) -> None:
        self._consumers.discard(consumer)

    def _wake(self) -> None:
        for consumer in self._consumers:
            consumer.wake()

    def _nudge(self) -> None:
        for consumer in self._consumers:
            consumer.nudge()

    async def _store_refused(self) -> None:
        if not self._refused:
            return
        counts, self._refused = self._refused, Counter()
        try:
            await self._files.run(lambda: self._files.control.refuse(counts))
        except TryLater:
            self._refused.update(counts)
            raise

    # --- in the files thread ---
    def _make(self, subscription: str) -> None:
        _, start = self._files.reader.starts()[0]
        self._files.control.subscribe(subscription, start.base, start.counts)

    def _seek(self, subscription: str, to_ms: int | None) -> int:
        found = self._files.reader.since(to_ms)
        return 0 if found is None else self._files.control.seek(subscription, *found)

    def _totals(self) -> Totals:
        # Cursors first: the log has only grown since, so what is pending is never negative.
        ledger = self._files.control.ledger(SUBSCRIPTION)
        counts = self._files.reader.end().counts
        published = sum(counts.events)
        return Totals(
            received=published - counts.replayed,
            replayed=counts.replayed + ledger.sought,
            stored=ledger.stored,
            duplicate=ledger.duplicate,
            rejected=ledger.rejected,
            dead_lettered=ledger.dead_lettered,
            dead=ledger.dead,
            pending=published - ledger.passed,
            refused=ledger.refused,
        )

    def _backlog(self) -> list[PartitionBacklog]:
        reader = self._files.reader
        cursors = self._files.control.cursors()
        counts = reader.end().counts
        rows = []
        for cursor in cursors:
            number = cursor.partition
            messages = counts.messages[number] - cursor.messages
            oldest = reader.find(number, cursor.messages) if messages else None
            rows.append(
                PartitionBacklog(
                    partition_name(number),
                    cursor.subscription,
                    messages,
                    counts.events[number] - cursor.events,
                    oldest[1] if oldest else None,
                )
            )
        return rows

    def _passed(self) -> list[int]:
        """By partition, the messages that every subscription has passed."""
        passed: dict[int, int] = {}
        for cursor in self._files.control.cursors():
            passed[cursor.partition] = min(cursor.messages, passed.get(cursor.partition, cursor.messages))
        return [passed[number] for number in sorted(passed)]
