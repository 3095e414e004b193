from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from tracardi_lite.backends.cache.local import LocalCache
from tracardi_lite.backends.cache.memory import MemoryCache
from tracardi_lite.testing.cache_suite import CacheSuite
from tracardi_lite.testing.clock import FakeClock


class Clocked(CacheSuite):
    @pytest.fixture
    def clock(self) -> FakeClock:
        return FakeClock()

    @pytest.fixture
    def pass_time(self, clock: FakeClock) -> Callable[[float], Awaitable[None]]:
        async def pass_time(seconds: float) -> None:
            clock.advance(seconds)

        return pass_time


class TestMemory(Clocked):
    @pytest.fixture
    def cache(self, clock: FakeClock) -> MemoryCache:
        return MemoryCache(1000, clock)

    @pytest.fixture
    def other(self, cache: MemoryCache) -> MemoryCache:
        return cache


class TestLocal(Clocked):
    @pytest.fixture
    async def cache(self, clock: FakeClock, tmp_path: Path) -> AsyncIterator[LocalCache]:
        async with LocalCache(tmp_path / "data" / "ring", 1000, clock) as opened:
            yield opened

    @pytest.fixture
    async def other(self, clock: FakeClock, tmp_path: Path) -> AsyncIterator[LocalCache]:
        async with LocalCache(tmp_path / "data" / "ring", 1000, clock) as opened:
            yield opened
