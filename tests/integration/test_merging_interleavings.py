"""A hundred thousand interleavings of merging workers on the memory store, and some on stores that really wait.

Each run begins at another seed, which it prints; ``MERGING_SEED=<seed>`` begins there again.
"""

from __future__ import annotations

import asyncio
import os
import random
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path

import pytest

from tests import merging_world
from tests.integration.elastic import fresh_settings
from tests.merging_world import Bridge, explore, explore_many
from tracardi_lite.backends.store.elasticsearch import ElasticsearchStore
from tracardi_lite.backends.store.elasticsearch.connection import Connection
from tracardi_lite.backends.store.sqlite.store import SqliteStore
from tracardi_lite.pipeline import process
from tracardi_lite.ports.store import Store

pytestmark = pytest.mark.integration

INTERLEAVINGS = 100_000
CHUNK = 2500
ON_SQLITE = 60
ON_ELASTICSEARCH = 15


@pytest.fixture
def seed() -> int:
    return int(os.environ.get("MERGING_SEED") or random.SystemRandom().randrange(1 << 40))


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "pause", merging_world.no_pause)


def test_a_hundred_thousand_interleavings(seed: int, capsys: pytest.CaptureFixture[str]) -> None:
    # Spawned, not forked: a fork of this process inherits what earlier tests left of client libraries with threads of
    # their own (Pulsar's), and hangs when such an object is collected.
    with capsys.disabled(), ProcessPoolExecutor(mp_context=get_context("spawn")) as pool:
        print(f"\nMERGING_SEED={seed}")
        chunks = [pool.submit(explore_many, seed + start, CHUNK) for start in range(0, INTERLEAVINGS, CHUNK)]
        try:
            for number, chunk in enumerate(chunks, 1):
                merged, crashes, _ = chunk.result()
                if number % 4 == 0:
                    print(f"{number * CHUNK:,} interleavings; the last {CHUNK:,}: {merged} merges, {crashes} crashes")
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def live_through(store: Store, loop: asyncio.AbstractEventLoop, seed: int, count: int) -> None:
    bridge = Bridge(store, loop)
    for number in range(count):
        explore(seed + number, bridge, f"w{number}-")  # type: ignore[arg-type]


def test_interleavings_on_sqlite(seed: int, tmp_path: Path) -> None:
    print(f"MERGING_SEED={seed}")
    with asyncio.Runner() as runner:
        loop = runner.get_loop()
        store = SqliteStore(tmp_path)
        loop.run_until_complete(store.__aenter__())
        try:
            live_through(store, loop, seed, ON_SQLITE)
        finally:
            loop.run_until_complete(store.__aexit__(None, None, None))


def test_interleavings_on_elasticsearch(seed: int) -> None:
    print(f"MERGING_SEED={seed}")
    settings = fresh_settings()
    with asyncio.Runner() as runner:
        loop = runner.get_loop()
        store = ElasticsearchStore("elasticsearch:", settings)
        try:
            live_through(store, loop, seed, ON_ELASTICSEARCH)
        finally:
            loop.run_until_complete(clean_up(store, settings.tenant_name))


async def clean_up(store: ElasticsearchStore, tenant: str) -> None:
    connection: Connection = store._connection
    for target in (f"/*{tenant}*?expand_wildcards=all", f"/_index_template/*{tenant}*"):
        await connection.do("DELETE", target, fine=(404,))
    await store.__aexit__(None, None, None)
