"""The queue port's contract as tests, for ours and third parties' backends.

Subclass ``QueueSuite`` in a test module and give it a ``harness`` fixture::

    class TestMine(QueueSuite):
        @pytest.fixture
        def harness(self, tmp_path):
            return MyHarness(tmp_path)

A harness stands for one fresh, empty queue; ``open`` may be called again after the queue that it gave was closed, and
while it is open, as another process would. The tests need at least ``PARTITIONS`` partitions.
"""

from __future__ import annotations

import asyncio
import json
import signal
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from functools import partial
from typing import Any, Protocol

import pytest

from tracardi_lite.errors import Full, LeaseLost, Unavailable
from tracardi_lite.ports.queue import (
    SUBSCRIPTION,
    TOPIC,
    Consumer,
    DeadLetter,
    Done,
    Message,
    Publication,
    Queue,
    Tally,
    Totals,
)

PARTITIONS = 4
LIMIT_S = 20.0
"""Longest that a test waits for what must come."""
STOPS = 5


class QueueHarness(Protocol):
    def open(self, *, bytes_max: int | None = None, retention_s: int | None = None) -> Queue:
        """A queue object, not yet entered, on the harness's one queue; the arguments override its settings."""
        ...

    async def pass_time(self, seconds: float) -> None:
        """Let delays and ages grow: move the backend's clock, or sleep."""
        ...


class SharedQueueHarness(QueueHarness, Protocol):
    """Of a queue that several processes use at once. Its time is the real one, and its lease time is short."""

    url: str
    """As a child process opens it."""
    settings: dict[str, Any]
    """Settings that a child needs, JSON-encodable."""
    lease_ttl_s: float


def publication(key: str, body: str = "", events: int = 1) -> Publication:
    return Publication(key=key, head=f"head of {key}".encode(), body=body.encode(), events=events)


def stored(message: Message) -> Done:
    return Done(message, Tally(stored=message.events))


def bodies(messages: Sequence[Message]) -> list[str]:
    return [message.body.decode() for message in messages]


async def take(consumer: Consumer, count: int, *, limit_s: float = LIMIT_S) -> list[Message]:
    """Exactly ``count`` messages, unacknowledged, in the order of their delivery."""
    found: list[Message] = []
    try:
        async with asyncio.timeout(limit_s):
            while len(found) < count:
                found += await consumer.receive(count - len(found), 1 << 20, 0.25)
    except TimeoutError:
        raise AssertionError(f"{len(found)} of {count} messages came within {limit_s} s") from None
    return found


async def nothing_comes(consumer: Consumer, wait_s: float = 0.15) -> None:
    found = await consumer.receive(10, 1 << 20, wait_s)
    assert found == [], bodies(found)


async def until(condition: Callable[[Totals], bool], queue: Queue, *, rough: bool = False) -> Totals:
    """Wait until the totals say so."""
    async with asyncio.timeout(LIMIT_S):
        while True:
            totals = await queue.totals(rough=rough)
            if condition(totals):
                return totals
            await asyncio.sleep(0.01)


def assert_adds_up(totals: Totals) -> None:
    came = totals.received + totals.replayed
    went = totals.stored + totals.duplicate + totals.rejected + totals.dead_lettered + totals.pending
    assert came == went, totals


