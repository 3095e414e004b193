"""What the log has of writers beyond their own counts: exact, whoever dies, and read no further than needed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from tracardi_lite.backends.queue.pulsar import log, scan
from tracardi_lite.backends.queue.pulsar.counts import Counts, Written
from tracardi_lite.backends.queue.pulsar.ledger import UNTOLD_MAX_S
from tracardi_lite.backends.queue.pulsar.log import Logged
from tracardi_lite.backends.queue.pulsar.names import names
from tracardi_lite.backends.queue.pulsar.scan import LATE_MS, LEEWAY_MS, Scan
from tracardi_lite.settings import Settings

PARTITIONS = 2
WRITERS = "abc"
BURST = 2
START_MS = 1_800_000_000_000
UNTOLD_MAX_MS = int(UNTOLD_MAX_S * 1000)


class World:
    """A log of two partitions, writers, and what they have told of themselves."""

    def __init__(self) -> None:
        self.now_ms = START_MS
        self.logs: list[list[Logged]] = [[] for _ in range(PARTITIONS)]
        self.told: dict[str, Counts] = {}
        self.heard_ms: dict[str, int] = {}
        self.dead: set[str] = set()
        self.read = 0
        """Messages that were read so far."""
        self.searches = 0
        """How often a place in the log was looked for by time."""
        self.scan = Scan(None, names(Settings()))  # type: ignore[arg-type]

    def messages(self, writer: str, number: int) -> list[Logged]:
        return [message for message in self.logs[number] if message.writer == writer.encode()]

    def publish(self, writer: str, number: int) -> None:
        if writer in self.dead or self.now_ms - self.heard_ms.get(writer, self.now_ms) > UNTOLD_MAX_MS:
            return
        at = (7, len(self.logs[number]), 0)
        self.logs[number].append(Logged(at, self.now_ms, 1, False, writer.encode()))
        if number not in self.told.get(writer, Counts()).published:
            self.report(writer)

    def report(self, writer: str, in_flight: int = 0) -> None:
        """``in_flight``: how many of each partition have no receipt yet, and so are not counted."""
        if writer in self.dead:
            return
        since_ms = self.now_ms
        published = {}
        for number in range(PARTITIONS):
            mine = self.messages(writer, number)
            before = self.told.get(writer, Counts()).published.get(number, Written()).messages
            counted = max(len(mine) - in_flight, before, min(1, len(mine)))
            if counted:
                published[number] = Written(counted, counted, 0, mine[counted - 1].position)
            since_ms = min([since_ms, *(message.published_ms for message in mine[counted:])])
        self.told[writer] = Counts(writer=writer.encode(), published=published, since_ms=since_ms)
        self.heard_ms[writer] = self.now_ms

    async def read_log(self, _blocking: Any, topic: str, start: Any) -> AsyncGenerator[list[Logged], None]:
        messages = self.logs[int(topic.rpartition("-")[2])]
        if isinstance(start, int):
            self.searches += 1
            found = [message for message in messages if message.published_ms >= start]
        else:
            at = start.ledger_id(), start.entry_id(), start.batch_index()
            found = [message for message in messages if message.position >= at]
        for place in range(0, len(found), BURST):
            burst = found[place : place + BURST]
            self.read += len(burst)
            yield burst

    async def ask(self, wanted: list[str]) -> dict[str, dict[int, int]]:
        completed = await self.scan.complete(self.told, wanted, self.heard_ms)
        return {
            name: {number: written.messages for number, written in counts.published.items()}
            for name, counts in completed.items()
        }

    def truth(self, wanted: list[str]) -> dict[str, dict[int, int]]:
        found = {name: {n: len(self.messages(name, n)) for n in range(PARTITIONS)} for name in wanted}
        return {name: {n: count for n, count in counts.items() if count} for name, counts in found.items()}


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    made = World()
    monkeypatch.setattr(log, "read", made.read_log)
    return made


_writer = st.sampled_from(WRITERS)
_publish = st.tuples(st.just("publish"), _writer, st.integers(0, PARTITIONS - 1))
_ask = st.tuples(st.just("ask"), _writer, st.integers(0, 2))
_steps = st.lists(
    st.one_of(
        _publish,
        _publish,
        st.tuples(st.just("report"), _writer, st.integers(0, 3)),
        st.tuples(st.just("kill"), _writer, st.just(0)),
        st.tuples(st.just("pass"), _writer, st.integers(1, 4000) | st.integers(1, 60_000)),
        _ask,
        _ask,
    ),
    min_size=30,
    max_size=80,
)


@settings(max_examples=400)
@given(_steps)
def test_counts_are_completed_whoever_dies_and_whenever_somebody_asks(steps: list[tuple[str, str, int]]) -> None:
    made = World()

    async def run() -> None:
        for what, writer, number in steps:
            match what:
                case "publish":
                    made.publish(writer, number)
                case "report":
                    made.report(writer, number)
                case "kill":
                    made.dead.add(writer)
                case "pass":
                    made.now_ms += number
                case "ask":
                    wanted = [name for name in made.told if name == writer or number == 2]
                    assert await made.ask(wanted) == made.truth(wanted)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(scan.log, "read", made.read_log)
        asyncio.run(run())


@pytest.mark.asyncio
async def test_of_a_log_full_of_others_messages_only_a_silent_writer_s_last_moments_are_read(world: World) -> None:
    for second in range(600):
        world.publish("a", 0)
        world.report("a")
        if second < 100:
            world.publish("b", 0)
            world.report("b", in_flight=1)
        world.now_ms += 1000
    assert await world.ask(["b"]) == {"b": {0: 100}}
    seconds = (LATE_MS + 2 * LEEWAY_MS) // 1000
    assert world.read <= 2 * seconds


@pytest.mark.asyncio
async def test_what_was_read_is_not_read_again(world: World) -> None:
    for _ in range(5):
        world.publish("a", 0)
    assert await world.ask(["a"]) == {"a": {0: 5}}
    before = world.read
    assert await world.ask(["a"]) == {"a": {0: 5}}
    assert world.read - before <= 1  # the last one, to go on from
    world.publish("a", 0)
    assert await world.ask(["a"]) == {"a": {0: 6}}
    assert world.read - before <= 3


@pytest.mark.asyncio
async def test_a_log_at_rest_is_not_searched_by_time_again(world: World) -> None:
    for _ in range(5):
        world.publish("a", 0)
    for _ in range(5):
        world.now_ms += 60_000
        world.report("a")
        before = world.searches
        assert await world.ask(["a"]) == {"a": {0: 5}}
    assert world.searches == before <= 1


@pytest.mark.asyncio
async def test_who_has_published_nothing_needs_no_reading(world: World) -> None:
    world.publish("a", 0)
    world.report("b")
    assert await world.ask(["b"]) == {"b": {}}
    assert world.read == 0
