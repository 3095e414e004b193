"""The queue port's contract on a real Redis, in one process and in several."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Iterator
from typing import Any

import pytest

from tests.integration.redis_service import OwnRedis, service
from tracardi_lite.backends.queue.redis import RedisQueue, open_queue
from tracardi_lite.clock import Clock, SystemClock
from tracardi_lite.errors import TryLater, Unavailable
from tracardi_lite.ports.queue import SUBSCRIPTION
from tracardi_lite.settings import Settings
from tracardi_lite.testing.clock import FakeClock
from tracardi_lite.testing.queue_suite import (
    PARTITIONS,
    QueueSuite,
    SharedQueueSuite,
    assert_adds_up,
    bodies,
    publication,
    stored,
    take,
)

pytestmark = pytest.mark.integration


@pytest.fixture(scope="session")
def url() -> str:
    return service("start", "redis")["url"]


@pytest.fixture(scope="module")
def own() -> Iterator[OwnRedis]:
    redis = OwnRedis()
    redis.start()
    yield redis
    redis.stop("--wipe")


class RedisHarness:
    """One fresh queue under a prefix of its own. Delays follow a clock that is moved; leases run in real time."""

    lease_ttl_s = 2.0

    def __init__(self, url: str, clock: Clock) -> None:
        self.url = url
        self._clock = clock
        self.settings: dict[str, Any] = {
            "redis_prefix": f"test-{uuid.uuid4().hex[:8]}",
            "queue_partitions": PARTITIONS,
            "lease_ttl": self.lease_ttl_s,
        }

    def open(self, *, bytes_max: int | None = None, retention_s: int | None = None) -> RedisQueue:
        chosen = dict(self.settings)
        if bytes_max is not None:
            chosen["queue_bytes_max"] = bytes_max
        if retention_s is not None:
            chosen["queue_retention"] = retention_s
        return open_queue(self.url, Settings(**chosen), clock=self._clock)

    async def pass_time(self, seconds: float) -> None:
        if isinstance(self._clock, FakeClock):
            self._clock.advance(seconds)
            await asyncio.sleep(0.01)  # the server stamps by its own clock; what comes next must be younger
        else:
            await asyncio.sleep(seconds * 1.1)


class TestRedis(QueueSuite):
    @pytest.fixture
    def harness(self, url: str) -> RedisHarness:
        return RedisHarness(url, FakeClock())


class TestProcesses(SharedQueueSuite):
    @pytest.fixture
    def harness(self, url: str) -> RedisHarness:
        return RedisHarness(url, SystemClock())


async def test_retention_by_age_and_by_size_drops_the_oldest_acknowledged(url: str) -> None:
    harness = RedisHarness(url, FakeClock())
    harness.settings["queue_retention_bytes"] = PARTITIONS * 3000
    async with harness.open(retention_s=3600) as queue:
        for step in range(20):
            await queue.publish(publication("k", f"{step:02}" * 500))
        consumer = await queue.subscribe(SUBSCRIPTION)
        messages = await take(consumer, 20)
        await consumer.ack([stored(message) for message in messages[:10]])
        await queue.maintain()
        assert await queue.seek(SUBSCRIPTION, None) == 2, "as many of 1 KB as fit in the partition's 3000 bytes"
        again = await take(consumer, 12)
        assert bodies(again)[0] == "08" * 500
        await consumer.close()


async def test_a_killed_redis_means_503_and_nothing_that_was_answered_is_lost(own: OwnRedis) -> None:
    harness = RedisHarness(own.url, SystemClock())
    async with harness.open() as queue:
        consumer = await queue.subscribe(SUBSCRIPTION)
        told = [f"{number}" for number in range(200)]
        await asyncio.gather(*(queue.publish(publication(f"key-{body}", body)) for body in told))
        early = await take(consumer, 50)
        await consumer.ack([stored(message) for message in early])
        await asyncio.to_thread(own.stop, "--kill")
        with pytest.raises(Unavailable):
            await queue.publish(publication("k", "away"))
        with pytest.raises(TryLater):
            await queue.ping()
        await asyncio.to_thread(own.start)
        done = bodies(early)
        async with asyncio.timeout(30):
            while not set(told) <= set(done):
                try:
                    found = await consumer.receive(50, 1 << 20, 0.2)
                    await consumer.ack([stored(message) for message in found])
                except TryLater:
                    await asyncio.sleep(0.1)
                    continue
                done += bodies(found)
        totals = await queue.totals()
        assert_adds_up(totals)
        assert totals.stored == totals.received == 200
        await consumer.close()


async def test_others_can_watch_the_lag_by_a_consumer_group(url: str) -> None:
    harness = RedisHarness(url, FakeClock())
    async with harness.open() as queue:
        for step in range(4):
            await queue.publish(publication("k", f"{step}"))
        consumer = await queue.subscribe(SUBSCRIPTION)
        messages = await take(consumer, 4)
        await consumer.ack([stored(message) for message in messages[:3]])
        stream = queue._server.key("s", messages[0].stream.rpartition("/")[2])
        (group,) = await queue._server.redis.xinfo_groups(stream)
        assert group["name"] == SUBSCRIPTION.encode()
        assert group["last-delivered-id"] == b"3-0"
        await consumer.close()