class QueueSuite:
    """Of one process; ``SharedQueueSuite`` adds several."""

    pytestmark = pytest.mark.asyncio

    topic = TOPIC
    """What the partitions' names begin with; another one where a harness needs a topic of its own for each test."""

    @pytest.fixture
    def harness(self) -> QueueHarness:
        raise NotImplementedError("the subclass provides it")

    # --- order and delivery ---
    async def test_what_is_published_is_delivered_whole(self, harness: QueueHarness) -> None:
        async with harness.open() as queue:
            body = bytes(range(256)) * 500
            await queue.publish(Publication(key="k", head=b"\x00head", body=body, events=7))
            consumer = await queue.subscribe(SUBSCRIPTION)
            (message,) = await take(consumer, 1)
            assert (message.key, message.head, message.body, message.events) == ("k", b"\x00head", body, 7)
            assert message.tries == 0
            assert message.published_ms > 0
            await consumer.close()

    async def test_a_key_keeps_its_order_and_its_stream(self, harness: QueueHarness) -> None:
        keys = [f"profile-{n}" for n in range(10)]
        async with harness.open() as queue:
            for step in range(20):
                await asyncio.gather(*(queue.publish(publication(key, f"{step}")) for key in keys))
            consumer = await queue.subscribe(SUBSCRIPTION)
            messages = await take(consumer, 200)
            for key in keys:
                of_key = [message for message in messages if message.key == key]
                assert bodies(of_key) == [str(step) for step in range(20)]
                assert len({message.stream for message in of_key}) == 1
                assert [m.position for m in of_key] == sorted({m.position for m in of_key})
            assert len({message.stream for message in messages}) > 1, "the keys share partitions out"
            await consumer.close()

    async def test_what_is_posted_is_told_once_and_later_and_keeps_its_order(self, harness: QueueHarness) -> None:
        async with harness.open() as queue:
            told: list[tuple[int, Exception | None]] = []
            all_told = asyncio.Event()

            def done(number: int, error: Exception | None) -> None:
                told.append((number, error))
                if len(told) == 200:
                    all_told.set()

            for number in range(200):
                queue.post(publication(f"key-{number % 3}", f"{number}"), partial(done, number))
                assert not told, "never before post returns"
            async with asyncio.timeout(LIMIT_S):
                await all_told.wait()
            assert sorted(told, key=lambda each: each[0]) == [(number, None) for number in range(200)]
            consumer = await queue.subscribe(SUBSCRIPTION)
            messages = await take(consumer, 200)
            for key in range(3):
                numbers = [int(message.body) for message in messages if message.key == f"key-{key}"]
                assert numbers == list(range(key, 200, 3))
            assert len(told) == 200, "once"
            await consumer.close()

    async def test_a_closed_queue_takes_no_post(self, harness: QueueHarness) -> None:
        queue = harness.open()
        async with queue:
            pass
        told: list[Exception | None] = []
        with pytest.raises(Unavailable):
            queue.post(publication("k", "late"), told.append)
        await asyncio.sleep(0)
        assert told == []

    async def test_concurrent_publishers_lose_nothing(self, harness: QueueHarness) -> None:
        async with harness.open() as queue:

            async def publisher(number: int) -> None:
                for step in range(25):
                    await queue.publish(publication(f"key-{number}", f"{number}/{step}"))

            await asyncio.gather(*(publisher(number) for number in range(20)))
            consumer = await queue.subscribe(SUBSCRIPTION)
            messages = await take(consumer, 500)
            assert sorted(bodies(messages)) == sorted(f"{n}/{s}" for n in range(20) for s in range(25))
            await consumer.ack([stored(message) for message in messages])
            await nothing_comes(consumer)
            await consumer.close()

    async def test_a_receive_is_bounded_in_messages_and_bytes(self, harness: QueueHarness) -> None:
        async with harness.open() as queue:
            for step in range(6):
                await queue.publish(publication("k", f"{step}" * 1000))
            consumer = await queue.subscribe(SUBSCRIPTION)
            first = await take(consumer, 1)
            assert len(await consumer.receive(2, 1 << 20, 5.0)) == 2
            assert len(await consumer.receive(10, 2500, 5.0)) <= 2
            assert len(await consumer.receive(10, 10, 5.0)) == 1, "one comes, however large"
            assert first[0].body == b"0" * 1000
            await consumer.close()

    async def test_a_waiting_receive_wakes_for_a_publication(self, harness: QueueHarness) -> None:
        async with harness.open() as queue:
            consumer = await queue.subscribe(SUBSCRIPTION)
            waiting = asyncio.create_task(take(consumer, 1))
            await asyncio.sleep(0)
            await queue.publish(publication("k", "late"))
            assert bodies(await waiting) == ["late"]
            await consumer.close()

    async def test_receive_gives_up_after_its_timeout(self, harness: QueueHarness) -> None:
        async with harness.open() as queue:
            consumer = await queue.subscribe(SUBSCRIPTION)
            async with asyncio.timeout(LIMIT_S):
                assert await consumer.receive(10, 1 << 20, 0.05) == []
            await consumer.close()

    # --- acknowledgement ---
    async def test_the_acknowledged_does_not_come_again_and_the_rest_does(self, harness: QueueHarness) -> None:
        async with harness.open() as queue:
            for step in range(6):
                await queue.publish(publication("k", f"{step}"))
            consumer = await queue.subscribe(SUBSCRIPTION)
            messages = await take(consumer, 6)
            await consumer.ack([stored(message) for message in messages[:4]])
            await consumer.close()
        async with harness.open() as queue:
            consumer = await queue.subscribe(SUBSCRIPTION)
            again = await take(consumer, 2)
            assert bodies(again) == ["4", "5"]
            assert [m.position for m in again] == [m.position for m in messages[4:]]
            assert [m.stream for m in again] == [m.stream for m in messages[4:]]
            await consumer.ack([stored(message) for message in again])
            await nothing_comes(consumer)
            await consumer.close()

    async def test_acknowledgements_may_come_in_any_order_and_count_once(self, harness: QueueHarness) -> None:
        async with harness.open() as queue:
            for step in range(9):
                await queue.publish(publication(f"k{step % 2}", f"{step}", events=2))
            consumer = await queue.subscribe(SUBSCRIPTION)
            messages = await take(consumer, 9)
            for message in [*messages[::-2], *messages[-2::-2]]:
                await consumer.ack([stored(message)])
                assert_adds_up(await queue.totals())
            await consumer.ack([stored(message) for message in messages])
            totals = await until(lambda totals: totals.pending == 0, queue)
            assert totals.stored == 18
            assert_adds_up(totals)
            await consumer.close()

    async def test_a_crash_between_delivery_and_acknowledgement_delivers_again(self, harness: QueueHarness) -> None:
        async with harness.open() as queue:
            for step in range(4):
                await queue.publish(publication("k", f"{step}"))
            consumer = await queue.subscribe(SUBSCRIPTION)
            messages = await take(consumer, 4)
            await consumer.ack([stored(message) for message in messages[2:]])  # not the first ones
        async with harness.open() as queue:
            consumer = await queue.subscribe(SUBSCRIPTION)
            again = bodies(await take(consumer, 2))
            assert again == ["0", "1"]
            assert_adds_up(await queue.totals())
            await consumer.close()

    async def test_a_closed_consumer_can_not_acknowledge(self, harness: QueueHarness) -> None:
        async with harness.open() as queue:
            await queue.publish(publication("k", "0"))
            late = await queue.subscribe(SUBSCRIPTION)
            messages = await take(late, 1)
            await late.close()
            heir = await queue.subscribe(SUBSCRIPTION)
            again = await take(heir, 1)
            with pytest.raises(LeaseLost):
                await late.ack([stored(message) for message in messages])
            assert (await queue.totals()).stored == 0
            await heir.ack([stored(message) for message in again])
            assert (await until(lambda totals: totals.pending == 0, queue)).stored == 1
            await heir.close()

    # --- sharing ---
    async def test_two_consumers_share_and_none_gets_what_the_other_has(self, harness: QueueHarness) -> None:
        async with harness.open() as queue:
            one = await queue.subscribe(SUBSCRIPTION)
            two = await queue.subscribe(SUBSCRIPTION)
            for step in range(5):
                for number in range(40):
                    await queue.publish(publication(f"key-{number}", f"{number}/{step}"))
            taken: list[list[Message]] = [[], []]
            async with asyncio.timeout(LIMIT_S):
                while len(taken[0]) + len(taken[1]) < 200:
                    for mine, consumer in zip(taken, (one, two), strict=True):
                        found = await consumer.receive(10, 1 << 20, 0.05)
                        await consumer.ack([stored(message) for message in found])
                        mine += found
            assert taken[0]
            assert taken[1]
            assert {m.key for m in taken[0]}.isdisjoint({m.key for m in taken[1]})
            assert len({body for mine in taken for body in bodies(mine)}) == 200
            totals = await until(lambda totals: totals.pending == 0, queue)
            assert totals.stored == 200
            await one.close()
            await two.close()

    async def test_a_newcomer_gets_its_share_and_a_leaver_s_share_goes_back(self, harness: QueueHarness) -> None:
        async with harness.open() as queue:
            first = await queue.subscribe(SUBSCRIPTION)
            await nothing_comes(first, 0.01)
            second = await queue.subscribe(SUBSCRIPTION)
            seen: set[str] = set()
            async with asyncio.timeout(LIMIT_S):
                while not seen:
                    await queue.publish(publication(f"key-{len(seen)}-{id(object())}"))
                    for number in range(20):
                        await queue.publish(publication(f"key-{number}"))
                    for consumer in (first, second):
                        found = await consumer.receive(100, 1 << 20, 0.05)
                        await consumer.ack([stored(message) for message in found])
                        if consumer is second:
                            seen |= {message.stream for message in found}
            await second.close()
            for number in range(40):
                await queue.publish(publication(f"key-{number}", "last"))
            last: list[Message] = []
            async with asyncio.timeout(LIMIT_S):
                while bodies(last).count("last") < 40:
                    last += await first.receive(100, 1 << 20, 0.05)
            await first.close()

    # --- putting back ---
    async def test_a_nack_comes_again_after_its_delay_and_holds_back_its_key(self, harness: QueueHarness) -> None:
        async with harness.open() as queue:
            for step in range(3):
                await queue.publish(publication("k", f"{step}"))
            consumer = await queue.subscribe(SUBSCRIPTION)
            (message,) = await take(consumer, 1)
            await consumer.nack([message], 2.0)
            await queue.publish(publication("other", "other"))
            assert bodies(await take(consumer, 1)) == ["other"], "other keys go on"
            await nothing_comes(consumer)
            await harness.pass_time(2.5)
            (again,) = await take(consumer, 1)
            assert (again.body, again.tries, again.position) == (b"0", 1, message.position)
            await consumer.ack([stored(again)])
            assert bodies(await take(consumer, 2)) == ["1", "2"]
            await consumer.close()

    async def test_messages_put_back_together_come_again_in_order(self, harness: QueueHarness) -> None:
        async with harness.open() as queue:
            for step in range(5):
                await queue.publish(publication("k", f"{step}"))
            consumer = await queue.subscribe(SUBSCRIPTION)
            messages = await take(consumer, 4)
            await consumer.nack(messages[1:], 0.0)
            await consumer.ack([stored(messages[0])])
            seen = []
            for _ in range(4):
                (message,) = await take(consumer, 1)
                seen.append((message.body.decode(), message.tries))
                await consumer.ack([stored(message)])
            assert seen == [("1", 1), ("2", 1), ("3", 1), ("4", 0)]
            await consumer.close()

    async def test_released_messages_come_again_at_once_without_a_try(self, harness: QueueHarness) -> None:
        async with harness.open() as queue:
            for step in range(3):
                await queue.publish(publication("k", f"{step}"))
            consumer = await queue.subscribe(SUBSCRIPTION)
            await consumer.release(await take(consumer, 3))
            again = await take(consumer, 3)
            assert [(m.body, m.tries) for m in again] == [(b"0", 0), (b"1", 0), (b"2", 0)]
            await consumer.close()

    async def test_tries_survive_a_restart(self, harness: QueueHarness) -> None:
        async with harness.open() as queue:
            await queue.publish(publication("k", "poison"))
            consumer = await queue.subscribe(SUBSCRIPTION)
            for tries in range(3):
                (message,) = await take(consumer, 1)
                assert message.tries == tries
                await consumer.nack([message], 0.0)
            await consumer.close()
        async with harness.open() as queue:
            consumer = await queue.subscribe(SUBSCRIPTION)
            (message,) = await take(consumer, 1)
            assert message.tries == 3
            await consumer.close()

    # --- dead letters ---
    async def test_a_dead_letter_is_kept_counted_replayed_and_dropped(self, harness: QueueHarness) -> None:
        async with harness.open() as queue:
            await queue.publish(publication("k", "poison", events=3))
            await queue.publish(publication("l", "poison too", events=1))
            consumer = await queue.subscribe(SUBSCRIPTION)
            for message in await take(consumer, 2):
                letter = DeadLetter(
                    id=f"letter-{message.key}",
                    key=message.key,
                    head=message.head,
                    body=message.body,
                    events=1,
                    reason="no good",
                    died_ms=message.published_ms,
                    indices=[0],
                    tries=message.tries,
                )
                await consumer.ack([Done(message, Tally(stored=message.events - 1, dead=1))], [letter])
            totals = await until(lambda totals: totals.pending == 0, queue)
            assert (totals.stored, totals.dead_lettered, totals.dead) == (2, 2, 2)
            first, second = await queue.dead_letters()
            assert (first.id, first.body, first.reason, first.indices) == ("letter-k", b"poison", "no good", [0])
            assert await queue.dead_letters(limit=1) == [first]
            assert await queue.dead_letters(after=first.id) == [second]

            assert await queue.take_dead_letter(first.id, replay=publication("k", "poison", events=1))
            assert await queue.take_dead_letter(second.id, replay=None)
            assert not await queue.take_dead_letter(first.id, replay=None)
            assert await queue.dead_letters() == []
            totals = await queue.totals()
            assert (totals.received, totals.replayed, totals.dead, totals.pending) == (4, 1, 0, 1)
            assert_adds_up(totals)
            (again,) = await take(consumer, 1)
            await consumer.ack([stored(again)])
            assert_adds_up(await until(lambda totals: totals.pending == 0, queue))
            await consumer.close()

    # --- looking at it ---
    async def test_the_backlog_counts_messages_and_events_from_the_first_publish_on(
        self, harness: QueueHarness
    ) -> None:
        async with harness.open() as queue:
            for number in range(12):
                await queue.publish(publication(f"key-{number}", events=3))
            rows = [row for row in await queue.backlog() if row.subscription == SUBSCRIPTION]
            assert sum(row.messages for row in rows) == 12
            assert sum(row.events for row in rows) == 36
            assert len({row.partition for row in rows}) == len(rows) >= PARTITIONS
            assert all((row.oldest_ms is None) or row.messages for row in rows)
            assert rows[0].partition.startswith(self.topic)
            assert all("-partition-" in row.partition for row in rows)

    async def test_refusals_are_counted_by_reason_and_kept(self, harness: QueueHarness) -> None:
        async with harness.open() as queue:
            await queue.note_refused({"source": 2, "limit": 1})
            await queue.note_refused({"source": 3})
        async with harness.open() as queue:
            assert dict((await queue.totals()).refused) == {"source": 5, "limit": 1}

    async def test_the_ledger_survives_a_restart(self, harness: QueueHarness) -> None:
        async with harness.open() as queue:
            for number in range(8):
                await queue.publish(publication(f"key-{number}", events=2))
            consumer = await queue.subscribe(SUBSCRIPTION)
            messages = await take(consumer, 8)
            outcomes = [Tally(stored=2), Tally(duplicate=2), Tally(rejected=1, stored=1), Tally(duplicate=1, stored=1)]
            await consumer.ack([Done(m, outcomes[place % 4]) for place, m in enumerate(messages)])
            await consumer.close()
            before = await until(lambda totals: totals.pending == 0, queue)
        async with harness.open() as queue:
            after = await queue.totals()
            assert after == before
            assert (after.received, after.stored, after.duplicate, after.rejected) == (16, 8, 6, 2)
            assert_adds_up(after)

    # --- replay and retention ---
    async def test_seek_delivers_again_and_counts_as_replayed(self, harness: QueueHarness) -> None:
        async with harness.open() as queue:
            await queue.publish(publication("k", "old", events=2))
            await harness.pass_time(2.0)
            await queue.publish(publication("k", "new", events=3))
            consumer = await queue.subscribe(SUBSCRIPTION)
            messages = await take(consumer, 2)
            await consumer.ack([stored(message) for message in messages])
            await until(lambda totals: totals.pending == 0, queue)

            assert await queue.seek(SUBSCRIPTION, messages[1].published_ms) == 3
            assert_adds_up(await queue.totals())
            again = await take(consumer, 1)
            assert bodies(again) == ["new"]
            await consumer.ack([Done(message, Tally(duplicate=message.events)) for message in again])
            await until(lambda totals: totals.pending == 0, queue)

            assert await queue.seek(SUBSCRIPTION, None) == 5
            again = await take(consumer, 2)
            assert bodies(again) == ["old", "new"]
            with pytest.raises(LeaseLost):
                await consumer.ack([Done(message, Tally(duplicate=message.events)) for message in messages])
            await consumer.ack([Done(message, Tally(duplicate=message.events)) for message in again])
            totals = await until(lambda totals: totals.pending == 0, queue)
            assert (totals.received, totals.replayed, totals.stored, totals.duplicate) == (5, 8, 5, 8)
            assert_adds_up(totals)
            await consumer.close()

    async def test_retention_drops_only_what_was_acknowledged(self, harness: QueueHarness) -> None:
        async with harness.open(retention_s=60) as queue:
            for step in range(4):
                await queue.publish(publication("k", f"{step}"))
            consumer = await queue.subscribe(SUBSCRIPTION)
            await harness.pass_time(120)
            await queue.maintain()
            messages = await take(consumer, 4)
            assert bodies(messages) == ["0", "1", "2", "3"]
            await consumer.ack([stored(message) for message in messages])
            await until(lambda totals: totals.pending == 0, queue)
            await queue.maintain()
            assert_adds_up(await queue.totals())
            await queue.publish(publication("k", "after"))
            assert bodies(await take(consumer, 1)) == ["after"]
            await consumer.close()

    async def test_a_full_queue_refuses_and_takes_again_when_there_is_room(self, harness: QueueHarness) -> None:
        body = "x" * 100_000
        published = 0
        async with harness.open(bytes_max=2 << 20, retention_s=0) as queue:
            with pytest.raises(Full) as refusal:
                for _ in range(200):
                    # Random-looking, so that a backend which compresses fills up as well.
                    noise = "".join(map(str, range(published * 1000, published * 1000 + 20_000)))
                    await queue.publish(publication("k", body + noise))
                    published += 1
            assert refusal.value.retry_after_s > 0
            assert published > 3
            with pytest.raises(Full):
                await queue.ping()
            consumer = await queue.subscribe(SUBSCRIPTION)
            messages = await take(consumer, published)
            await consumer.ack([stored(message) for message in messages])
            await until(lambda totals: totals.pending == 0, queue)
            await queue.maintain()
            await queue.ping()
            await queue.publish(publication("k", "room again"))
            assert bodies(await take(consumer, 1)) == ["room again"]
            assert_adds_up(await queue.totals())
            await consumer.close()

    # --- cancellation ---
    async def test_cancelled_calls_leave_it_usable(self, harness: QueueHarness) -> None:
        async with harness.open() as queue:
            consumer = await queue.subscribe(SUBSCRIPTION)
            for turns in range(6):
                publishing = asyncio.create_task(queue.publish(publication("k", f"{turns}")))
                receiving = asyncio.create_task(consumer.receive(1, 1 << 20, 5.0))
                for _ in range(turns):
                    await asyncio.sleep(0)
                publishing.cancel()
                receiving.cancel()
                results = await asyncio.gather(publishing, receiving, return_exceptions=True)
                for message in results[1] if isinstance(results[1], list) else []:
                    await consumer.ack([stored(message)])
            await queue.publish(publication("k", "last"))
            async with asyncio.timeout(LIMIT_S):
                last = ""
                while last != "last":
                    found = await consumer.receive(10, 1 << 20, 0.25)
                    await consumer.ack([stored(message) for message in found])
                    last = found[-1].body.decode() if found else last
            assert_adds_up(await until(lambda totals: totals.pending == 0, queue))
            await consumer.close()


