"""Time ranges: what people may say, and what a histogram makes of it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tracardi_lite.admin.ranges import BARS_MAX, STEPS, Date, Span, label, span, step_of
from tracardi_lite.errors import BadInput

NOW = datetime(2027, 3, 31, 12, 30, 45, tzinfo=UTC)
NOW_MS = int(NOW.timestamp() * 1000)
ZONES = ["UTC", "Europe/Warsaw", "Asia/Kolkata", "America/St_Johns", "Pacific/Auckland"]


def date(value: Any) -> Date:
    return msgspec.convert(value, Date)


def utc(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp() * 1000)


def test_without_dates_it_is_the_last_day() -> None:
    found = span(None, None, None, NOW_MS)
    assert (found.from_ms, found.to_ms) == (NOW_MS - 86_400_000, NOW_MS + 1)


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"absolute": "2027-01-02T03:04:05Z"}, "2027-01-02T03:04:05"),
        ({"absolute": "2027-01-02T03:04:05+02:00"}, "2027-01-02T01:04:05"),
        ({"absolute": "2027-01-02"}, "2027-01-02T00:00:00"),
        ({"absolute": {"year": 2027}}, "2027-01-01T00:00:00"),
        (
            {"absolute": {"year": 2027, "month": 2, "date": 3, "hour": 4, "minute": 5, "second": 6}},
            "2027-02-03T04:05:06",
        ),
        ({"absolute": {"year": 2027, "hour": 12, "meridiem": "AM"}}, "2027-01-01T00:00:00"),
        ({"absolute": {"year": 2027, "hour": 12, "meridiem": "pm"}}, "2027-01-01T12:00:00"),
        ({"absolute": {"year": 2027, "hour": 3, "meridiem": "PM"}}, "2027-01-01T15:00:00"),
        ({"absolute": None, "delta": None}, "2027-03-31T12:30:45"),
        ({"absolute": {}}, "2027-03-31T12:30:45"),
        ({"delta": {"value": -1, "entity": "month"}}, "2027-02-28T12:30:45"),
        ({"delta": {"type": "minus", "value": -1, "entity": "month"}}, "2027-02-28T12:30:45"),
        ({"delta": {"type": "minus", "value": 2, "entity": "days"}}, "2027-03-29T12:30:45"),
        ({"delta": {"value": -1, "entity": "years"}}, "2026-03-31T12:30:45"),
        ({"delta": {"value": -3, "entity": "week"}}, "2027-03-10T12:30:45"),
        ({"absolute": "2024-02-29", "delta": {"type": "plus", "value": 1, "entity": "year"}}, "2025-02-28T00:00:00"),
    ],
    ids=str,
)
def test_dates_as_people_and_the_originals_picker_write_them(value: Any, expected: str) -> None:
    assert span(date(value), None, None, NOW_MS).from_ms == utc(expected)


def test_dates_without_an_offset_are_local() -> None:
    found = span(date({"absolute": "2027-01-02"}), date({"absolute": {"year": 2027, "month": 7}}), ZONES[1], NOW_MS)
    assert (found.from_ms, found.to_ms) == (utc("2027-01-01T23:00:00"), utc("2027-06-30T22:00:00"))


@pytest.mark.parametrize(
    "value",
    [
        {"absolute": "yesterday"},
        {"absolute": {"year": 2027, "month": 13}},
        {"absolute": {"year": 2027, "hour": 25}},
        {"absolute": {"year": 99999}},
        {"absolute": "1969-12-31"},
        {"absolute": "9999-12-31T23:59:59-23:00"},
        {"delta": {"value": -1, "entity": "fortnight"}},
        {"delta": {"value": -(10**9), "entity": "second"}},
        {"delta": {"value": -999_999, "entity": "year"}},
        {"delta": {"value": -999_999, "entity": "week"}},
        {"delta": {"value": 1, "entity": "day"}},
    ],
    ids=str,
)
def test_dates_that_there_are_not_are_bad_input(value: Any) -> None:
    with pytest.raises(BadInput) as caught:
        span(date(value), None, None, NOW_MS)
    assert caught.value.status == 422


@pytest.mark.parametrize("zone", ["Nowhere/Land", "../../etc/passwd", "/etc/passwd", "Europe", "\0", "é" * 500])
def test_unknown_time_zones_are_bad_input(zone: str) -> None:
    with pytest.raises(BadInput):
        span(None, None, zone, NOW_MS)


@given(st.integers(0, 4_000_000_000_000), st.integers(0, 10_000 * 86_400_000), st.sampled_from(ZONES))
def test_a_histogram_covers_the_range_in_whole_steps_and_few_bars(from_ms: int, length: int, zone: str) -> None:
    period = span(None, None, zone, NOW_MS)
    period = Span(from_ms, from_ms + length, period.zone)
    name, step, wide = step_of(period)
    assert dict(STEPS)[name] * 1000 == step
    assert wide.from_ms <= period.from_ms
    assert wide.to_ms >= period.to_ms
    assert wide.to_ms > wide.from_ms
    assert (wide.to_ms - wide.from_ms) % step == 0
    # At most one more than a range that was aligned already: half a step sticks out at each end.
    assert (wide.to_ms - wide.from_ms) // step <= BARS_MAX + 1
    assert period.from_ms - wide.from_ms < step
    if step <= 3_600_000:
        at = datetime.fromtimestamp(wide.from_ms / 1000, period.zone)
        midnight = at.replace(hour=0, minute=0, second=0, microsecond=0, fold=0)
        offset = at.utcoffset()
        assert offset is not None
        if midnight.utcoffset() == offset:
            assert (at - midnight).total_seconds() * 1000 % step == 0


def test_labels_are_local_times() -> None:
    zone = span(None, None, "Europe/Warsaw", NOW_MS).zone
    assert label(utc("2027-01-01T00:00:00"), zone) == "2027-01-01T01:00:00+01:00"
    assert label(utc("2027-07-01T00:00:00"), zone) == "2027-07-01T02:00:00+02:00"
