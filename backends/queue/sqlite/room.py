"""How much disk is left to the queue: a bound that says no before the disk does.

Measured now and then by the janitor, and counted on in between by what the writer wrote, so that asking costs nothing.
"""

from __future__ import annotations

import os
from pathlib import Path

from tracardi_lite.errors import Full

MEASURE_EVERY_S = 1.0
RETRY_AFTER_S = 5.0
"""Room comes from retention, which runs every minute, or from people."""


class Room:
    """Written by the janitor (``measure``) and the writer (``wrote``), read by the loop. Plain numbers: a torn pair of
    reads is off by one group at most."""

    def __init__(self, folder: Path, bytes_max: int, free_min: int) -> None:
        self._folder = folder
        self._bytes_max = bytes_max
        self._free_min = free_min
        self._used = 0
        self._free = 1 << 62
        self._written = 0
        self._step = min(bytes_max // 16, 16 << 20)
        self._measured_at = float("-inf")

    def measure(self, now: float) -> None:
        """Look at the disk. ``now`` is monotonic, like that of ``is_stale``."""
        self._measured_at = now
        self._written = 0
        self._used = sum(entry.stat().st_size for entry in _files(self._folder))
        disk = os.statvfs(self._folder)
        self._free = disk.f_bavail * disk.f_frsize

    def wrote(self, size: int) -> None:
        self._written += size
        self._used += size
        self._free -= size

    def is_stale(self, now: float) -> bool:
        return self._written >= self._step or now - self._measured_at >= MEASURE_EVERY_S

    def refusal(self) -> Full | None:
        if self._used >= self._bytes_max:
            return Full("queue", "holds as much as it may", RETRY_AFTER_S)
        if self._free <= self._free_min:
            return Full("disk", "is almost full", RETRY_AFTER_S)
        return None


def _files(folder: Path) -> list[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        return [entry for entry in entries if entry.is_file() and not entry.name.endswith("-shm")]


def probe(folder: Path) -> None:
    """Whether something can be written and synced now; ``OSError`` if not."""
    path = folder / f".probe.{os.getpid()}"
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            os.write(descriptor, bytes(65536))
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
    finally:
        path.unlink(missing_ok=True)
