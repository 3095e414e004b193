"""Reading the log, for the files thread: batches from an offset on, a partition's n-th message, the end."""

from __future__ import annotations

import sqlite3
from collections import OrderedDict
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TypeVar

from msgspec import Struct

from tracardi_lite.backends.queue.sqlite import segment as segments
from tracardi_lite.backends.queue.sqlite.batch import Counts, Record, unpack
from tracardi_lite.backends.queue.sqlite.database import Damaged, is_damage, is_gone, translated
from tracardi_lite.backends.queue.sqlite.salvage import salvage
from tracardi_lite.backends.queue.sqlite.segment import End, Name, Row, Segment, Start
from tracardi_lite.clock import Clock
from tracardi_lite.errors import Unavailable

OPEN_MAX = 4
"""Segments kept open: the one being read, the last one, and those of a stalled partition."""
ATTEMPTS = 5

T = TypeVar("T")


class Batch(Struct):
    """A batch of the log, and where the one before it ends: nothing readable stands in between."""

    after: int
    base: int
    end: int
    counts: Counts
    """The log's running counts after it."""
    records: list[Record]


class Reader:
    """For one thread. Meets damage by having the segment salvaged, and goes on with what is left."""

    def __init__(self, folder: Path, clock: Clock) -> None:
        self._folder = folder
        self._clock = clock
        self._starts: dict[Name, Start] = {}
        self._names: list[Name] = []
        self._open: OrderedDict[Name, Segment] = OrderedDict()

    def close(self) -> None:
        for segment in self._open.values():
            segment.close()
        self._open.clear()

    def read(self, offset: int, size: int) -> list[Batch]:
        """Batches from the one that holds ``offset`` on, at least one if there is any, else about ``size`` bytes."""
        return self._safely(lambda: self._read(offset, size))

    def records(self, offsets: Iterable[int], size: int) -> dict[int, Record | None]:
        """Single messages, the lowest offsets first until ``size`` bytes; None for what can't be read any more."""
        wanted = sorted(offsets)
        return self._safely(lambda: self._records(wanted, size))

    def end(self) -> End:
        return self._safely(lambda: self._last().end())

    def find(self, partition: int, messages: int) -> tuple[int, int] | None:
        """Base and publish time of the batch with the partition's message number ``messages``, counted from 0."""
        return self._safely(lambda: self._find(partition, messages))

    def since(self, published_ms: int | None) -> tuple[int, Counts] | None:
        """Offset of the first batch published then or later (None: the first kept), and the counts before it."""
        return self._safely(lambda: self._since(published_ms))

    def starts(self) -> list[tuple[Name, Start]]:
        """Every segment that is there."""
        return self._safely(self._all)

    def _safely(self, act: Callable[[], T]) -> T:
        for _ in range(ATTEMPTS):
            try:
                return act()
            except _Trouble as trouble:
                self._forget()
                if trouble.is_damage:
                    salvage(self._folder, trouble.name, self._clock)
                elif not trouble.is_gone:
                    raise translated(trouble.error) from trouble.error
            except OSError as error:
                raise translated(error) from error
        raise Unavailable("queue", "its files are changing under it")

    def _read(self, offset: int, size: int) -> list[Batch]:
        batches: list[Batch] = []
        after = offset
        place = self._place(offset)
        while place < len(self._names):
            name = self._names[place]
            with _watched(name):
                segment = self._segment(name)
                for row in segment.rows(after):
                    if row.end > after:
                        batches.append(_unpacked(after, row))
                        after = row.end
                        size -= row.size
                        if size <= 0:
                            return batches
                closed = bool(batches) or segment.is_closed()
            place += 1
            if place == len(self._names) and not batches and closed:
                self._all()
        return batches

    def _records(self, offsets: list[int], size: int) -> dict[int, Record | None]:
        found: dict[int, Record | None] = {}
        batch: Batch | None = None
        for offset in offsets:
            if batch is None or offset >= batch.end:
                name = self._names_now()[self._place(offset)]
                with _watched(name):
                    row = next(self._segment(name).rows(offset), None)
                    batch = None if row is None else _unpacked(row.base, row)
            if batch is None or not batch.base <= offset < batch.end:
                found[offset] = None
                continue
            record = found[offset] = batch.records[offset - batch.base]
            size -= record.size
            if size <= 0:
                break
        return found

    def _find(self, partition: int, messages: int) -> tuple[int, int] | None:
        chosen: Name | None = None
        for name, start in self._all():
            if start.counts.messages[partition] > messages:
                break
            chosen = name
        if chosen is None:  # it stood in a segment that is gone: what comes first now
            name, start = self._all()[0]
            chosen, messages = name, start.counts.messages[partition]
        with _watched(chosen):
            segment = self._segment(chosen)
            end = segment.end()
            if end.counts.messages[partition] <= messages:
                return self._find_later(chosen, partition, messages)
            low, high = segment.start.base, end.last_base  # the batch's base is in [low, high]
            while low < high:
                middle = (low + high) // 2
                at = segment.counts_at(middle)
                if at is not None and at[1].messages[partition] > messages:
                    high = at[0]
                else:
                    low = middle + 1
            published_ms = segment.published_ms(low)
            assert published_ms is not None
            return low, published_ms

    def _find_later(self, name: Name, partition: int, messages: int) -> tuple[int, int] | None:
        """The number falls into a gap at the end of a segment: the next readable message, if there is any."""
        for later, start in self._all():
            if later > name and start.counts.messages[partition] > messages:
                return self._find(partition, start.counts.messages[partition])
        return None

    def _since(self, published_ms: int | None) -> tuple[int, Counts] | None:
        everything = self._all()
        for place, (name, start) in enumerate(everything):
            if published_ms is None:
                return start.base, start.counts
            if place + 1 < len(everything) and everything[place + 1][1].created_ms < published_ms:
                continue  # it was full before that
            with _watched(name):
                segment = self._segment(name)
                base = segment.first_since(published_ms)
                if base is not None:
                    before = segment.counts_at(base - 1)
                    return base, before[1] if before else start.counts
        return None

    def _last(self) -> Segment:
        name = self._names_now()[-1]
        with _watched(name):
            segment = self._segment(name)
            if not segment.is_closed():
                return segment
        name = self._all()[-1][0]
        with _watched(name):
            return self._segment(name)

    def _all(self) -> list[tuple[Name, Start]]:
        self._names = segments.listed(self._folder)
        for name in self._names:
            if name not in self._starts:
                with _watched(name):
                    self._segment(name)
        return [(name, self._starts[name]) for name in self._names]

    def _names_now(self) -> list[Name]:
        return self._names or [name for name, _ in self._all()]

    def _place(self, offset: int) -> int:
        """Index of the segment in which an offset stands, or would."""
        names = self._names_now()
        place = len(names) - 1
        while place > 0 and self._start(names[place]).base > offset:
            place -= 1
        return place

    def _start(self, name: Name) -> Start:
        if name not in self._starts:
            with _watched(name):
                self._segment(name)
        return self._starts[name]

    def _segment(self, name: Name) -> Segment:
        segment = self._open.get(name)
        if segment is None:
            segment = self._open[name] = Segment(self._folder, name)
            self._starts[name] = segment.start
            if len(self._open) > OPEN_MAX:
                self._open.popitem(last=False)[1].close()
        self._open.move_to_end(name)
        return segment

    def _forget(self) -> None:
        self.close()
        self._names = []
        self._starts.clear()


class _Trouble(Exception):
    """A fault with the segment that it is about."""

    def __init__(self, name: Name, error: sqlite3.Error | Damaged) -> None:
        super().__init__(name, error)
        self.name = name
        self.is_damage = isinstance(error, Damaged) or is_damage(error)
        self.is_gone = isinstance(error, sqlite3.Error) and is_gone(error)
        self.error: sqlite3.Error = error if isinstance(error, sqlite3.Error) else sqlite3.DatabaseError(str(error))


class _watched:  # noqa: N801
    """Around everything that touches one segment: says which one a fault is of."""

    def __init__(self, name: Name) -> None:
        self._name = name

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        if isinstance(error, sqlite3.Error | Damaged):
            raise _Trouble(self._name, error) from error


def _unpacked(after: int, row: Row) -> Batch:
    records = unpack(row.base, row.published_ms, row.size, row.data)
    if len(records) != row.count:
        raise Damaged("a batch has not its count")
    return Batch(after, row.base, row.end, row.counts, records)
