"""The protocol's names of partitions."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from tracardi_lite import partitioning


def ms(*date: int) -> int:
    return int(datetime(*date, tzinfo=UTC).timestamp() * 1000)


@pytest.mark.parametrize(
    ("period", "name", "before"),
    [
        ("year", "2026-year", "2025-year"),
        ("quarter", "2026-q1", "2025-q4"),
        ("month", "2026-1", "2025-12"),
        ("day", "2026-111", "2026-110"),
    ],
)
def test_the_names_of_a_day_in_january(period: str, name: str, before: str) -> None:
    assert partitioning.partition_of(period, ms(2026, 1, 11, 23, 59)) == name
    assert partitioning.previous(name) == before


def test_months_and_days_are_told_apart() -> None:
    assert partitioning.partition_of("month", ms(2024, 11, 1)) == "2024-11"
    assert partitioning.partition_of("day", ms(2024, 1, 11)) == "2024-111"
    assert partitioning.partition_of("day", ms(2024, 11, 1)) == "2024-1101"
    assert partitioning.period_of("2024-11") == "month"
    assert partitioning.period_of("2024-111") == "day"


@pytest.mark.parametrize(
    "name",
    [
        "",
        "2026",
        "2026-",
        "2026-0",
        "2026-01",
        "2026-13",
        "2026-q5",
        "2026-230",
        "2026-year ",
        "../x",
        "٢٠٢٦-1",
        "2026-q",
        "26-1",
    ],
)
def test_what_is_no_name_is_refused(name: str) -> None:
    assert not partitioning.is_name(name)
    for function in (partitioning.starts_ms, partitioning.period_of, partitioning.previous):
        with pytest.raises(ValueError, match=r"\S"):
            function(name)


def test_an_unknown_period_is_refused() -> None:
    with pytest.raises(ValueError, match="no such period: week"):
        partitioning.partition_of("week", 0)


def test_the_last_millisecond_belongs_to_the_old_period() -> None:
    midnight = ms(2026, 12, 1)
    assert partitioning.partition_of("month", midnight - 1) == "2026-11"
    assert partitioning.partition_of("month", midnight) == "2026-12"
