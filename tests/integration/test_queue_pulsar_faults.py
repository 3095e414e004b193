"""Pulsar killed, restarted and paused under the queue; several processes; what is special about this backend."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import suppress

import pytest

from tests.integration.pulsar_service import OwnPulsar, PulsarHarness, SharedPulsarHarness
from tracardi_lite.backends.queue.pulsar import PulsarQueue
from tracardi_lite.backends.queue.pulsar.queue import SILENT_MS
from tracardi_lite.errors import BadInput, LeaseLost, TryLater, Unavailable
from tracardi_lite.ports.queue import SUBSCRIPTION, Message, Publication
from tracardi_lite.testing.clock import FakeClock
from tracardi_lite.testing.queue_suite import (
    SharedQueueSuite,
    assert_adds_up,
    bodies,
    child,
    publication,
    stored,
    take,
    until,
)

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def broker() -> Iterator[OwnPulsar]:
    own = OwnPulsar()
    own.start()
    yield own
    own.stop("--wipe")


@pytest.fixture
def harness(broker: OwnPulsar) -> SharedPulsarHarness:
    return SharedPulsarHarness(broker.addresses)


@pytest.fixture
async def queue(harness: SharedPulsarHarness) -> AsyncIterator[PulsarQueue]:
    async with harness.open() as opened:
        yield opened


async def reached(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while not condition():  # noqa: ASYNC110  (what it looks at is plain data)
            await asyncio.sleep(0.01)


class TestProcesses(SharedQueueSuite):
    @pytest.fixture
    def harness(self, broker: OwnPulsar) -> SharedPulsarHarness:
        return SharedPulsarHarness(broker.addresses)


async def test_messages_are_counted_where_pulsar_counts_batches(queue: PulsarQueue) -> None:
    await asyncio.gather(*(queue.publish(publication("one key", f"{n}", events=2)) for n in range(500)))
    stats = await queue._stats()
    entries = sum(state["subscriptions"][SUBSCRIPTION]["msgBacklog"] for state in stats.values())
    assert 0 < entries < 100, "they travelled in batches"
    rows = await queue.backlog()
    assert sum(row.messages for row in rows) == 500
    assert sum(row.events for row in rows) == 1000
    assert next(row.oldest_ms for row in rows if row.messages)


async def test_a_batch_that_is_partly_settled_comes_again_whole_and_counts_once(harness: SharedPulsarHarness) -> None:
    async with harness.open() as queue:
        await asyncio.gather(*(queue.publish(publication("one key", f"{n}")) for n in range(100)))
        consumer = await queue.subscribe(SUBSCRIPTION)
        messages = await take(consumer, 100)
        batch = [message for message in messages if message.position[:2] == messages[-1].position[:2]]
        assert len(batch) > 1
        await consumer.ack([stored(message) for message in messages[:-1]])
        await consumer.close()
        heir = await queue.subscribe(SUBSCRIPTION)
        again = await take(heir, len(batch))
        assert [message.position for message in again] == [message.position for message in batch]
        await heir.ack([stored(message) for message in again])
        totals = await until(lambda totals: totals.pending == 0, queue)
        assert (totals.received, totals.stored) == (100, 100)


async def test_who_looks_after_the_queue_reads_no_living_process_s_messages(harness: SharedPulsarHarness) -> None:
    """A replica that did, as each does every half minute, would read all that the others write."""
    async with harness.open() as writer, harness.open() as other:
        await asyncio.gather(*(writer.publish(publication(f"k{n % 50}", f"{n}")) for n in range(500)))
        totals = await until(lambda totals: totals.pending == 500, other, rough=True)
        assert_adds_up(totals)
        await other.maintain()
        assert sum(row.messages for row in await other.backlog(rough=True)) == 500
        assert sum(state["msgOutCounter"] for state in (await other._stats()).values()) == 0
        await writer.publish(publication("k", "not written down yet"))
        assert (await other.totals()).pending == 501


async def test_who_only_looks_leaves_no_trace_in_the_journal(harness: SharedPulsarHarness) -> None:
    async with harness.open() as queue:
        await queue.publish(publication("k", "x"))
        for _ in range(3):
            async with harness.open() as other:
                assert (await other.totals()).pending == 1
        await queue._ledger.refresh()
        assert set(queue._ledger.journal.processes) == {queue._ledger.name}


async def test_a_process_that_is_over_is_counted_once_and_for_all(harness: SharedPulsarHarness) -> None:
    async with harness.open() as queue:
        async with child(harness, "publish", name="a", count=1_000_000) as publisher:
            for _ in range(100):
                await publisher.line()
            publisher.process.kill()
            await publisher.rest()
        totals = await queue.totals()
        assert queue._ledger.unfinished()
        queue._clock = FakeClock(queue._clock.now_ms() + SILENT_MS + 1000)
        await queue.maintain()
        assert await queue.totals(rough=True) == totals
        assert queue._ledger.unfinished() == []


async def test_what_the_broker_delivers_again_although_it_is_settled_is_not_seen(queue: PulsarQueue) -> None:
    """As after a crash of the broker, which forgets acknowledgements: here they are never sent."""
    for number in range(5):
        await queue.publish(publication("k", f"{number}"))
    consumer = await queue.subscribe(SUBSCRIPTION)
    messages = await take(consumer, 5)
    assert consumer._fetcher is not None

    async def swallowed(message_ids: object) -> None:
        return

    consumer._fetcher.acknowledge = swallowed  # type: ignore[method-assign]
    await consumer.ack([stored(message) for message in messages[:3]])
    await consumer.close()
    heir = await queue.subscribe(SUBSCRIPTION)
    assert bodies(await take(heir, 2)) == ["3", "4"]
    assert (await queue.totals()).stored == 3


async def test_a_message_that_the_broker_does_not_take_is_the_sender_s_mistake(queue: PulsarQueue) -> None:
    with pytest.raises(BadInput) as refusal:
        await queue.publish(Publication(key="k", head=b"", body=bytes(6 << 20), events=1))
    assert refusal.value.status == 413
    await queue.publish(publication("k", "fits"))


async def test_provisioning_says_what_it_does_and_does_it_once(broker: OwnPulsar) -> None:
    harness = SharedPulsarHarness(broker.addresses)
    harness.chosen["pulsar_system_namespace"] = f"fresh-{time.monotonic_ns()}"
    queue = harness.open()
    try:
        planned = await queue.provision(dry_run=True)
        assert any("create namespace" in line for line in planned)
        assert any("4 partitions" in line for line in planned)
        assert any("retention to {'retentionTimeInMinutes': 43200, 'retentionSizeInMB': 1024}" in x for x in planned)
        assert await queue.provision(dry_run=True) == planned, "a dry run changes nothing"
        assert await queue.provision() == planned
        assert await queue.provision() == []
        path = f"namespaces/tracardi/{harness.chosen['pulsar_system_namespace']}"
        assert await queue.admin.get(f"{path}/messageTTL") == 30 * 86400
        assert await queue.admin.get(f"{path}/offloadDeletionLagMs") == 4 * 3600 * 1000

        harness.chosen |= {"queue_retention": 3600, "queue_partitions": 8}
        changed = harness.open()
        lines = await changed.provision()
        assert any("retentionTimeInMinutes': 60" in line and "was" in line for line in lines)
        assert any("keep 4 partitions" in line for line in lines)
        await changed.admin.close()
    finally:
        await queue.admin.close()


async def test_a_killed_broker_means_503_at_once_and_nothing_lost_when_it_is_back(
    broker: OwnPulsar, harness: SharedPulsarHarness
) -> None:
    async with harness.open() as queue:
        consumer = await queue.subscribe(SUBSCRIPTION)
        told: list[str] = []
        refused: list[float] = []
        stop = asyncio.Event()

        async def publisher(name: int) -> None:
            number = 0
            while not stop.is_set():
                began = time.monotonic()
                try:
                    await queue.publish(publication(f"key-{name}", f"{name}/{number}"))
                    told.append(f"{name}/{number}")
                except TryLater:
                    refused.append(time.monotonic() - began)
                    await asyncio.sleep(0.05)
                number += 1

        done: list[Message] = []

        async def worker() -> None:
            while not stop.is_set() or not set(told) <= set(bodies(done)):
                with suppress(TryLater, LeaseLost):
                    found = await consumer.receive(50, 1 << 20, 0.2)
                    await consumer.ack([stored(message) for message in found])
                    done.extend(found)

        async with asyncio.timeout(90), asyncio.TaskGroup() as group:
            for name in range(8):
                group.create_task(publisher(name))
            working = group.create_task(worker())
            await reached(lambda: len(told) >= 500)
            await asyncio.to_thread(broker.stop, "--kill")
            await reached(lambda: bool(refused))
            began = time.monotonic()
            with pytest.raises(Unavailable):
                await queue.publish(publication("k", "away"))
            assert time.monotonic() - began < 0.1, "the circuit knows"
            with pytest.raises(Unavailable):
                await queue.ping()
            before = len(told)
            await asyncio.to_thread(broker.start)
            await reached(lambda: len(told) >= before + 200)
            stop.set()
            await working
        assert max(refused) < 4.0, "nobody waited for the client's own timeout"
        assert set(told) <= set(bodies(done))
        for name in range(8):
            mine = list(dict.fromkeys(int(body.split("/")[1]) for body in bodies(done) if body.startswith(f"{name}/")))
            assert mine == sorted(mine), "in order, whatever came again"
        totals = await until(lambda totals: totals.pending == 0, queue)
        assert_adds_up(totals)
        assert totals.stored == len({message.body for message in done}), "each counted once"
        await consumer.close()


async def test_a_broker_that_is_away_at_the_start_is_said_to_be() -> None:
    harness = PulsarHarness({"service": "pulsar://127.0.0.1:1", "admin": "http://127.0.0.1:2"})
    with pytest.raises(Unavailable):
        async with harness.open():
            pytest.fail("there is nothing to open")
