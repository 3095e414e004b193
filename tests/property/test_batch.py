"""The batcher against a model that remembers everything and computes each answer from scratch."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from tracardi_lite.flush.batch import Batch, Limits

limits = st.builds(
    Limits,
    events=st.integers(1, 20),
    bytes=st.integers(1, 2000),
    timeout_s=st.integers(1, 50).map(float),
    idle_s=st.integers(0, 10).map(float),
)
additions = st.lists(st.tuples(st.integers(0, 8), st.integers(0, 500), st.integers(0, 6)), max_size=20)


def expected(taken: list[tuple[int, int, float]], limits: Limits, now: float) -> str | None:
    if not taken:
        return None
    if sum(max(1, events) for events, _, _ in taken) >= limits.events:
        return "full"
    if sum(size for _, size, _ in taken) >= limits.bytes:
        return "bytes"
    if now - taken[0][2] >= limits.timeout_s:
        return "timeout"
    if limits.idle_s and now - taken[-1][2] >= limits.idle_s:
        return "idle"
    return None


@given(limits, additions, st.integers(0, 60))
def test_a_batch_is_due_exactly_when_the_model_says_so(
    limits: Limits, additions: list[tuple[int, int, int]], later: int
) -> None:
    batch: Batch[int] = Batch(limits)
    taken: list[tuple[int, int, float]] = []
    now = 0.0
    for number, (events, size, pause) in enumerate(additions):
        now += pause
        assert batch.reason(now) == expected(taken, limits, now)
        if batch.reason(now):
            break
        batch.add(number, events, size, now)
        taken.append((events, size, now))
    assert batch.items == list(range(len(taken)))
    assert batch.reason(now + later) == expected(taken, limits, now + later)


@given(limits, additions)
def test_waiting_until_it_is_due_is_enough_and_not_a_moment_too_long(
    limits: Limits, additions: list[tuple[int, int, int]]
) -> None:
    batch: Batch[int] = Batch(limits)
    now = 0.0
    for number, (events, size, pause) in enumerate(additions):
        now += pause
        if batch.reason(now):
            break
        batch.add(number, events, size, now)
    if batch.items:
        due = batch.due_at()
        assert batch.reason(max(due, now))
        if due > now:
            assert batch.reason(due - 0.5) is None or due - 0.5 < now
