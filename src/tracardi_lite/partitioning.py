"""Names of time partitions, as the protocol writes them (§4.1): ``2026-year``, ``2026-q4``, ``2026-11``, ``2026-1123``.

Chosen by received time in UTC and written down with the record; never computed again for a record that exists.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime

PERIODS = ("year", "quarter", "month", "day")


def partition_of(period: str, at_ms: int) -> str:
    """The partition that holds ``at_ms`` (ms since the epoch). ``period`` is one of ``PERIODS``."""
    at = datetime.fromtimestamp(at_ms / 1000, UTC)
    match period:
        case "year":
            return f"{at.year}-year"
        case "quarter":
            return f"{at.year}-q{(at.month - 1) // 3 + 1}"
        case "month":
            return f"{at.year}-{at.month}"
        case "day":
            # The original writes the day unpadded too, so that 2024-111 is both 11 January and 1 November.
            return f"{at.year}-{at.month}{at.day:02d}"
    raise ValueError(f"no such period: {period}")


def _span(name: str) -> tuple[int, int, int] | None:
    """(year, month, day) of a partition's first day, or None for what is not a partition's name."""
    if match := re.fullmatch(r"(\d{4})-year", name):
        return int(match[1]), 1, 1
    if match := re.fullmatch(r"(\d{4})-q([1-4])", name):
        return int(match[1]), int(match[2]) * 3 - 2, 1
    if match := re.fullmatch(r"(\d{4})-(\d{1,2})", name):
        return int(match[1]), int(match[2]), 1
    if match := re.fullmatch(r"(\d{4})-(\d{1,2})(\d{2})", name):
        return int(match[1]), int(match[2]), int(match[3])
    return None


def starts_ms(name: str) -> int:
    """Where a partition begins, ms since the epoch. Raises ValueError for an unknown form."""
    span = _span(name)
    if span is None:
        raise ValueError(f"not a partition's name: {name}")
    return int(datetime(*span, tzinfo=UTC).timestamp() * 1000)


def previous(name: str) -> str:
    """The partition before this one."""
    period = period_of(name)
    return partition_of(period, starts_ms(name) - 1)


def period_of(name: str) -> str:
    """Which period a name is of. Raises ValueError for an unknown form."""
    if name.endswith("-year"):
        return "year"
    if "-q" in name:
        return "quarter"
    if re.fullmatch(r"\d{4}-\d{1,2}", name):
        return "month"
    if re.fullmatch(r"\d{4}-\d{3,4}", name):
        return "day"
    raise ValueError(f"not a partition's name: {name}")
