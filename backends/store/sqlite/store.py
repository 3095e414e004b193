"""The SQLite store: a folder of files, one per kind and partition, and the directory's.

What is here only hands calls to threads and puts answers together. Events, profiles, sessions and the directory are
written by a lane each, so that their syncs overlap; identity is read by one that no search can hold up; two search.
Threads start with their first call. Several processes may use the folder.

A damaged file is salvaged in the background; until that is done its items get the verdict RETRY, reads of it raise
``Unavailable``, and ``ping`` names it. Bounds: see ``lanes``, ``files.BUSY_S``, ``searches``.
"""

from __future__ import annotations

import asyncio
import itertools
import sqlite3
import time
from collections import defaultdict
from collections.abc import Callable, Coroutine, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

import structlog

from tracardi_lite import partitioning
from tracardi_lite.backends.store.sqlite import directory, events, faults, records, schema, search
from tracardi_lite.backends.store.sqlite.connections import Connections, Damaged
from tracardi_lite.backends.store.sqlite.files import BUSY_S, Files
from tracardi_lite.backends.store.sqlite.lanes import Lane, ReadLane, WriteLane
from tracardi_lite.backends.store.sqlite.searches import Searches, check_depth
from tracardi_lite.backends.store.sqlite.sickbay import Sickbay
from tracardi_lite.errors import TryLater
from tracardi_lite.ports.store import (
    KINDS,
    Bar,
    Claim,
    Entry,
    EventWrite,
    Kind,
    Outcome,
    Page,
    PartitionInfo,
    Query,
    Record,
    RecordWrite,
    Verdict,
)
from tracardi_lite.query import Where

T = TypeVar("T")
W = TypeVar("W", EventWrite, RecordWrite)

PROBE_S = 5.0
"""A write that committed so recently answers ``ping``."""

_SEARCHERS = 2

log = structlog.get_logger(__name__)