class Child:
    """A process that publishes or consumes, see ``queue_child``."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process
        self.lines: list[str] = []

    async def line(self) -> str:
        """The next line that it writes; "" when it has ended."""
        assert self.process.stdout is not None
        async with asyncio.timeout(LIMIT_S):
            text = (await self.process.stdout.readline()).decode().strip()
        if text:
            self.lines.append(text)
        return text

    async def until(self, wanted: str) -> None:
        while wanted not in self.lines:
            assert await self.line(), f"it ended without saying {wanted!r}: {self.lines}"

    async def until_lines(self, count: int) -> None:
        while len(self.lines) < count:
            assert await self.line(), f"it ended after {len(self.lines)} lines"

    async def rest(self) -> list[str]:
        """Everything that it wrote, once it has ended."""
        while await self.line():
            pass
        await self.process.wait()
        return self.lines

    async def tell(self, text: str) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(f"{text}\n".encode())
        await self.process.stdin.drain()


@asynccontextmanager
async def child(harness: SharedQueueHarness, act: str, **options: object) -> AsyncIterator[Child]:
    order = json.dumps({"url": harness.url, "settings": harness.settings, "act": act, **options})
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "tracardi_lite.testing.queue_child",
        order,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
    )
    started = Child(process)
    try:
        yield started
    finally:
        if process.returncode is None:
            process.kill()
        await started.rest()
        assert process.stdin is not None
        process.stdin.close()


async def in_place_of(paused: Child, queue: Queue, harness: SharedQueueHarness) -> Consumer:
    """Stop a process until its leases have run out, and join.

    Where processes share files, a stop may hit one that holds their lock, and then all others wait for it, as
    ARCHITECTURE.md says. That is not what is looked at here: it goes on, and is stopped at another moment.
    """
    for _ in range(STOPS):
        paused.process.send_signal(signal.SIGSTOP)
        await harness.pass_time(harness.lease_ttl_s)
        try:
            return await queue.subscribe(SUBSCRIPTION)
        except Unavailable:
            paused.process.send_signal(signal.SIGCONT)
    raise AssertionError(f"stopped {STOPS} times, and each time with a lock in hand")


class SharedQueueSuite:
    """Several processes on one queue, and what happens when one of them dies or is paused."""

    pytestmark = pytest.mark.asyncio

    @pytest.fixture
    def harness(self) -> SharedQueueHarness:
        raise NotImplementedError("the subclass provides it")

    async def test_processes_share_the_work_and_a_killed_consumer_s_part_is_done_by_the_others(
        self, harness: SharedQueueHarness
    ) -> None:
        async with (
            harness.open() as queue,
            child(harness, "publish", name="a", count=150) as one,
            child(harness, "publish", name="b", count=150) as two,
            child(harness, "consume") as victim,
            child(harness, "consume") as heir,
        ):
            ours: list[str] = []
            seen = asyncio.create_task(victim.until_lines(20))
            while not seen.done():  # bounded by the limit of each line
                ours.append(f"ours-{len(ours)}")
                await queue.publish(publication(f"key-{len(ours) % 40}", ours[-1]))
            await seen
            victim.process.send_signal(signal.SIGKILL)
            published = [*ours, *await one.rest(), *await two.rest()]
            totals = await until(lambda totals: totals.pending == 0, queue)
            assert totals.stored == totals.received == len(published)
            assert_adds_up(totals)
            heir.process.terminate()
            done = {*await victim.rest(), *await heir.rest()}
            assert done <= set(published)
            # The acknowledgement in which the victim died, of up to ten, may be missing from what it said.
            assert len(set(published) - done) <= 10

    async def test_what_a_killed_publisher_was_told_is_kept(self, harness: SharedQueueHarness) -> None:
        async with harness.open() as queue:
            async with child(harness, "publish", name="a", count=1_000_000) as publisher:
                for _ in range(100):
                    await publisher.line()
                publisher.process.send_signal(signal.SIGKILL)
                told = await publisher.rest()
            totals = await queue.totals()
            assert totals.received >= len(told) >= 100
            consumer = await queue.subscribe(SUBSCRIPTION)
            assert set(told) <= set(bodies(await take(consumer, totals.received)))
            await consumer.close()
        async with harness.open() as queue:
            assert (await queue.totals()).received == totals.received

    async def test_a_paused_consumer_can_not_acknowledge_what_has_moved(self, harness: SharedQueueHarness) -> None:
        async with harness.open() as queue:
            for number in range(8):
                await queue.publish(publication(f"key-{number}", f"{number}"))
            async with child(harness, "hold", count=8) as paused:
                await paused.until("holding")
                consumer = await in_place_of(paused, queue, harness)
                again = await take(consumer, 8)
                assert sorted(bodies(again)) == [f"{number}" for number in range(8)]
                paused.process.send_signal(signal.SIGCONT)
                await paused.tell("ack")
                await paused.until("lost")
                assert (await queue.totals()).stored == 0
                await consumer.ack([stored(message) for message in again])
            totals = await until(lambda totals: totals.pending == 0, queue)
            assert totals.stored == 8
            assert_adds_up(totals)
            await consumer.close()
