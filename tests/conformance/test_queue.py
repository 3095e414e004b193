"""The queue port's contract, on every embedded backend."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import msgspec
import pytest
from msgspec.structs import replace

from tracardi_lite.backends.queue.memory import MemoryLog, MemoryQueue
from tracardi_lite.backends.queue.memory import open_queue as open_memory
from tracardi_lite.backends.queue.sqlite import SqliteQueue
from tracardi_lite.backends.queue.sqlite import open_queue as open_sqlite
from tracardi_lite.settings import Settings
from tracardi_lite.testing.clock import FakeClock
from tracardi_lite.testing.queue_suite import PARTITIONS, QueueSuite, SharedQueueSuite


def settings(tmp_path: Path, bytes_max: int | None, retention_s: int | None) -> Settings:
    chosen = Settings(data_dir=tmp_path, queue_partitions=PARTITIONS, disk_free_min=0)
    if bytes_max is not None:
        chosen = replace(chosen, queue_bytes_max=bytes_max)
    if retention_s is not None:
        chosen = replace(chosen, queue_retention=retention_s)
    return chosen


class MemoryHarness:
    def __init__(self, tmp_path: Path) -> None:
        self._tmp_path = tmp_path
        self._log = MemoryLog(PARTITIONS)
        self._clock = FakeClock()

    def open(self, *, bytes_max: int | None = None, retention_s: int | None = None) -> MemoryQueue:
        chosen = settings(self._tmp_path, bytes_max, retention_s)
        return open_memory("memory:", chosen, clock=self._clock, log=self._log)

    async def pass_time(self, seconds: float) -> None:
        self._clock.advance(seconds)


class TestMemory(QueueSuite):
    @pytest.fixture
    def harness(self, tmp_path: Path) -> MemoryHarness:
        return MemoryHarness(tmp_path)


class SqliteHarness:
    def __init__(self, tmp_path: Path) -> None:
        self._tmp_path = tmp_path
        self._clock = FakeClock()

    def open(self, *, bytes_max: int | None = None, retention_s: int | None = None) -> SqliteQueue:
        return open_sqlite("sqlite:", settings(self._tmp_path, bytes_max, retention_s), clock=self._clock)

    async def pass_time(self, seconds: float) -> None:
        self._clock.advance(seconds)


class TestSqlite(QueueSuite):
    @pytest.fixture
    def harness(self, tmp_path: Path) -> SqliteHarness:
        return SqliteHarness(tmp_path)


class SharedSqliteHarness:
    """Real time, and a URL that names the folder, as child processes need it."""

    lease_ttl_s = 1.0

    def __init__(self, tmp_path: Path) -> None:
        self.url = f"sqlite://{tmp_path}/the%20queue"
        self.settings: dict[str, Any] = {
            "queue_partitions": PARTITIONS,
            "disk_free_min": 0,
            "lease_ttl": self.lease_ttl_s,
        }

    def open(self, *, bytes_max: int | None = None, retention_s: int | None = None) -> SqliteQueue:
        return open_sqlite(self.url, msgspec.convert(self.settings, Settings))

    async def pass_time(self, seconds: float) -> None:
        await asyncio.sleep(seconds)


class TestSharedSqlite(SharedQueueSuite):
    @pytest.fixture
    def harness(self, tmp_path: Path) -> SharedSqliteHarness:
        return SharedSqliteHarness(tmp_path)
