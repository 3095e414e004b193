from typing import Any

from tracardi_lite.pipeline.watermark import KEYS_MAX, STREAMS_MAX, applied, mark_applied, unite_applied


def marks(record: dict[str, Any]) -> Any:
    return record["metadata"]["system"]["aux"]["applied"]


def test_a_marked_message_and_all_before_it_are_applied() -> None:
    record: dict[str, Any] = {}
    mark_applied(record, "p", "log/0", (5, 2))

    assert applied(record, "p", "log/0", (5, 2))
    assert applied(record, "p", "log/0", (4, 9))
    assert not applied(record, "p", "log/0", (5, 3))
    assert not applied(record, "p", "log/1", (1, 0))
    assert not applied(record, "q", "log/0", (1, 0))


def test_a_mark_never_goes_back() -> None:
    record: dict[str, Any] = {}
    mark_applied(record, "p", "log/0", (5,))
    mark_applied(record, "p", "log/0", (3,))

    assert marks(record) == {"p": {"log/0": [5]}}


def test_united_marks_keep_apart_what_came_under_which_key() -> None:
    """Two profiles of one partition, at 100 and 150, become one: message 120 of the first is still to be applied."""
    older: dict[str, Any] = {}
    newer: dict[str, Any] = {}
    mark_applied(older, "a", "log/0", (100,))
    mark_applied(newer, "b", "log/0", (150,))
    mark_applied(newer, "a", "log/1", (7,))

    unite_applied(older, newer)

    assert not applied(older, "a", "log/0", (120,))
    assert applied(older, "b", "log/0", (120,))
    assert marks(older) == {"a": {"log/0": [100], "log/1": [7]}, "b": {"log/0": [150]}}


def test_the_least_recently_marked_fall_out() -> None:
    record: dict[str, Any] = {}
    for n in range(STREAMS_MAX + 2):
        mark_applied(record, "p", f"log/{n}", (n,))
        mark_applied(record, "p", "log/0", (n,))
    for n in range(KEYS_MAX + 2):
        mark_applied(record, f"k{n}", "log/0", (n,))
        mark_applied(record, "p", "log/0", (n,))

    assert len(marks(record)) == KEYS_MAX
    assert len(marks(record)["p"]) == STREAMS_MAX
    assert applied(record, "p", "log/0", (KEYS_MAX + 1,))
    assert applied(record, f"k{KEYS_MAX + 1}", "log/0", (1,))
    assert not applied(record, "k0", "log/0", (0,))
