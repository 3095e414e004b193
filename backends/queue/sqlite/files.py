"""The files thread: the one place where a queue reads its log and uses ``control.db``, off the event loop."""

from __future__ import annotations

import asyncio
import fcntl
import os
import sqlite3
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from tracardi_lite.backends.queue.sqlite.control import Control
from tracardi_lite.backends.queue.sqlite.database import translated
from tracardi_lite.backends.queue.sqlite.folder import MEMBERS
from tracardi_lite.backends.queue.sqlite.reader import Reader
from tracardi_lite.backends.queue.sqlite.salvage import CONTROL_FILE
from tracardi_lite.clock import Clock
from tracardi_lite.errors import Unavailable

T = TypeVar("T")


class Files:
    """``control`` and ``reader`` are touched in functions given to ``run`` only, one at a time."""

    control: Control
    reader: Reader

    def __init__(self, folder: Path, clock: Clock) -> None:
        self.folder = folder
        self.clock = clock
        self._executor: ThreadPoolExecutor | None = None

    async def open(self) -> None:
        self._executor = ThreadPoolExecutor(1, "queue-files")
        await self.run(self._open)

    async def close(self) -> None:
        if self._executor is None:
            return
        try:
            await self.run(self._close)
        finally:
            executor, self._executor = self._executor, None
            executor.shutdown()

    async def run(self, act: Callable[[], T]) -> T:
        """Runs to its end even if the caller is cancelled meanwhile. Raises the port's errors."""
        if self._executor is None:
            raise Unavailable("queue", "is closed")
        try:
            return await asyncio.get_running_loop().run_in_executor(self._executor, act)
        except (sqlite3.Error, OSError) as error:
            raise translated(error) from error

    def _open(self) -> None:
        self.reader = Reader(self.folder, self.clock)
        self.control = Control(self.folder / CONTROL_FILE)

    def _close(self) -> None:
        if hasattr(self, "control"):
            self.control.close()
            self.reader.close()


class Badge:
    """A member's sign of life: a lock that the kernel takes back when its process dies, however it dies."""

    def __init__(self, folder: Path, member: str) -> None:
        self._path = folder / MEMBERS / f"{member}.lock"
        unnamed = self._path.with_suffix(".new")
        self._lock = os.open(unnamed, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        unnamed.rename(self._path)  # only now, locked, can others take it for a dead one's

    def close(self) -> None:
        self._path.unlink(missing_ok=True)
        os.close(self._lock)


def dead_members(folder: Path) -> list[str]:
    """Members whose process is gone. One without a badge is left to its expiry."""
    dead = []
    for file in os.listdir(folder / MEMBERS):
        if not file.endswith(".lock"):
            continue
        try:
            lock = os.open(folder / MEMBERS / file, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            continue
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            dead.append(file.removesuffix(".lock"))
        except BlockingIOError:
            pass
        finally:
            os.close(lock)
    return dead


def forget_members(folder: Path, dead: Sequence[str]) -> None:
    for member in dead:
        (folder / MEMBERS / f"{member}.lock").unlink(missing_ok=True)


def boot_id() -> str:
    """Monotonic times compare within one boot only."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""
