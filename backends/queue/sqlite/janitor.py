"""The janitor's thread: measuring, checkpoints and retention, away from commits and acknowledgements.

The open segment is checkpointed passively as it grows, so that its log does not hold a whole segment and the bulk of
the writing is spread; a closed one is checkpointed for good, once.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path

import structlog

from tracardi_lite.backends.queue.sqlite import segment as segments
from tracardi_lite.backends.queue.sqlite.database import Damaged
from tracardi_lite.backends.queue.sqlite.room import Room
from tracardi_lite.backends.queue.sqlite.segment import Name, Segment, Start
from tracardi_lite.clock import Clock
from tracardi_lite.settings import Settings

CHECKPOINT_BYTES = 8 << 20
"""How much of the open segment's log may wait."""

log = structlog.get_logger(__name__)


class Janitor:
    def __init__(self, folder: Path, settings: Settings, clock: Clock, room: Room) -> None:
        self._folder = folder
        self._settings = settings
        self._clock = clock
        self._room = room
        self._checkpointed = (0, 0)
        """Inode and size of the open segment's log when it was last checkpointed."""

    def measure(self) -> None:
        """Where the disk stands; and checkpoint what is due."""
        self._room.measure(self._clock.monotonic())
        names = segments.listed(self._folder)
        for name in names:
            log_file = self._folder / f"{name.file}-wal"
            try:
                stat = log_file.stat()
            except FileNotFoundError:
                continue
            if name != names[-1]:
                if stat.st_size:
                    self._checkpoint(name, "TRUNCATE")
                continue
            inode, size = self._checkpointed
            grown = stat.st_size - (size if stat.st_ino == inode else 0)
            if grown >= CHECKPOINT_BYTES:
                self._checkpoint(name, "PASSIVE")
                self._checkpointed = (stat.st_ino, stat.st_size)

    def maintain(self, passed: Sequence[int]) -> None:
        """Delete the segments that every subscription has passed and that are too old or too much to keep.

        ``passed``: messages by partition, already durable.
        """
        starts = self._starts()
        horizon_ms = self._clock.now_ms() - self._settings.queue_retention * 1000
        done = [
            (name, following)
            for (name, _), (_, following) in pairwise(starts)
            if all(there <= gone for there, gone in zip(following.counts.messages, passed, strict=True))
        ]
        kept = sum(self._size(name) for name, _ in done)
        for name, following in done:
            # It was last written when the next one began.
            if following.created_ms > horizon_ms and kept <= self._settings.queue_retention_bytes:
                break
            kept -= self._size(name)
            self._delete(name)
        self.measure()

    def _starts(self) -> list[tuple[Name, Start]]:
        """The segments in order, up to one that can't be read: nothing behind it is judged."""
        starts = []
        for name in segments.listed(self._folder):
            try:
                segment = Segment(self._folder, name)
            except (sqlite3.Error, Damaged) as error:
                log.warning("queue_segment_not_read", segment=name.file, error=str(error))
                break
            segment.close()
            starts.append((name, segment.start))
        return starts

    def _checkpoint(self, name: Name, mode: str) -> None:
        try:
            segment = Segment(self._folder, name)
            try:
                segment.checkpoint(mode)
            finally:
                segment.close()
        except (sqlite3.Error, Damaged) as error:
            log.warning("queue_checkpoint_failed", segment=name.file, error=str(error))

    def _size(self, name: Name) -> int:
        total = 0
        for suffix in ("", "-wal"):
            try:
                total += os.stat(self._folder / f"{name.file}{suffix}").st_size
            except FileNotFoundError:
                continue
        return total

    def _delete(self, name: Name) -> None:
        """The main file first: a log without it is never read, and tidied at the next start."""
        for suffix in ("", "-wal", "-shm"):
            (self._folder / f"{name.file}{suffix}").unlink(missing_ok=True)
        log.info("queue_segment_deleted", segment=name.file)
