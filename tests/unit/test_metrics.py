"""Metrics: what is counted is what is rendered, and the ledger adds up on the page too."""

from __future__ import annotations

import re

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tracardi_lite.ledger import ledger_of
from tracardi_lite.metrics import LABEL_SETS_MAX, PREFIX, Histogram, Metric, Metrics, table
from tracardi_lite.ports.queue import PartitionBacklog, Totals

TOTALS = Totals(
    received=100,
    replayed=4,
    stored=60,
    duplicate=7,
    rejected=5,
    dead_lettered=12,
    dead=8,
    pending=20,
    refused={"bot": 3, "too_large": 2},
)
BACKLOG = [
    PartitionBacklog("persistent://t/s/f-partition-0", "workers", 9, 12, 1_700_000_000_500),
    PartitionBacklog("persistent://t/s/f-partition-1", "workers", 0, 0, None),
]

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]


def samples(page: bytes) -> Samples:
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(page.decode())
        for sample in family.samples
    }


def value(page: bytes, name: str, **labels: str) -> float:
    return samples(page)[PREFIX + name, tuple(sorted(labels.items()))]


def test_a_counter_that_grew_is_rendered_grown() -> None:
    metrics = Metrics()
    metrics.retries.add()
    metrics.retries.value += 2
    metrics.requests.add("track", "2xx")
    metrics.requests.add("track", "2xx", count=4)
    metrics.requests.add("track", "5xx")
    page = metrics.render()
    assert value(page, "retries_total") == 3
    assert value(page, "requests_total", route="track", status="2xx") == 5
    assert value(page, "requests_total", route="track", status="5xx") == 1


def test_two_objects_do_not_count_into_each_other() -> None:
    one, other = Metrics(), Metrics()
    one.retries.add()
    assert value(other.render(), "retries_total") == 0


def test_a_gauge_follows_and_a_reading_is_asked_when_rendered() -> None:
    metrics = Metrics()
    metrics.in_flight_bytes.value += 10
    metrics.in_flight_bytes.value -= 4
    metrics.lane_backlog.set("0", value=3)
    assert (PREFIX + "queue_bytes", ()) not in samples(metrics.render())
    metrics.queue_bytes.read = lambda: 7
    page = metrics.render()
    assert value(page, "in_flight_bytes") == 6
    assert value(page, "lane_backlog", lane="0") == 3
    assert value(page, "queue_bytes") == 7


def test_a_histograms_buckets_are_inclusive_and_cumulative() -> None:
    metrics = Metrics()
    for events in (1, 500, 501, 1_000_000):
        metrics.flush_events.observe(events)
    page = metrics.render()
    assert value(page, "flush_events_bucket", le="1.0") == 1
    assert value(page, "flush_events_bucket", le="500.0") == 2
    assert value(page, "flush_events_bucket", le="1000.0") == 3
    assert value(page, "flush_events_bucket", le="+Inf") == 4
    assert value(page, "flush_events_count") == 4
    assert value(page, "flush_events_sum") == 1_001_002


def test_bounds_that_do_not_grow_are_a_bug_found_at_once() -> None:
    with pytest.raises(AssertionError):
        Histogram(Metric("x", "x", bounds=(2.0, 1.0)))


def test_label_values_from_outside_cannot_grow_the_page_without_bound() -> None:
    metrics = Metrics()
    for number in range(LABEL_SETS_MAX + 50):
        metrics.unavailable.add(f"part-{number}")
    assert len(metrics.unavailable.values) == LABEL_SETS_MAX + 1
    assert metrics.unavailable.values["other",] == 50


def test_a_wrong_number_of_labels_is_a_bug_found_at_once() -> None:
    with pytest.raises(ValueError, match="2 labels"):
        Metrics().requests.add("track")


def test_the_ledger_on_the_page_adds_up() -> None:
    page = Metrics().render(TOTALS)
    found = samples(page)
    rejected = sum(count for (name, _), count in found.items() if name == PREFIX + "events_rejected_total")
    assert value(page, "events_rejected_total", reason="bot") == 3
    assert value(page, "events_rejected_total", reason="not_saved") == 5
    assert value(page, "events_received_total") == 105
    gone = ("events_stored_total", "events_duplicate_total", "events_dead_lettered_total", "events_pending")
    come = value(page, "events_received_total") + value(page, "events_replayed_total")
    assert come == sum(value(page, name) for name in gone) + rejected
    assert value(page, "events_dead") == 8


def test_a_ledger_that_does_not_add_up_says_by_how_much() -> None:
    assert ledger_of(TOTALS).difference == 0
    assert ledger_of(Totals(received=10, stored=7, pending=2)).difference == 1


def test_a_refusal_that_is_called_like_ours_is_not_lost() -> None:
    assert ledger_of(Totals(received=1, rejected=1, refused={"not_saved": 2})).rejected == {"not_saved": 3}


def test_without_the_queue_the_ledger_is_left_out_and_not_zero() -> None:
    names = {name for name, _ in samples(Metrics().render())}
    assert not any("events_received" in name or "backlog_messages" in name for name in names)


def test_the_backlog_is_shown_per_partition_with_the_oldest_where_there_is_one() -> None:
    page = Metrics().render(TOTALS, BACKLOG)
    first = {"partition": BACKLOG[0].partition, "subscription": "workers"}
    second = {"partition": BACKLOG[1].partition, "subscription": "workers"}
    assert value(page, "backlog_messages", **first) == 9
    assert value(page, "backlog_messages", **second) == 0
    assert value(page, "backlog_oldest_timestamp_seconds", **first) == 1_700_000_000.5
    assert (PREFIX + "backlog_oldest_timestamp_seconds", tuple(sorted(second.items()))) not in samples(page)


def test_the_process_is_measured_too() -> None:
    assert samples(Metrics().render())["process_resident_memory_bytes", ()] > 1 << 20
    assert not any(name.startswith("process_") for name, _ in samples(Metrics().render(process=False)))


def test_the_table_lists_exactly_what_is_rendered_under_its_kind() -> None:
    metrics = Metrics()
    metrics.queue_bytes.read = lambda: 0
    page = metrics.render(TOTALS, BACKLOG, process=False).decode()
    rendered = dict(re.findall(r"^# TYPE (\S+) (\S+)$", page, re.MULTILINE))
    assert rendered == {row.name: row.kind for row in table()}


def test_names_follow_the_conventions() -> None:
    for row in table():
        assert re.fullmatch(PREFIX + r"[a-z_]+", row.name)
        assert row.name.endswith("_total") is (row.kind == "counter"), row.name
        assert row.text.endswith(".")
        assert row.unit in ("", "seconds", "bytes", "events", "messages", "rules")


def test_hostile_label_values_stay_on_their_line() -> None:
    metrics = Metrics()
    metrics.unavailable.add('x"} 1\nforged_total 7')
    assert ("forged_total", ()) not in samples(metrics.render())
