"""What a process and its children cost, from /proc: CPU seconds and proportional memory (PSS)."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from types import TracebackType
from typing import Self

_TICKS = os.sysconf("SC_CLK_TCK")
SAMPLE_S = 0.25


def tree(pid: int) -> list[int]:
    """The process and all that it has started, and they."""
    pids = [pid]
    for parent in pids:
        for task in Path(f"/proc/{parent}/task").glob("*/children"):
            try:
                pids += [int(child) for child in task.read_text().split()]
            except OSError:
                continue  # it ended while we looked
    return pids


def cpu_seconds(pid: int) -> float:
    """User and system time so far, of the tree and of its children that have ended."""
    ticks = 0
    for each in tree(pid):
        try:
            fields = Path(f"/proc/{each}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        ticks += sum(int(field) for field in fields[11:15])
    return ticks / _TICKS


def cpu_seconds_by_thread(pid: int) -> dict[int, float]:
    """User and system time so far of each thread of one process, by the kernel's thread id."""
    used = {}
    for task in Path(f"/proc/{pid}/task").iterdir():
        try:
            fields = (task / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        used[int(task.name)] = (int(fields[11]) + int(fields[12])) / _TICKS
    return used


def pss_bytes(pid: int) -> int:
    """Memory of the tree now, shared pages counted by their share."""
    total = 0
    for each in tree(pid):
        try:
            lines = Path(f"/proc/{each}/smaps_rollup").read_text().splitlines()
        except OSError:
            continue
        total += next(int(line.split()[1]) for line in lines if line.startswith("Pss:")) << 10
    return total


class Peak:
    """The largest PSS that a process has while this is entered, sampled every so many seconds."""

    def __init__(self, pid: int, every_s: float = SAMPLE_S) -> None:
        self.pid = pid
        self._every_s = every_s
        self.bytes = 0
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._sample)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._done.set()
        self._thread.join()

    def _sample(self) -> None:
        while not self._done.wait(self._every_s):
            self.bytes = max(self.bytes, pss_bytes(self.pid))
