"""One consumer, many tasks: turns, giving way, and partitions that have moved."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from tracardi_lite.errors import LeaseLost, Unavailable
from tracardi_lite.flush.health import WorkerHealth
from tracardi_lite.flush.retry import Backoff, Stopped
from tracardi_lite.pipeline.hold import Hold
from tracardi_lite.ports.queue import DeadLetter, Done, Message, Tally
from tracardi_lite.testing.clock import FakeClock, eventually


class Consumer:
    """Notes what is called, and that nothing is called meanwhile."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.moved: set[str] = set()
        self.away = 0
        self.letters: list[DeadLetter] = []
        self._busy = False

    async def receive(self, max_messages: int, max_bytes: int, timeout_s: float) -> list[Message]:
        assert not self._busy, "for one task at a time"
        self._busy = True
        self.calls.append("receive")
        try:
            await asyncio.sleep(timeout_s)
            return []
        finally:
            self._busy = False

    async def ack(self, done: Sequence[Done], dead: Sequence[DeadLetter] = ()) -> None:
        assert not self._busy
        self.calls.append("ack " + ",".join(one.message.stream for one in done))
        if self.away:
            self.away -= 1
            raise Unavailable("queue", "away")
        if any(one.message.stream in self.moved for one in done):
            raise LeaseLost("moved")
        self.letters += dead

    async def nack(self, messages: Sequence[Message], delay_s: float) -> None:
        assert not self._busy
        self.calls.append("nack")
        if any(message.stream in self.moved for message in messages):
            raise LeaseLost("moved")

    async def release(self, messages: Sequence[Message]) -> None:
        assert not self._busy
        self.calls.append(f"release {len(messages)}")

    async def close(self) -> None:
        self.calls.append("close")


def message(stream: str, position: int = 0) -> Message:
    return Message("k", f"{stream}{position}".encode(), b"", 1, stream, (position,), 0)


def letter(of: Message) -> DeadLetter:
    return DeadLetter("id", of.key, of.head, of.body, 1, "why", 0)


class Bench:
    def __init__(self) -> None:
        self.consumer = Consumer()
        self.clock = FakeClock()
        self.health = WorkerHealth(running=True)
        self.stop = asyncio.Event()
        self.hold = Hold(self.consumer, self.clock, Backoff(1.0, 4.0, draw=lambda: 1.0), self.health, self.stop)


async def test_a_receive_that_waits_gives_way_to_an_acknowledgement() -> None:
    bench = Bench()
    receiving = asyncio.create_task(bench.hold.receive(10, 100, 3600.0))
    await eventually(lambda: bench.consumer.calls == ["receive"])
    await bench.hold.ack([Done(message("a"), Tally(1))], [])
    assert await receiving == []
    assert bench.consumer.calls == ["receive", "ack a"]


async def test_a_receive_does_not_wait_while_others_do() -> None:
    bench = Bench()
    one, two = Done(message("a"), Tally(1)), Done(message("b"), Tally(1))
    acks = asyncio.gather(bench.hold.ack([one], []), bench.hold.ack([two], []))
    await asyncio.wait_for(asyncio.gather(acks, bench.hold.receive(10, 100, 0.0)), 10)
    assert sorted(bench.consumer.calls) == ["ack a", "ack b", "receive"]


async def test_a_cancelled_receive_is_cancelled() -> None:
    bench = Bench()
    receiving = asyncio.create_task(bench.hold.receive(10, 100, 3600.0))
    await eventually(lambda: bench.consumer.calls == ["receive"])
    receiving.cancel()
    with pytest.raises(asyncio.CancelledError):
        await receiving
    await bench.hold.release([message("a")])


async def test_partitions_that_have_moved_do_not_keep_the_others_from_being_settled() -> None:
    bench = Bench()
    bench.consumer.moved = {"b"}
    messages = [message("a"), message("b"), message("c")]
    await bench.hold.ack([Done(one, Tally(dead=1)) for one in messages], [letter(one) for one in messages])
    assert bench.consumer.calls == ["ack a,b,c", "ack a", "ack b", "ack c"]
    assert [letter.head for letter in bench.consumer.letters] == [b"a0", b"c0"], "letters go with their messages"


async def test_putting_back_what_has_moved_is_no_error() -> None:
    bench = Bench()
    bench.consumer.moved = {"a"}
    await bench.hold.put_back(message("a"), 1.0, lambda: [message("a", 1)])
    assert bench.consumer.calls == ["nack"]


async def test_a_queue_that_is_away_is_waited_for_and_shown() -> None:
    bench = Bench()
    bench.consumer.away = 2
    task = asyncio.create_task(bench.hold.ack([Done(message("a"), Tally(1))], []))
    await eventually(lambda: bench.clock.sleepers > 0)
    assert bench.health.queue_down_since is not None
    bench.clock.advance(1.0)
    await eventually(lambda: len(bench.consumer.calls) == 2 and bench.clock.sleepers > 0)
    bench.clock.advance(2.0)
    await task
    assert bench.health.queue_down_since is None


async def test_a_worker_that_stops_waits_for_no_queue() -> None:
    bench = Bench()
    bench.consumer.away = 100
    task = asyncio.create_task(bench.hold.ack([Done(message("a"), Tally(1))], []))
    await eventually(lambda: bench.clock.sleepers > 0)
    bench.stop.set()
    with pytest.raises(Stopped):
        await task
