"""Names of time partitions, as the protocol writes them (§4.1): ``2026-year``, ``2026-q4``, ``2026-11``, ``2026-1123``.

Chosen by received time in UTC and written down with the record; never computed again for a record that exists. Each
name is of exactly one period and has one spelling, so names can be told apart, ordered and taken back to a time.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import UTC, datetime
from functools import lru_cache

PERIODS = ("year", "quarter", "month", "day")

# Days have three or four digits and months one or two, so that the two are never taken for each other.
_FORMS = (
    ("year", re.compile(r"([0-9]{4})-year")),
    ("quarter", re.compile(r"([0-9]{4})-q([1-4])")),
    ("month", re.compile(r"([0-9]{4})-([1-9][0-9]?)")),
    ("day", re.compile(r"([0-9]{4})-([1-9][0-9]?)([0-9]{2})")),
)


def partition_of(period: str, at_ms: int) -> str:
    """The partition that holds ``at_ms`` (ms since the epoch, years 1 to 9999). ``period`` is one of ``PERIODS``."""
    at = datetime.fromtimestamp(at_ms // 1000, UTC)
    match period:
        case "year":
            return f"{at.year:04d}-year"
        case "quarter":
            return f"{at.year:04d}-q{(at.month - 1) // 3 + 1}"
        case "month":
            return f"{at.year:04d}-{at.month}"
        case "day":
            # The original writes the day unpadded too, so that 2024-111 is both 11 January and 1 November.
            return f"{at.year:04d}-{at.month}{at.day:02d}"
    raise ValueError(f"no such period: {period}")


def period_of(name: str) -> str:
    """Which period a name is of. Raises ValueError for what is not a partition's name."""
    return _parse(name)[0]


def starts_ms(name: str) -> int:
    """Where a partition begins, ms since the epoch. Raises ValueError for what is not a partition's name."""
    return _parse(name)[1]


def is_name(name: str) -> bool:
    """Whether it is a partition's name, in its one spelling; safe then as a part of a file's or an index's name."""
    try:
        _parse(name)
    except ValueError:
        return False
    return True


def previous(name: str) -> str:
    """The partition before this one, of the same period. Raises ValueError where there is none (year 1)."""
    period, start = _parse(name)
    return partition_of(period, start - 1)


def following(name: str) -> str:
    """The partition after this one, of the same period. Raises ValueError where there is none (year 9999)."""
    period, start = _parse(name)
    # Longer than the longest period, shorter than it and the shortest next one together.
    days = {"year": 367, "quarter": 93, "month": 32, "day": 1}[period]
    return partition_of(period, start + days * 86_400_000)


def newest_first(names: Iterable[str]) -> list[str]:
    """By the time at which they begin, latest first."""
    return sorted(names, key=starts_ms, reverse=True)


@lru_cache(maxsize=4096)
def _parse(name: str) -> tuple[str, int]:
    for period, form in _FORMS:
        if match := form.fullmatch(name):
            number = [int(digits) for digits in match.groups()]
            year, month, day = (*number, 1, 1)[:3]
            if period == "quarter":
                month = month * 3 - 2
            # An impossible date (2026-13, 2026-230) is datetime's own ValueError.
            return period, int(datetime(year, month, day, tzinfo=UTC).timestamp()) * 1000
    raise ValueError(f"not a partition's name: {name!r}")
