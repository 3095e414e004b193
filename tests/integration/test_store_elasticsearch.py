"""The store on Elasticsearch keeps the store port's contract, with a real server."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.integration.elastic import cleaned, fresh_settings, opened
from tracardi_lite.ports.store import Store
from tracardi_lite.settings import Settings
from tracardi_lite.testing.store_suite import StoreSuite

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def settings() -> Settings:
    """One tenant for the whole suite, which never assumes an empty store."""
    return fresh_settings()


@pytest_asyncio.fixture(scope="module", loop_scope="module", autouse=True)
async def _clean(settings: Settings) -> AsyncIterator[None]:
    async with cleaned(settings):
        yield


class TestElasticsearch(StoreSuite):
    @pytest.fixture
    async def store(self, settings: Settings) -> AsyncIterator[Store]:
        async with opened(settings) as store:
            yield store

    @pytest.fixture
    async def other(self, settings: Settings) -> AsyncIterator[Store]:  # type: ignore[override]
        async with opened(settings) as store:
            yield store
