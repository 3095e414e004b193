"""The bulk write: verdicts, repetition, chunk sizes; the brake; the pauses; the letters."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from tracardi_lite.backends.store.memory import MemoryStore
from tracardi_lite.errors import Full, Unavailable
from tracardi_lite.flush import dead_letters
from tracardi_lite.flush.brake import ENOUGH, PROBE_EVERY_S, WINDOW, Brake
from tracardi_lite.flush.flusher import Flusher
from tracardi_lite.flush.health import GRACE_S, WorkerHealth
from tracardi_lite.flush.retry import Backoff, Stopped, wait
from tracardi_lite.metrics import Metrics
from tracardi_lite.ports.queue import Message
from tracardi_lite.ports.store import EventWrite, Outcome, RecordWrite, Verdict
from tracardi_lite.testing.clock import FakeClock, eventually
from tracardi_lite.testing.faults import Fault, Faults, FaultyStore

RETRY = Verdict(Outcome.RETRY, "too many requests")
NEVER = Verdict(Outcome.NEVER, "mapper_parsing_exception")


class Bench:
    """A flusher on a faulty memory store; ``sizes`` are those of its requests."""

    def __init__(self, events: int = 8, bytes: int = 1 << 20) -> None:
        self.clock = FakeClock()
        self.faults = Faults(clock=self.clock)
        self.health = WorkerHealth(running=True)
        self.metrics = Metrics()
        self.stop = asyncio.Event()
        self.sizes: list[int] = []
        store = FaultyStore(MemoryStore(), self.faults)
        inner = store.create_events

        async def create_events(events: Sequence[EventWrite]) -> list[Verdict]:
            self.sizes.append(len(events))
            return await inner(events)

        store.create_events = create_events  # type: ignore[method-assign]
        backoff = Backoff(1.0, 8.0, draw=lambda: 1.0)
        self.flusher = Flusher(
            store, self.clock, backoff, self.health, self.metrics, self.stop, events=events, bytes=bytes
        )

    async def pass_pauses(self, task: asyncio.Task[list[Verdict]]) -> list[float]:
        """Sit out every pause; how long each was."""
        pauses: list[float] = []
        while not task.done():
            await eventually(lambda: task.done() or self.clock.sleepers > 0)
            if not task.done():
                before = self.clock.monotonic()
                while self.clock.sleepers:
                    self.clock.advance(0.5)
                pauses.append(self.clock.monotonic() - before)
        return pauses


def event(id: str, doc: bytes = b"{}") -> EventWrite:
    return EventWrite(id, "2026-11", doc, "m", "t", "src", None, None, 0)


def events(count: int) -> list[EventWrite]:
    return [event(f"e{number}") for number in range(count)]


async def test_a_large_write_is_cut_into_requests() -> None:
    bench = Bench(events=8)
    verdicts = await bench.flusher.create(events(20))
    assert [verdict.outcome for verdict in verdicts] == [Outcome.STORED] * 20
    assert bench.sizes == [8, 8, 4]


async def test_requests_are_bounded_in_bytes_and_one_large_item_goes_alone() -> None:
    bench = Bench(events=100, bytes=100)
    await bench.flusher.create([event("a", b"x" * 60), event("b", b"x" * 60), event("c", b"x" * 500), event("d")])
    assert bench.sizes == [1, 1, 1, 1]


async def test_refused_items_are_tried_again_and_only_they() -> None:
    bench = Bench()
    refusals = {"e1": 2, "e3": 1}

    def refuse(write: EventWrite | RecordWrite) -> Verdict | None:
        refusals[write.id] = refusals.get(write.id, 0) - 1
        return RETRY if refusals[write.id] >= 0 else None

    bench.faults.refuse = refuse
    task = asyncio.create_task(bench.flusher.create(events(5)))
    pauses = await bench.pass_pauses(task)

    assert [verdict.outcome for verdict in await task] == [Outcome.STORED] * 5
    assert bench.sizes == [5, 2, 1]
    assert pauses == [1.0, 1.0]  # something went through each time, so the pauses start over
    assert bench.metrics.retries.value == 2


async def test_requests_shrink_while_refused_and_grow_again() -> None:
    bench = Bench(events=8)
    bench.faults.refuse = lambda write: RETRY if bench.flusher.request_items_max > 2 else None
    task = asyncio.create_task(bench.flusher.create(events(8)))
    await bench.pass_pauses(task)
    assert bench.sizes[:3] == [8, 4, 2]

    bench.faults.refuse = lambda write: None
    bench.sizes.clear()
    await bench.flusher.create(events(40))
    assert bench.sizes[0] < max(bench.sizes) == 8
    assert sum(bench.sizes) == 40


async def test_pauses_double_up_to_the_longest_and_honour_what_the_store_asks_for() -> None:
    bench = Bench()
    bench.faults.add(
        Fault("create_events", Unavailable("store", "away"), times=5),
        Fault("create_events", Full("store", "no space", retry_after_s=3.0)),
    )
    task = asyncio.create_task(bench.flusher.create(events(1)))
    assert await bench.pass_pauses(task) == [1.0, 2.0, 4.0, 8.0, 8.0, 8.0]


async def test_a_long_outage_shows_in_health_and_ends_with_the_first_success() -> None:
    bench = Bench()
    bench.faults.add(Fault("create_events", Unavailable("store", "away"), times=4))
    task = asyncio.create_task(bench.flusher.create(events(1)))
    await eventually(lambda: bench.clock.sleepers > 0)
    assert bench.health.problem(bench.clock.monotonic()) is None
    assert "store" in (bench.health.problem(bench.clock.monotonic() + GRACE_S + 1) or "")

    await bench.pass_pauses(task)
    assert bench.health.problem(bench.clock.monotonic() + 100) is None
    assert bench.health.last_write == bench.clock.monotonic()


async def test_a_verdict_of_never_is_no_durable_write() -> None:
    bench = Bench()
    bench.faults.refuse = lambda write: NEVER
    (verdict,) = await bench.flusher.create(events(1))
    assert verdict is NEVER
    assert bench.health.last_write is None


async def test_stopping_ends_a_retry_at_once() -> None:
    bench = Bench()
    bench.faults.add(Fault("create_events", Unavailable("store", "away"), times=100))
    task = asyncio.create_task(bench.flusher.create(events(1)))
    await eventually(lambda: bench.clock.sleepers > 0)
    bench.stop.set()
    with pytest.raises(Stopped):
        await task


async def test_waiting_for_an_event_ends_with_it_or_with_the_time() -> None:
    clock, event = FakeClock(), asyncio.Event()
    task = asyncio.create_task(wait(event, clock, 5.0))
    await eventually(lambda: clock.sleepers > 0)
    clock.advance(5.0)
    assert await task is False

    task = asyncio.create_task(wait(event, clock, 5.0))
    await eventually(lambda: clock.sleepers > 0)
    event.set()
    assert await task is True


async def test_a_wait_can_be_cancelled_at_any_moment() -> None:
    for turns in range(6):
        clock, event = FakeClock(), asyncio.Event()
        task = asyncio.create_task(wait(event, clock, 5.0))
        await eventually(lambda clock=clock: clock.sleepers > 0)  # type: ignore[misc]
        event.set()
        for _ in range(turns):
            await asyncio.sleep(0)
        if task.cancel():
            with pytest.raises(asyncio.CancelledError):
                await task
        else:
            assert await task is True


def test_a_pause_is_drawn_below_its_ceiling() -> None:
    backoff = Backoff(0.5, 30.0)
    assert [backoff.ceiling_s(n) for n in (1, 2, 3, 7, 1000)] == [0.5, 1.0, 2.0, 30.0, 30.0]
    assert all(0 <= backoff.pause_s(3) <= 2.0 for _ in range(100))
    assert backoff.pause_s(1, at_least_s=100.0) == 30.0


# --- the brake ---


def test_the_brake_ignores_a_few_deaths_and_engages_when_most_events_die() -> None:
    brake = Brake()
    assert not brake.note(ENOUGH - 1, ENOUGH - 1, now=0.0)
    assert brake.note(ENOUGH, ENOUGH, now=5.0)
    assert brake.engaged_since == 5.0


def test_the_brake_looks_at_recent_events_only() -> None:
    brake = Brake()
    for _ in range(20):
        assert not brake.note(WINDOW, 0, now=0.0)
    assert not brake.note(WINDOW // 2, WINDOW // 2, now=0.0)
    assert brake.note(WINDOW, WINDOW, now=0.0)


def test_an_engaged_brake_lets_one_probe_a_minute_through_and_ends_with_a_good_one() -> None:
    brake = Brake()
    brake.note(WINDOW, WINDOW, now=0.0)
    assert brake.permit(1.0) == PROBE_EVERY_S - 1.0
    assert brake.permit(PROBE_EVERY_S) == 0.0
    assert brake.permit(PROBE_EVERY_S) == PROBE_EVERY_S, "one lane only"
    brake.note(10, 10, now=61.0)
    assert brake.engaged_since is not None
    brake.note(10, 4, now=121.0)
    assert brake.engaged_since is None
    assert brake.permit(121.0) == 0.0


# --- dead letters ---


def message(position: int = 7) -> Message:
    return Message("k", b"head", b"body", 4, "s/0", (position,), published_ms=1_800_000_000_000, tries=2)


def test_a_letter_is_the_message_as_it_came_with_its_reason() -> None:
    letter = dead_letters.whole(message(), "x" * 10_000, now_ms=5)
    assert (letter.head, letter.body, letter.events, letter.indices, letter.tries) == (b"head", b"body", 4, None, 2)
    assert len(letter.reason) == dead_letters.REASON_LENGTH_MAX


def test_events_that_died_for_one_reason_share_a_letter() -> None:
    letters = dead_letters.some(message(), [(0, "a"), (2, "b"), (3, "a")], now_ms=5)
    assert [(letter.indices, letter.events, letter.reason) for letter in letters] == [([0, 3], 2, "a"), ([2], 1, "b")]
    assert len({letter.id for letter in letters}) == 2


def test_a_message_that_dies_again_has_the_same_letters() -> None:
    assert dead_letters.whole(message(), "a", 5).id == dead_letters.whole(message(), "b", 99).id
    assert dead_letters.whole(message(), "a", 5).id != dead_letters.whole(message(8), "a", 5).id
