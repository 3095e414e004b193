"""The embedded stores keep the store port's contract."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from tracardi_lite.backends.store import memory
from tracardi_lite.ports.store import Store
from tracardi_lite.settings.schema import Settings
from tracardi_lite.testing.store_suite import StoreSuite


class TestMemory(StoreSuite):
    @pytest.fixture
    async def store(self) -> AsyncIterator[Store]:
        async with memory.open_store("memory:", Settings()) as store:
            yield store
