"""Batcher and retry policy under any order of calls."""

from __future__ import annotations

from collections import defaultdict

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from tracardi_lite.client import RetryPolicy
from tracardi_lite.client.batching import Batch, Batcher, Key
from tracardi_lite.client.identity import Aliases

EVENTS_MAX, BYTES_MAX, AGE_MAX_S, HOLD_EVENTS, HOLD_BYTES = 4, 40, 5.0, 30, 200
KEYS = [Key("s-1", None), Key("s-1", "p-1"), Key("s-2", None)]


class BatcherMachine(RuleBasedStateMachine):
    """Beside the real one, the simplest model: what was added and not yet taken, per key, in order."""

    def __init__(self) -> None:
        super().__init__()
        self.batcher = Batcher(
            events_max=EVENTS_MAX,
            bytes_max=BYTES_MAX,
            age_max_s=AGE_MAX_S,
            hold_events=HOLD_EVENTS,
            hold_bytes=HOLD_BYTES,
        )
        self.now = 0.0
        self.waiting: dict[Key, list[tuple[str, int, float]]] = defaultdict(list)
        self.in_flight: list[Batch] = []
        self.added = 0

    @rule(key=st.sampled_from(KEYS), size=st.integers(1, 60))
    def add(self, key: Key, size: int) -> None:
        if not self.batcher.fits(size):
            return
        due = self.batcher.due_in_s(self.now)
        self.added += 1
        sooner = self.batcher.add(key, str(self.added), b"x" * size, self.now)
        self.waiting[key].append((str(self.added), size, self.now))
        after = self.batcher.due_in_s(self.now)
        if after is not None and (due is None or after < due):
            assert sooner, "whoever waits would wait too long"

    @rule(seconds=st.floats(0, 7))
    def pass_time(self, seconds: float) -> None:
        self.now += seconds

    @rule(limit=st.integers(0, 4))
    def take(self, limit: int) -> None:
        taken = list(self.batcher.take(self.now, limit))
        assert len(taken) <= limit
        for batch in taken:
            assert batch.key not in [other.key for other in self.in_flight], "a key's batches go one at a time"
            expected, self.waiting[batch.key] = (
                self.waiting[batch.key][: len(batch.ids)],
                self.waiting[batch.key][len(batch.ids) :],
            )
            assert batch.ids == [id for id, _, _ in expected], "in the order in which they were added"
            assert batch.size == sum(size for _, size, _ in expected)
            assert len(batch.ids) <= EVENTS_MAX
            assert batch.size <= BYTES_MAX or len(batch.ids) == 1
            self.in_flight.append(batch)

    @precondition(lambda self: self.in_flight)
    @rule(data=st.data())
    def settle(self, data: st.DataObject) -> None:
        batch = data.draw(st.sampled_from(self.in_flight))
        self.in_flight.remove(batch)
        self.batcher.settle(batch)

    @rule()
    def close_open_and_run_dry(self) -> None:
        number = self.batcher.close_open()
        for batch in self.in_flight:
            self.batcher.settle(batch)
        self.in_flight.clear()
        left = [id for waiting in self.waiting.values() for id, _, _ in waiting]
        while batches := list(self.batcher.take(self.now, 2)):
            for batch in batches:
                for id in batch.ids:
                    left.remove(id)
                self.batcher.settle(batch)
        assert left == []
        assert self.batcher.settled(number)
        self.waiting.clear()

    @rule()
    def drain(self) -> None:
        ids = [id for batch in self.batcher.drain() for id in batch.ids]
        expected = [id for waiting in self.waiting.values() for id, _, _ in waiting]
        expected += [id for batch in self.in_flight for id in batch.ids]
        assert sorted(ids) == sorted(expected)
        self.waiting.clear()
        self.in_flight.clear()

    @invariant()
    def counts_what_it_holds_within_its_bounds(self) -> None:
        sizes = [size for waiting in self.waiting.values() for _, size, _ in waiting]
        held = sizes + [len(item) for batch in self.in_flight for item in batch.items]
        assert self.batcher.held_events == len(held) <= HOLD_EVENTS
        assert self.batcher.held_bytes == sum(held) <= HOLD_BYTES

    @invariant()
    def is_due_when_something_is_old_and_its_key_is_free(self) -> None:
        busy = {batch.key for batch in self.in_flight}
        for key, waiting in self.waiting.items():
            if waiting and key not in busy:
                due = self.batcher.due_in_s(self.now)
                assert due is not None
                assert due <= max(0.0, waiting[0][2] + AGE_MAX_S - self.now) + 1e-9


TestBatcher = BatcherMachine.TestCase


@given(
    tries=st.integers(1, 50),
    base=st.floats(0.001, 10),
    cap=st.floats(0.001, 100),
    bound=st.floats(0, 1000),
    tried=st.integers(1, 5000),
    elapsed=st.floats(0, 2000),
    draw=st.floats(0, 1, exclude_max=True),
    after=st.none() | st.floats(0, 2000),
)
def test_a_pause_keeps_every_bound(
    tries: int, base: float, cap: float, bound: float, tried: int, elapsed: float, draw: float, after: float | None
) -> None:
    policy = RetryPolicy(tries=tries, base_s=base, cap_s=cap, give_up_after_s=bound)

    pause = policy.pause(tried, elapsed, draw, after)

    if pause is None:
        longest = cap if after is None else after + min(base, cap)
        assert tried >= tries or elapsed + longest >= bound
    else:
        assert tried < tries
        assert pause >= (after or 0)
        assert elapsed + pause <= bound
        assert pause <= cap if after is None else pause <= after + base


@given(st.lists(st.tuples(st.sampled_from("abcdef"), st.sampled_from("abcdef")), max_size=40))
def test_an_alias_always_ends_at_the_last_answer(answers: list[tuple[str, str]]) -> None:
    aliases = Aliases()
    for sent, answered in answers:
        aliases.learn(sent, answered)
        assert aliases.survivor(sent) == answered
        assert aliases.survivor(answered) == answered
    for id in "abcdef":
        assert aliases.survivor(aliases.survivor(id)) == aliases.survivor(id)
