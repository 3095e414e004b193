"""When a batch is full, case by case."""

from __future__ import annotations

import pytest

from tracardi_lite.flush.batch import Batch, Limits

LIMITS = Limits(events=10, bytes=1000, timeout_s=30.0, idle_s=1.0)


def filled(*additions: tuple[int, int, float], limits: Limits = LIMITS) -> Batch[int]:
    batch: Batch[int] = Batch(limits)
    for number, (events, size, at) in enumerate(additions):
        batch.add(number, events, size, at)
    return batch


def test_an_empty_batch_is_never_due() -> None:
    batch = filled()
    assert batch.reason(1e9) is None
    assert batch.due_at() == float("inf")


@pytest.mark.parametrize(
    ("additions", "now", "reason"),
    [
        ([(10, 1, 0.0)], 0.0, "full"),
        ([(4, 1, 0.0), (7, 1, 0.0)], 0.0, "full"),
        ([(1, 1000, 0.0)], 0.0, "bytes"),
        ([(1, 1, 0.0)], 0.999, None),
        ([(1, 1, 0.0)], 1.0, "idle"),
        ([(1, 1, 0.0), (1, 1, 0.9)], 1.5, None),
        ([(1, 1, 0.1 * i) for i in range(5)], 30.0, "timeout"),
    ],
)
def test_the_first_limit_that_is_reached_is_the_reason(
    additions: list[tuple[int, int, float]], now: float, reason: str | None
) -> None:
    assert filled(*additions).reason(now) == reason


def test_a_message_without_events_counts_as_one() -> None:
    assert filled(*[(0, 1, 0.0)] * 10).reason(0.0) == "full"


def test_idle_zero_means_never_idle() -> None:
    batch = filled((1, 1, 0.0), limits=Limits(events=10, bytes=1000, timeout_s=30.0, idle_s=0.0))
    assert batch.due_at() == 30.0
    assert batch.reason(29.9) is None
    assert batch.reason(30.0) == "timeout"
