"""Names of partitions lead back to their times, for every period and every millisecond."""

from __future__ import annotations

import re
from datetime import UTC, datetime

from hypothesis import given
from hypothesis import strategies as st

from tracardi_lite import partitioning

FIRST = int(datetime(2, 1, 1, tzinfo=UTC).timestamp() * 1000)
LAST = int(datetime(9998, 12, 31, tzinfo=UTC).timestamp() * 1000)
TIMES = st.integers(FIRST, LAST)
PERIODS = st.sampled_from(partitioning.PERIODS)


@given(period=PERIODS, at_ms=TIMES)
def test_a_name_gives_back_its_period_and_begins_at_or_before_what_it_holds(period: str, at_ms: int) -> None:
    name = partitioning.partition_of(period, at_ms)
    assert partitioning.is_name(name)
    assert partitioning.period_of(name) == period
    start = partitioning.starts_ms(name)
    assert start <= at_ms
    assert partitioning.partition_of(period, start) == name
    assert partitioning.partition_of(period, start - 1) != name


@given(period=PERIODS, at_ms=TIMES)
def test_the_previous_partition_ends_where_this_one_begins(period: str, at_ms: int) -> None:
    name = partitioning.partition_of(period, at_ms)
    before = partitioning.previous(name)
    assert partitioning.period_of(before) == period
    assert partitioning.starts_ms(before) < partitioning.starts_ms(name)
    assert partitioning.partition_of(period, partitioning.starts_ms(name) - 1) == before


@given(period=PERIODS, one=TIMES, two=TIMES)
def test_later_times_are_never_in_earlier_partitions(period: str, one: int, two: int) -> None:
    early, late = sorted((one, two))
    names = [partitioning.partition_of(period, early), partitioning.partition_of(period, late)]
    assert partitioning.starts_ms(names[0]) <= partitioning.starts_ms(names[1])
    assert partitioning.newest_first(set(names))[0] == names[1]


@given(one=PERIODS, two=PERIODS, at_ms=TIMES, other_ms=TIMES)
def test_no_name_means_two_partitions(one: str, two: str, at_ms: int, other_ms: int) -> None:
    first, second = partitioning.partition_of(one, at_ms), partitioning.partition_of(two, other_ms)
    if first == second:
        assert one == two
        assert partitioning.starts_ms(first) == partitioning.starts_ms(second)


@given(name=st.one_of(st.text(max_size=12), st.from_regex(r"[0-9]{4}-[0-9a-z]{1,5}", fullmatch=True)))
def test_a_text_is_a_name_only_in_the_one_spelling_and_then_safe_in_a_file_name(name: str) -> None:
    if partitioning.is_name(name):
        assert partitioning.partition_of(partitioning.period_of(name), partitioning.starts_ms(name)) == name
        assert re.fullmatch(r"[0-9]{4}-[a-z0-9]{1,5}", name)
