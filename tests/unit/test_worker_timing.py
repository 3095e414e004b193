"""When a worker flushes, by a clock that moves on command; what it takes on and what it leaves in the queue."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest

from tests.rig import Rig
from tracardi_lite.backends.queue.routing import partition_of
from tracardi_lite.pipeline.worker import lane_of
from tracardi_lite.testing.clock import FakeClock, eventually
from tracardi_lite.testing.faults import Fault


def reasons(rig: Rig) -> dict[str, int]:
    return {reason: count for (reason,), count in rig.metrics.flushes.values.items()}


async def test_an_idle_batch_is_flushed_after_bulk_idle() -> None:
    clock = FakeClock()
    async with Rig(clock, workers=1, bulk_idle=1.0) as rig, rig.running() as worker:
        await rig.send("a")
        await eventually(lambda: clock.sleepers == 1 and worker.stats.waiting_messages == 1)
        clock.advance(0.9)
        await asyncio.sleep(0)
        assert reasons(rig) == {}
        clock.advance(0.1)
        await rig.settled()
        assert reasons(rig) == {"idle": 1}


async def test_a_trickle_is_flushed_bulk_timeout_after_its_first_event() -> None:
    clock = FakeClock()
    async with Rig(clock, workers=1, bulk_idle=1.0, bulk_timeout=3.0) as rig, rig.running() as worker:
        for number in range(6):
            slept = clock.sleeps
            await rig.send("a")
            # The lane has the message and waits anew, with it in mind.
            await eventually(
                lambda number=number, slept=slept: (  # type: ignore[misc]
                    worker.stats.waiting_messages == number + 1 and clock.sleepers == 1 and clock.sleeps > slept
                )
            )
            clock.advance(0.5)
        await rig.settled()
        assert reasons(rig) == {"timeout": 1}
        assert rig.metrics.flush_events.sum == 6


async def test_a_full_batch_is_flushed_at_once_and_a_call_is_not_split() -> None:
    clock = FakeClock()
    async with Rig(clock, workers=1, bulk_idle=0, bulk_timeout=100, bulk_size=10, queue_partitions=1) as rig:
        for _ in range(6):
            await rig.send(*["a"] * 4)
        async with rig.running():
            await rig.settled()
            assert reasons(rig) == {"full": 2}
            assert rig.metrics.flush_events.sum == 24


async def test_a_batch_is_bounded_in_bytes() -> None:
    clock = FakeClock()
    async with Rig(clock, workers=1, bulk_idle=0, bulk_timeout=100, bulk_bytes=4096) as rig, rig.running():
        await rig.send(events=[{"type": "a", "properties": {"text": "x" * 5000}}])
        await rig.settled()
        assert reasons(rig) == {"bytes": 1}


async def test_idle_zero_waits_for_the_timeout() -> None:
    clock = FakeClock()
    async with Rig(clock, workers=1, bulk_idle=0, bulk_timeout=30) as rig, rig.running() as worker:
        await rig.send("a")
        await eventually(lambda: clock.sleepers == 1 and worker.stats.waiting_messages == 1)
        clock.advance(29.9)
        await asyncio.sleep(0)
        assert reasons(rig) == {}
        clock.advance(0.2)
        await rig.settled()
        assert reasons(rig) == {"timeout": 1}


async def test_ten_thousand_events_in_one_call_go_to_the_store_in_pieces() -> None:
    async with Rig(workers=1, bulk_size=500) as rig:
        await rig.send(*["a"] * 10_000)
        await rig.drain()
        assert rig.faults.calls["create_events"] == 11  # twice a batch at most, and the three of the system
        assert (await rig.record("profile", "p1"))["stats"]["counters"]["events"] == 10_000
        await rig.audit()


async def test_a_worker_takes_no_more_than_its_bounds_while_the_store_stands_still() -> None:
    clock = FakeClock()
    async with Rig(clock, workers=2, bulk_size=10, bulk_idle=0.01, queue_partitions=4) as rig:
        rig.faults.add(Fault("create_events", seconds=1000.0, times=2))
        for number in range(500):
            await rig.send("a", profile=f"p{number}", session=f"s{number}")
        async with rig.running() as worker:
            await eventually(lambda: rig.faults.calls["create_events"] == 2)
            # Per lane a batch and as much in the inboxes, with one receive over.
            await eventually(lambda: worker.stats.waiting_events >= 30)
            for _ in range(20):
                clock.advance(1.0)
                await asyncio.sleep(0)
            assert worker.stats.waiting_events <= 2 * (10 + 10 + 10)
            clock.advance(1000.0)
            for _ in range(2000):
                if not rig.waits():
                    break
                clock.advance(0.01)
                await asyncio.sleep(0.001)
        await rig.audit()
        assert len(await rig.events()) == 500


async def test_several_batches_are_in_flight_at_once() -> None:
    clock = FakeClock()
    async with Rig(clock, workers=4, bulk_size=10, queue_partitions=1) as rig:
        rig.faults.add(Fault("create_events", seconds=10.0, times=4))
        for number in range(400):
            await rig.send("a", profile=f"p{number}", session=f"s{number}")
        async with rig.running():
            await eventually(lambda: rig.faults.calls["create_events"] == 4, what="four lanes stand before the store")
            clock.advance(10.0)
            await rig.settled()


@pytest.mark.parametrize("lanes", [2, 4, 7])
def test_the_keys_of_one_partition_are_spread_over_all_lanes(lanes: int) -> None:
    keys = [key for number in range(4000) if partition_of(key := f"{number:032x}", 8) == 3]
    shares = Counter(lane_of(key, lanes) for key in keys)
    assert len(shares) == lanes
    assert max(shares.values()) < 1.3 * len(keys) / lanes


async def test_an_idle_worker_asks_for_almost_nothing() -> None:
    clock = FakeClock()
    async with Rig(clock) as rig, rig.running():
        await eventually(lambda: rig.faults.calls["receive"] == 1)
        for _ in range(50):
            clock.advance(10.0)
            await asyncio.sleep(0)
        assert rig.faults.calls == {"subscribe": 1, "receive": 1}