class SqliteStore:
    def __init__(self, folder: Path) -> None:
        self._files = Files(folder)
        self._closing = False
        self._sickbay = Sickbay(self._files, self._is_closing)
        check = self._sickbay.check
        self._writers = {kind: WriteLane(f"{kind}s", self._files, check, order=_start_of) for kind in KINDS}
        self._entries = WriteLane("directory", self._files, check, order=str)
        self._points = ReadLane("reads", self._files, check)
        self._searchers = [ReadLane(f"search-{n}", self._files, check) for n in range(_SEARCHERS)]
        self._turns = itertools.cycle(self._searchers)
        self._committed = float("-inf")
        self.rewriting = self
        """The optional part of the port (``ports.store.Rewriting``)."""

    # opening and closing

    async def __aenter__(self) -> Self:
        try:
            await asyncio.to_thread(self._files.prepare)
        except OSError as error:
            raise faults.translate(error, str(self._files.folder)) or error from error
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closing = True  # searches and salvages end at their next look at it
        lanes: list[Lane] = [
            *self._writers.values(),
            self._entries,
            self._points,
            *self._searchers,
            self._sickbay.lane,
        ]
        for lane in lanes:
            lane.close()
        for lane in lanes:
            if not await asyncio.to_thread(lane.join, BUSY_S):
                log.error("store_lane_still_busy", lane=lane.name, waited_s=BUSY_S)

    def _is_closing(self) -> bool:
        return self._closing

    # writing records

    async def create_events(self, writes: Sequence[EventWrite]) -> list[Verdict]:
        return await self._write_by_file(writes, ["event"] * len(writes), self._create)

    def _create(self, writes: list[EventWrite]) -> Callable[[sqlite3.Connection], list[Verdict]]:
        connections = self._writers["event"].connections
        before = schema.file_name("event", partitioning.previous(writes[0].partition))

        def known_before(ids: Sequence[str]) -> events.Known:
            return connections.read(before, lambda connection: events.known(connection, ids)) or {}

        return lambda connection: events.create(connection, writes, known_before)

    async def rewrite_events(self, writes: Sequence[EventWrite]) -> list[Verdict]:
        def work_of(group: list[EventWrite]) -> Callable[[sqlite3.Connection], list[Verdict]]:
            return lambda connection: events.rewrite(connection, group)

        return await self._write_by_file(writes, ["event"] * len(writes), work_of)

    async def put(self, writes: Sequence[RecordWrite]) -> list[Verdict]:
        def work_of(group: list[RecordWrite]) -> Callable[[sqlite3.Connection], list[Verdict]]:
            return lambda connection: records.put(connection, group)

        return await self._write_by_file(writes, [write.kind for write in writes], work_of)

    async def _write_by_file(
        self,
        writes: Sequence[W],
        kinds: Sequence[Kind],
        work_of: Callable[[list[W]], Callable[[sqlite3.Connection], list[Verdict]]],
    ) -> list[Verdict]:
        """One call per file, side by side; the verdicts in the order of the items. Raises the first file's trouble."""
        verdicts: list[Verdict] = []
        groups: dict[tuple[str, Kind], list[int]] = defaultdict(list)
        for place, (write, kind) in enumerate(zip(writes, kinds, strict=True)):
            known = partitioning.is_name(write.partition)
            verdicts.append(Verdict(Outcome.NEVER, "" if known else f"not a partition's name: {write.partition!r}"))
            if known:
                groups[write.partition, kind].append(place)
        waiting: list[tuple[list[int], Coroutine[Any, Any, list[Verdict]]]] = []
        # Older partitions first: a client's id that comes twice in a call is then found in the one before.
        for partition, kind in sorted(groups, key=lambda group: partitioning.starts_ms(group[0])):
            places = groups[partition, kind]
            work = work_of([writes[place] for place in places])
            waiting.append((places, self._write(kind, partition, work, len(places))))
        answers = await asyncio.gather(*(coroutine for _, coroutine in waiting), return_exceptions=True)
        for (places, _), answer in zip(waiting, answers, strict=True):
            if isinstance(answer, BaseException):
                raise answer
            for place, verdict in zip(places, answer, strict=True):
                verdicts[place] = verdict
        return verdicts

    async def _write(
        self, kind: Kind, partition: str, work: Callable[[sqlite3.Connection], list[Verdict]], count: int
    ) -> list[Verdict]:
        file = schema.file_name(kind, partition)
        if (reason := self._sickbay.reason(file)) is not None:
            return [Verdict(Outcome.RETRY, reason)] * count
        try:
            return await self._commit(self._writers[kind], file, work)
        except Damaged as error:
            return [Verdict(Outcome.RETRY, error.reason)] * count

    # the directory

    async def lookup(self, keys: Sequence[str]) -> list[Entry | None]:
        def work(connections: Connections) -> list[Entry | None]:
            found = connections.read(schema.DIRECTORY, lambda connection: directory.lookup(connection, keys))
            return [None] * len(keys) if found is None else found

        return await self._read(self._points, work) if keys else []

    async def claim(self, claims: Sequence[Claim]) -> list[Entry]:
        return await self._change_entries(lambda connection: directory.claim(connection, claims)) if claims else []

    async def repoint(self, key: str, expected: Entry, entry: Entry | None) -> bool:
        return await self._change_entries(lambda connection: directory.repoint(connection, key, expected, entry))

    async def _change_entries(self, work: Callable[[sqlite3.Connection], T]) -> T:
        self._sickbay.check(schema.DIRECTORY)
        return await self._commit(self._entries, schema.DIRECTORY, work)

    # records by id

    async def get(self, kind: Kind, keys: Sequence[tuple[str, str]]) -> list[Record | None]:
        return await self._read(self._points, lambda connections: _get(connections, kind, keys)) if keys else []

    async def find(self, kind: Kind, id: str) -> Record | None:
        [entry] = await self.lookup([f"{kind[0]}:{id}"]) if kind != "event" else [None]
        if entry is not None and entry.partition:
            [record] = await self.get(kind, [(id, entry.partition)])
            if record is not None:
                return record

        def work(connections: Connections) -> Record | None:
            for partition in self._partitions_of(kind):
                [record] = _get(connections, kind, [(id, partition)])
                if record is not None:
                    return record
            return None

        return await self._search(work)

    async def delete(self, kind: Kind, id: str) -> bool:
        record = await self.find(kind, id)
        removed = False
        if record is not None:
            file = schema.file_name(kind, record.partition)
            self._sickbay.check(file)
            sql = "DELETE FROM record WHERE id = ?"
            removed = await self._commit(
                self._writers[kind], file, lambda connection: connection.execute(sql, (id,)).rowcount > 0
            )
        # Also where the record was not found: a deletion that a crash cut short is finished by the next.
        if kind != "event":
            removed |= await self._change_entries(lambda connection: directory.remove_own(connection, kind, id))
        return removed

    # searching

    async def search(self, kind: Kind, query: Query) -> Page:
        check_depth(query)
        return await self._search(lambda connections: self._searches(connections, kind, query).page())

    async def count(self, kind: Kind, where: Where | None = None) -> int:
        return await self._search(lambda connections: self._searches(connections, kind, Query(where=where)).total())

    async def histogram(
        self, kind: Kind, query: Query, step_ms: int, group_by: str | None = None, top: int = 5
    ) -> list[Bar]:
        return await self._search(
            lambda connections: self._searches(connections, kind, query).histogram(step_ms, group_by, top)
        )

    def _searches(self, connections: Connections, kind: Kind, query: Query) -> Searches:
        names = [schema.file_name(kind, partition) for partition in self._partitions_of(kind)]
        return Searches(connections, kind, names, query, self._is_closing)

    async def refresh(self) -> None:
        """Nothing to do: what is committed is seen by the next search."""

    # partitions

    async def partitions(self) -> list[PartitionInfo]:
        def work(connections: Connections) -> list[PartitionInfo]:
            return [_info(connections, kind, name) for kind in KINDS for name in self._partitions_of(kind)]

        return await self._search(work)

    def _partitions_of(self, kind: Kind) -> list[str]:
        """Those with a file, newest first."""
        found = (schema.partition_of_file(kind, name) for name in self._files.names())
        return partitioning.newest_first(name for name in found if name is not None)

    async def create_partition(self, kind: Kind, name: str) -> bool:
        file = schema.file_name(kind, name)
        if self._files.identity(file) is not None:
            return False
        await self._commit(self._writers[kind], file, lambda connection: None)
        return True

    async def drop_partition(self, kind: Kind, name: str) -> bool:
        file = schema.file_name(kind, name)
        removed = await self._search(lambda connections: _remove(connections.files, file))
        if kind != "event":
            # In steps, so that claims get their turns; what a crash leaves of them is for the next drop of this name.
            after: str | None = ""
            while after is not None:
                after = await self._change_entries(directory.Forget(kind, name, after))
        return removed

    # health

    async def ping(self) -> None:
        self._sickbay.check()
        if time.monotonic() - self._committed > PROBE_S:
            now_ms = time.time_ns() // 1_000_000
            await self._change_entries(lambda connection: directory.probe(connection, now_ms))

    # to the threads and back

    async def _commit(self, lane: WriteLane, file: str, work: Callable[[sqlite3.Connection], T]) -> T:
        try:
            result = await self._done(lane.call(file, work))
        except TryLater:
            # The next ping asks the disk, however recent the last success is.
            self._committed = float("-inf")
            raise
        self._committed = time.monotonic()
        return result

    async def _read(self, lane: ReadLane, work: Callable[[Connections], T]) -> T:
        return await self._done(lane.call("", work))

    async def _search(self, work: Callable[[Connections], T]) -> T:
        return await self._read(next(self._turns), work)

    async def _done(self, future: asyncio.Future[T]) -> T:
        try:
            return await future
        except Damaged as error:
            self._sickbay.admit(error)
            raise


def _get(connections: Connections, kind: Kind, keys: Sequence[tuple[str, str]]) -> list[Record | None]:
    found: list[Record | None] = [None] * len(keys)
    places: dict[str, list[int]] = defaultdict(list)
    for place, (_, partition) in enumerate(keys):
        if partitioning.is_name(partition):
            places[partition].append(place)
    for partition, group in places.items():
        read = records.Read(partition, [keys[place][0] for place in group], schema.LAYOUTS[kind].version)
        got = connections.read(schema.file_name(kind, partition), read)
        for place, record in zip(group, got or [], strict=False):
            found[place] = record
    return found


def _info(connections: Connections, kind: Kind, partition: str) -> PartitionInfo:
    file = schema.file_name(kind, partition)
    count, first, last = connections.read(file, search.span) or (0, None, None)
    return PartitionInfo(
        kind=kind, name=partition, records=count, bytes=connections.files.bytes(file), first_ms=first, last_ms=last
    )


def _remove(files: Files, file: str) -> bool:
    try:
        return files.remove(file)
    except OSError as error:
        raise faults.translate(error, file) or error from error


def _start_of(file: str) -> int:
    return partitioning.starts_ms(file.removesuffix(".db").partition("-")[2])
