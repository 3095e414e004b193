"""The end of the log, where the writer thread appends: which segment is open, and when the next one begins."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import structlog

from tracardi_lite.backends.queue.sqlite import segment as segments
from tracardi_lite.backends.queue.sqlite.batch import Frame
from tracardi_lite.backends.queue.sqlite.database import (
    BUSY_TIMEOUT_S,
    Damaged,
    is_busy,
    is_damage,
    is_failed_sync,
    is_gone,
    translated,
)
from tracardi_lite.backends.queue.sqlite.salvage import salvage
from tracardi_lite.backends.queue.sqlite.segment import End, Name, Segment, Start
from tracardi_lite.clock import Clock
from tracardi_lite.errors import Unavailable

SEGMENT_BYTES = 64 << 20
ATTEMPTS = 5
"""Each attempt gets further: another process closed the segment, made the next one, or salvaged it."""
CONTENDED_GROUPS = 256
"""After another process has come between, that many groups take the lock first instead of being refused late."""

BUSY_MS = 5
"""SQLite waits for a lock in growing sleeps of up to 100 ms; interrupted so often, they stay at 2 ms. Measured with two
processes of 30 publishers each: the 99th percentile of a publish falls from 50 ms to 20 ms."""

log = structlog.get_logger(__name__)
T = TypeVar("T")


class Appender:
    """For one thread. Every error is the port's; after one, the next ``append`` starts from what the files say.

    ``retire`` closes a segment that is full. The last one to close a file in WAL mode writes the whole log into it
    first (measured: 120 ms for 64 MiB), for which nobody who waits for a group should have to wait.
    """

    def __init__(
        self,
        folder: Path,
        clock: Clock,
        segment_bytes: int = SEGMENT_BYTES,
        retire: Callable[[Segment], None] = Segment.close,
    ) -> None:
        self._folder = folder
        self._clock = clock
        self._segment_bytes = segment_bytes
        self._retire = retire
        self._segment: Segment | None = None
        self._end: End | None = None
        self._contended = 0
        self._suspect: Name | None = None
        """A segment whose fsync failed: what was committed after cannot be trusted, so nothing more goes into it."""

    def close(self) -> None:
        if self._segment is not None:
            self._segment.close()
        self._segment = self._end = None

    def append(self, frame: Frame) -> None:
        """Durable when it returns. Raises ``Full`` or ``Unavailable``, and then it most likely is not there."""
        for _ in range(ATTEMPTS):
            name: Name | None = None
            try:
                current, end = self._open()
                name = current.name
                full = end.counts.size - current.start.counts.size >= self._segment_bytes
                if full or name == self._suspect:
                    _patiently(current.mark_closed)
                    self._follow(current)
                elif _patiently(lambda: self._append(current, end, frame)):  # noqa: B023  called at once
                    return
            except (sqlite3.Error, OSError, Damaged) as error:
                self.close()
                self._recover(name, error)
        self.close()
        raise Unavailable("queue", "its files are changing under it")

    def _append(self, current: Segment, end: End, frame: Frame) -> bool:
        now_ms = self._clock.now_ms()
        if self._contended:
            self._contended -= 1
            appended = current.append_locked(frame, now_ms)
        else:
            appended = current.append(end, frame, now_ms)
        if appended is not None:
            self._end = appended
            return True
        self._contended = CONTENDED_GROUPS
        if current.is_closed():
            self._follow(current)
        return False

    def _open(self) -> tuple[Segment, End]:
        if self._segment is None or self._end is None:
            name = segments.listed(self._folder)[-1]
            self._segment = Segment(self._folder, name, busy_ms=BUSY_MS)
            self._end = self._segment.end()
        return self._segment, self._end

    def _follow(self, closed: Segment) -> None:
        """Go on in the successor, which is made by whoever comes first."""
        end = closed.end()
        names = segments.listed(self._folder)
        if names[-1].number == closed.name.number:
            start = Start(end.offset, end.counts, self._clock.now_ms(), closed.start.incarnation)
            segments.create(self._folder, Name(closed.name.number + 1), start)
        self._segment = self._end = None
        self._retire(closed)

    def _recover(self, name: Name | None, error: Exception) -> None:
        """Return when another attempt makes sense; raise the port's error otherwise."""
        if isinstance(error, IndexError | Damaged) or (isinstance(error, sqlite3.Error) and is_damage(error)):
            damaged = name or segments.listed(self._folder)[-1]
            salvage(self._folder, damaged, self._clock)
            return
        assert isinstance(error, sqlite3.Error | OSError)
        if isinstance(error, sqlite3.Error):
            if is_gone(error) and name is None:
                return  # it was salvaged under a new name between the listing and the opening
            if is_failed_sync(error):
                self._suspect = name
                log.error("queue_fsync_failed", segment=name.file if name else None)
        raise translated(error) from error


def _patiently(act: Callable[[], T]) -> T:
    """Wait for other processes' commits, to the limit that holds for every file."""
    deadline = time.monotonic() + BUSY_TIMEOUT_S
    while True:
        try:
            return act()
        except sqlite3.OperationalError as error:
            if not is_busy(error) or time.monotonic() > deadline:
                raise
