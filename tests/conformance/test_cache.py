from collections.abc import Awaitable, Callable

import pytest

from tracardi_lite.backends.cache.memory import MemoryCache
from tracardi_lite.testing.cache_suite import CacheSuite
from tracardi_lite.testing.clock import FakeClock


class TestMemory(CacheSuite):
    @pytest.fixture
    def clock(self) -> FakeClock:
        return FakeClock()

    @pytest.fixture
    def cache(self, clock: FakeClock) -> MemoryCache:
        return MemoryCache(1000, clock)

    @pytest.fixture
    def pass_time(self, clock: FakeClock) -> Callable[[float], Awaitable[None]]:
        async def pass_time(seconds: float) -> None:
            clock.advance(seconds)

        return pass_time
