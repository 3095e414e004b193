"""Refusals, restarts and snapshots: the cluster's bad days."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Sequence

import pytest
import structlog

from tests.integration.elastic import cleaned, fresh_settings, opened, server, service
from tests.integration.elastic_proxy import Proxy, garbage, items, larger_than, whole
from tracardi_lite.backends.store.elasticsearch import ElasticsearchStore
from tracardi_lite.errors import BadInput, Unavailable
from tracardi_lite.ports.store import EXISTS, SAME, STORED, Claim, Entry, EventWrite, Outcome, Verdict, lifecycle_of
from tracardi_lite.settings import Settings
from tracardi_lite.testing.clock import FakeClock
from tracardi_lite.testing.store_suite import event_write, new_id, outcomes, record_write

pytestmark = pytest.mark.integration


@pytest.fixture
async def proxy() -> AsyncIterator[Proxy]:
    async with Proxy(server()["url"]).running() as proxy:
        yield proxy


@pytest.fixture
async def store(proxy: Proxy) -> AsyncIterator[ElasticsearchStore]:
    settings = fresh_settings(elastic_host=proxy.url)
    with structlog.testing.capture_logs():
        async with cleaned(settings), opened(settings) as store:
            await store.create_events([event_write()])
            proxy.bulks.clear()
            yield store


async def test_refused_items_are_tried_again_and_the_others_are_stored(store: ElasticsearchStore, proxy: Proxy) -> None:
    events = [event_write() for _ in range(3)]
    proxy.faults = [items(201, 429, 503)]
    verdicts = await store.create_events(events)
    assert outcomes(verdicts) == [Outcome.STORED, Outcome.RETRY, Outcome.RETRY]
    assert "queue full" in verdicts[1].reason
    assert await store.create_events(events[1:]) == [STORED, STORED]


async def test_a_429_halves_the_bulks_in_flight_and_they_grow_back(store: ElasticsearchStore, proxy: Proxy) -> None:
    most = store.flight.places
    proxy.faults = [whole(429, "circuit_breaking_exception")]
    assert outcomes(await store.create_events([event_write()])) == [Outcome.RETRY]
    assert store.flight.places == most // 2
    for _ in range(20):
        calls = [store.create_events([event_write()]) for _ in range(8)]
        assert await asyncio.gather(*calls) == [[STORED]] * 8
        if store.flight.places >= most:
            return
    raise AssertionError("it never grew back")


async def test_a_bulk_that_is_too_large_is_halved_until_the_item_to_blame_is_alone(
    store: ElasticsearchStore, proxy: Proxy
) -> None:
    events = [event_write(properties={"text": "x" * (30_000 if n == 5 else 10)}) for n in range(8)]
    proxy.faults = [larger_than(20_000)] * 100
    verdicts = await store.create_events(events)
    assert [n for n, verdict in enumerate(verdicts) if verdict.outcome is Outcome.NEVER] == [5]
    assert "413" in verdicts[5].reason
    assert [verdict for n, verdict in enumerate(verdicts) if n != 5] == [STORED] * 7
    assert max(proxy.bulks) == 8


@pytest.mark.parametrize("fault", [whole(503, "cluster_block_exception"), whole(401, "security_exception"), garbage])
async def test_a_call_that_fails_as_a_whole_is_unavailable_and_can_be_repeated(
    store: ElasticsearchStore, proxy: Proxy, fault: object
) -> None:
    proxy.faults = [fault]  # type: ignore[list-item]
    event = event_write()
    with pytest.raises(Unavailable):
        await store.create_events([event])
    assert await store.create_events([event]) == [STORED]


async def test_a_claim_that_is_refused_is_unavailable_and_not_lost(store: ElasticsearchStore, proxy: Proxy) -> None:
    claim = Claim(f"p:{new_id()}", Entry("a", "2026-q3", "m"))
    proxy.faults = [items(429)]
    with pytest.raises(Unavailable):
        await store.claim([claim])
    assert await store.lookup([claim.key]) == [None]
    assert await store.claim([claim]) == [claim.entry]


async def test_of_events_with_one_id_in_a_call_none_hides_behind_a_refused_one(
    store: ElasticsearchStore, proxy: Proxy
) -> None:
    first = event_write()
    again = event_write(id=first.id)
    proxy.faults = [items(429)]
    assert outcomes(await store.create_events([first, again])) == [Outcome.RETRY, Outcome.RETRY]
    assert await store.create_events([first, again]) == [STORED, EXISTS]


async def test_elasticsearch_killed_and_started_again_loses_nothing_that_was_stored() -> None:
    instance = {"ELASTIC_PORT": "19250", "ELASTIC_HEAP": "512m"}
    await asyncio.to_thread(service, "start", "elasticsearch", **instance)
    settings = Settings(elastic_host="127.0.0.1:19250", elastic_index_shards=1, elastic_query_timeout=10)
    try:
        async with opened(settings) as store:
            before, write = [event_write() for _ in range(50)], record_write()
            assert await store.create_events(before) == [STORED] * 50
            [kept] = await store.put([write])
            claim = Claim(f"p:{write.id}", Entry(write.id, write.partition, "m"))
            await store.claim([claim])
            await asyncio.to_thread(service, "stop", "elasticsearch", "--kill", **instance)
            with pytest.raises(Unavailable):
                await store.create_events(before)
            with pytest.raises(Unavailable):
                await store.lookup([claim.key])
            with pytest.raises(Unavailable):
                await store.ping()
            starting = asyncio.create_task(asyncio.to_thread(service, "start", "elasticsearch", **instance))
            assert await until_settled(store, before) == [SAME] * 50
            await starting
            await store.ping()
            assert await store.lookup([claim.key]) == [claim.entry]
            [again] = await store.put([record_write(id=write.id, version=kept.version)])
            assert again.outcome is Outcome.STORED
    finally:
        await asyncio.to_thread(service, "stop", "elasticsearch", "--wipe", **instance)


async def until_settled(store: ElasticsearchStore, events: Sequence[EventWrite]) -> list[Verdict]:
    """As a flusher does: again while it is unavailable or says not now."""
    async with asyncio.timeout(120):
        while True:
            try:
                verdicts = await store.create_events(events)
                if not any(verdict.outcome is Outcome.RETRY for verdict in verdicts):
                    return verdicts
            except Unavailable:
                pass
            await asyncio.sleep(0.2)


async def test_a_partition_is_snapshot_dropped_and_restored() -> None:
    settings = fresh_settings(elastic_snapshots=f"fs:{server()['snapshots']}/{new_id()}")
    async with cleaned(settings), opened(settings) as store:
        lifecycle = lifecycle_of(store)
        assert lifecycle is not None
        events = [event_write(partition="2025-1") for _ in range(20)]
        assert await store.create_events(events) == [STORED] * 20
        assert await lifecycle.move("event", "2025-1", "cold", read_only=True, merge=True, replicas=0)
        assert await lifecycle.move("event", "2025-1", "cold", read_only=True, merge=True, replicas=0)
        made = await lifecycle.snapshot("event", "2025-1")
        assert (made.kind, made.partition, made.state) == ("event", "2025-1", "success")
        assert await lifecycle.snapshots() == [made]
        assert not await lifecycle.restore("event", "2025-1")

        assert await store.drop_partition("event", "2025-1")
        assert await store.get("event", [(events[0].id, "2025-1")]) == [None]
        assert await lifecycle.restore("event", "2025-1")

        records = await store.get("event", [(event.id, "2025-1") for event in events])
        assert [json.loads(record.doc) for record in records if record] == [json.loads(event.doc) for event in events]
        await store.refresh()
        assert await store.count("event") == 20
        assert await lifecycle.move("event", "2025-1", "hot")
        assert await store.create_events([events[0]]) == [SAME]
        assert await lifecycle.drop_snapshot(made.name)
        assert not await lifecycle.drop_snapshot(made.name)
        assert await lifecycle.snapshots() == []


async def test_what_can_not_be_done_with_partitions_is_said() -> None:
    settings = fresh_settings()
    async with cleaned(settings), opened(settings) as store:
        await store.put([record_write(partition="2025-q1")])
        with pytest.raises(BadInput, match="written to for ever"):
            await store.lifecycle.move("profile", "2025-q1", "cold", read_only=True)
        assert await store.lifecycle.move("profile", "2025-q1", "warm")
        assert not await store.lifecycle.move("profile", "2024-q1", "warm")
        with pytest.raises(BadInput, match="elastic_snapshots"):
            await store.lifecycle.snapshot("profile", "2025-q1")
        with pytest.raises(BadInput, match="not a partition"):
            await store.lifecycle.move("profile", "../x", "warm")
    elsewhere = fresh_settings(elastic_snapshots="fs:/somewhere/else")
    async with cleaned(elsewhere), opened(elsewhere) as store:
        await store.put([record_write(partition="2025-q1")])
        with pytest.raises(BadInput, match="can't use"):
            await store.lifecycle.snapshot("profile", "2025-q1")


async def test_the_next_partition_is_made_a_day_before_it_is_needed() -> None:
    settings = fresh_settings()
    clock = FakeClock(now_ms=1_793_000_000_000)  # 2026-10-26
    async with cleaned(settings), ElasticsearchStore("elasticsearch:", settings, clock) as store:

        async def names() -> list[str]:
            return [info.name for info in await store.partitions()]

        await store.create_events([event_write(partition="2026-10")])
        assert await names() == ["2026-10"]
        clock.jump_wall(4 * 86_400)
        await store.create_events([event_write(partition="2026-10")])
        assert await names() == ["2026-10"]
        clock.jump_wall(86_400)
        await store.create_events([event_write(partition="2026-10")])
        assert await names() == ["2026-11", "2026-10"]
