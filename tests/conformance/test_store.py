"""The embedded stores keep the store port's contract."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tracardi_lite.backends.store import memory, sqlite
from tracardi_lite.ports.store import Store
from tracardi_lite.settings.schema import Settings
from tracardi_lite.testing.store_suite import StoreSuite


class TestMemory(StoreSuite):
    @pytest.fixture
    async def store(self) -> AsyncIterator[Store]:
        async with memory.open_store("memory:", Settings()) as store:
            yield store


class TestSqlite(StoreSuite):
    @pytest.fixture
    async def store(self, tmp_path: Path) -> AsyncIterator[Store]:
        async with sqlite.open_store("sqlite:", Settings(data_dir=tmp_path)) as store:
            yield store

    @pytest.fixture
    async def other(self, store: Store, tmp_path: Path) -> AsyncIterator[Store]:
        async with sqlite.open_store("sqlite:", Settings(data_dir=tmp_path)) as store:
            yield store
