"""The queue through a real Pulsar proxy, as clients outside of the broker's network reach it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from functools import partial

import pytest

from tests.integration.pulsar_service import NAMESPACE, PulsarHarness, service
from tracardi_lite.errors import LeaseLost, TryLater, Unavailable
from tracardi_lite.ports.queue import SUBSCRIPTION
from tracardi_lite.testing.queue_suite import QueueSuite, assert_adds_up, bodies, publication, stored, take, until

pytestmark = pytest.mark.integration

LIMIT_S = 60.0


@pytest.fixture(scope="module")
def proxy() -> Iterator[dict[str, str]]:
    service("start", "pulsar")
    yield service("start", "pulsar-proxy")
    service("stop", "pulsar-proxy", "--wipe")


@pytest.fixture
def harness(proxy: dict[str, str]) -> PulsarHarness:
    return PulsarHarness(proxy)


class TestPulsarThroughAProxy(QueueSuite):
    topic = f"persistent://tracardi/{NAMESPACE}/functions-"

    @pytest.fixture
    def harness(self, proxy: dict[str, str]) -> PulsarHarness:
        return PulsarHarness(proxy)


async def persistently(call: Callable[[], Awaitable[None]]) -> None:
    while True:
        try:
            return await call()
        except TryLater:
            await asyncio.sleep(0.1)


async def test_a_killed_proxy_means_503_and_nothing_lost_when_there_is_one_again(harness: PulsarHarness) -> None:
    async with harness.open() as queue:
        consumer = await queue.subscribe(SUBSCRIPTION)
        await queue.publish(publication("k", "before"))
        await asyncio.to_thread(service, "stop", "pulsar-proxy", "--kill")
        with pytest.raises(Unavailable):
            await queue.publish(publication("k", "meanwhile"))
        await asyncio.to_thread(service, "start", "pulsar-proxy")
        found: list[str] = []
        async with asyncio.timeout(LIMIT_S):
            await persistently(lambda: queue.publish(publication("k", "after")))
            while "after" not in found:
                messages = await take(consumer, 1)
                try:
                    await persistently(partial(consumer.ack, [stored(message) for message in messages]))
                except LeaseLost:
                    continue  # they come again
                found += bodies(messages)
        # Refused is not lost: what the broker may have got before it was cut off may be there, once.
        assert [body for body in found if body != "meanwhile"] == ["before", "after"]
        assert found.count("meanwhile") <= 1
        totals = await until(lambda totals: totals.pending == 0, queue)
        assert totals.stored == len(found)
        assert_adds_up(totals)
        await consumer.close()
