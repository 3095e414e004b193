"""From what people say of a time range to milliseconds, steps and labels. Pure.

A date is ``{"absolute": …, "delta": …}``: the absolute date (now, if none) moved by the delta. Absolute dates without
an offset are local to the request's ``timeZone``; so are the labels of a histogram.
"""

from __future__ import annotations

import calendar
from datetime import UTC, datetime, timedelta, tzinfo

import msgspec
from msgspec import Struct

from tracardi_lite.admin.inputs import wrong

DEFAULT_SPAN = timedelta(days=1)
DELTA_MAX = 1_000_000
BARS_MAX = 120
"""About as many as fit a chart; the step is the shortest that needs no more."""

SECOND_MS = 1000
STEPS: tuple[tuple[str, int], ...] = (
    ("+1s", 1),
    ("+10s", 10),
    ("+30s", 30),
    ("+1m", 60),
    ("+5m", 300),
    ("+10m", 600),
    ("+30m", 1800),
    ("+1h", 3600),
    ("+3h", 3 * 3600),
    ("+6h", 6 * 3600),
    ("+12h", 12 * 3600),
    ("+1d", 86400),
    ("+7d", 7 * 86400),
    ("+30d", 30 * 86400),
    ("+90d", 90 * 86400),
    ("+365d", 365 * 86400),
    ("+3650d", 3650 * 86400),
)


class Absolute(Struct):
    """A calendar date in parts, as the original's date picker sends it; months count from 1."""

    year: int | None = None
    month: int | None = None
    date: int | None = None
    hour: int | None = None
    minute: int | None = None
    second: int | None = None
    meridiem: str | None = None


class Delta(Struct):
    value: int
    entity: str
    """``second`` … ``year``, with or without an s."""
    type: str | None = None
    """``minus`` or ``plus``; without it the value's own sign counts."""


class Date(Struct):
    absolute: Absolute | str | None = None
    """Parts, or ISO 8601 text."""
    delta: Delta | None = None


class Span(Struct, frozen=True):
    from_ms: int
    to_ms: int
    zone: tzinfo


def span(earliest: Date | None, latest: Date | None, time_zone: str | None, now_ms: int) -> Span:
    """The range [from, to). Without a latest date: now; without an earliest: a day before the latest.

    Raises ``BadInput`` 422 for dates that there are not, and for an end before the start.
    """
    zone = _zone(time_zone)
    now = datetime.fromtimestamp(now_ms / 1000, UTC).astimezone(zone)
    to = now if latest is None else _resolve(latest, now, "maxDate")
    start = to - DEFAULT_SPAN if earliest is None else _resolve(earliest, now, "minDate")
    if to < start:
        raise wrong("body", "maxDate", "The range ends before it begins.")
    # The end is half-open: what happened in this very millisecond is in "until now".
    return Span(_ms(start), _ms(to) + (latest is None), zone)


def step_of(period: Span) -> tuple[str, int, Span]:
    """The histogram's step, by name and in ms, and the period widened to whole steps.

    Steps divide the zone's days evenly, with the offset that holds where the period begins.
    """
    length = period.to_ms - period.from_ms
    name, seconds = next(((name, s) for name, s in STEPS if length <= BARS_MAX * s * SECOND_MS), STEPS[-1])
    step = seconds * SECOND_MS
    offset = datetime.fromtimestamp(period.from_ms / 1000, period.zone).utcoffset() or timedelta()
    shift = int(offset.total_seconds() * 1000) % step
    start = (period.from_ms + shift) // step * step - shift
    count = max(1, -(-(period.to_ms - start) // step))
    return name, step, msgspec.structs.replace(period, from_ms=start, to_ms=start + count * step)


def label(at_ms: int, zone: tzinfo) -> str:
    return datetime.fromtimestamp(at_ms / 1000, zone).isoformat(timespec="seconds")


def _ms(at: datetime) -> int:
    return max(0, (at - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(milliseconds=1))


def _zone(name: str | None) -> tzinfo:
    if not name or name.upper() in ("UTC", "GMT", "Z"):
        return UTC
    from zoneinfo import ZoneInfo

    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError) as error:
        raise wrong("body", "timeZone", "Unknown time zone.") from error


def _resolve(date: Date, now: datetime, name: str) -> datetime:
    try:
        at = _absolute(date.absolute, now)
        moved = _moved(at, date.delta) if date.delta else at
    except (ValueError, OverflowError) as error:
        raise wrong("body", name, "There is no such date.") from error
    if not 1970 <= moved.year <= 9000:
        raise wrong("body", name, "There is no such date.")
    return moved


def _absolute(absolute: Absolute | str | None, now: datetime) -> datetime:
    if absolute is None:
        return now
    if isinstance(absolute, str):
        at = datetime.fromisoformat(absolute)
        return at if at.tzinfo else at.replace(tzinfo=now.tzinfo)
    if absolute.year is None:
        return now
    hour = absolute.hour or 0
    meridiem = (absolute.meridiem or "").lower()
    if meridiem and hour <= 12:
        hour = hour % 12 + (12 if meridiem == "pm" else 0)
    return datetime(
        absolute.year,
        absolute.month or 1,
        absolute.date or 1,
        hour,
        absolute.minute or 0,
        absolute.second or 0,
        tzinfo=now.tzinfo,
    )


def _moved(at: datetime, delta: Delta) -> datetime:
    value = {"minus": -abs(delta.value), "plus": abs(delta.value)}.get(delta.type or "", delta.value)
    if abs(value) > DELTA_MAX:
        raise ValueError("too far")
    match delta.entity.lower().removesuffix("s"):
        case "second" | "minute" | "hour" | "day" | "week" as unit:
            return at + timedelta(**{f"{unit}s": value})
        case "month":
            return _months(at, value)
        case "year":
            return _months(at, 12 * value)
    raise ValueError("no such unit")


def _months(at: datetime, months: int) -> datetime:
    """The same day of another month, or its last day."""
    year, month = divmod(at.year * 12 + at.month - 1 + months, 12)
    last = calendar.monthrange(year, month + 1)[1] if 1 <= year <= 9999 else 1
    return at.replace(year=year, month=month + 1, day=min(at.day, last))
