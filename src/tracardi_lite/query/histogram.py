"""What a histogram's answer looks like, the same from every store that counts for itself.

Steps are half-open, start at the query's ``from_ms`` and all are there, empty ones with zeros. With a group each bar
has the same keys: the ``top`` names by total count (ties by name). Other values, and records without one, are in no
bar.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tracardi_lite.errors import BadInput

UNGROUPED = "count"
"""The one bucket of a histogram without a group, as the protocol names it."""

STEPS_MAX = 10_000
"""More bars than any screen has pixels; each is a dict in memory and in the answer."""


def steps(from_ms: int | None, to_ms: int | None, step_ms: int) -> tuple[int, int]:
    """(start of the first step, number of steps). ``BadInput`` 422 without both ends, or for too many steps."""
    if from_ms is None or to_ms is None:
        raise BadInput(422, "a histogram needs a start and an end")
    if step_ms < 1:
        raise BadInput(422, "a histogram's step is at least 1 ms")
    count = max(0, -((from_ms - to_ms) // step_ms))
    if count > STEPS_MAX:
        raise BadInput(422, f"a histogram has at most {STEPS_MAX} steps, not {count}: take a longer step")
    return from_ms, count


def bucket_name(value: Any) -> str | None:
    """A value's bucket: its text, or its JSON spelling. None for null and for objects, which are in no bucket."""
    match value:
        case str():
            return value
        case bool():
            return "true" if value else "false"
        case int() | float():
            return repr(value)
    return None


def top_names(totals: Mapping[str, int], top: int) -> list[str]:
    """The ``top`` names with most, ties by name."""
    return sorted(totals, key=lambda name: (-totals[name], name))[:top]


def fill(
    first_ms: int, step_ms: int, count: int, counts: Mapping[tuple[int, str], int], names: Sequence[str]
) -> list[tuple[int, dict[str, int]]]:
    """From counts by (step, name) to every step's start and counts of ``names``, zeros included."""
    return [(first_ms + step * step_ms, {name: counts.get((step, name), 0) for name in names}) for step in range(count)]
