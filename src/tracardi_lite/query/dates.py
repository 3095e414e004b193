"""Dates in the where-language: compared as text, after both sides are brought to one spelling.

Records spell times in UTC: ``2026-11-23T15:51:00.120+00:00``, ``2026-11-23 15:51:00Z``, or a day alone. Without the
``T``, the offset, and the zeros at the end, they sort as text in the order of time: what is cut off is the least that
could stand there. Times with another offset are compared as they are written.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

# ``comparable`` in the words that every store's query language has; SQL says the same with replace() and rtrim().
REPLACEMENTS = (("T", " "), ("Z", ""), ("+00:00", ""))
TRIMMED = "0:. "

_DATE = re.compile(
    r"(?P<day>\d{4}-\d{2}-\d{2})"
    r"(?:[T ](?P<hour>\d{2}):(?P<minute>\d{2})(?::(?P<second>\d{2})(?:\.(?P<fraction>\d{1,9}))?)?"
    r"(?P<zone>Z|[+-]\d{2}:?\d{2})?)?"
)


def normal(text: str) -> str | None:
    """A date in the one spelling, in UTC and without an offset; None for what is not a date.

    Precision is kept as written: a day stays a day (``2026-11-23``), so that ``>=`` and ``<`` mean its midnight.
    """
    match = _DATE.fullmatch(text)
    if match is None:
        return None
    try:
        at = datetime.fromisoformat(match["day"])
    except ValueError:
        return None
    if match["hour"] is None:
        return match["day"]
    hour, minute, second = int(match["hour"]), int(match["minute"]), int(match["second"] or 0)
    if hour > 23 or minute > 59 or second > 59:
        return None
    at = at.replace(hour=hour, minute=minute, second=second)
    zone = match["zone"]
    if zone and zone != "Z":
        offset = timedelta(hours=int(zone[1:3]), minutes=int(zone[-2:]))
        try:
            at = at - offset if zone[0] == "+" else at + offset
        except OverflowError:
            return None
    fraction = f".{match['fraction']}" if match["fraction"] else ""
    return at.isoformat(sep=" ", timespec="seconds") + fraction


def comparable(text: str) -> str:
    """What stands in for a date's text, a record's or a normal one, when two are ordered."""
    for old, new in REPLACEMENTS:
        text = text.replace(old, new)
    return text.rstrip(TRIMMED)


def floor_ms(normal_text: str) -> int:
    """Ms since the epoch of a normal date, rounded down."""
    day_and_second, _, fraction = normal_text.partition(".")
    at = datetime.fromisoformat(day_and_second).replace(tzinfo=UTC)
    return int(at.timestamp()) * 1000 + int((fraction + "000")[:3])
