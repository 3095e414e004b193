from typing import Any

import pytest

from tracardi_lite.pipeline import session as sessions
from tracardi_lite.pipeline.session import (
    new_session,
    session_event_part,
    touch_session,
    visit_starts,
    visits,
)
from tracardi_lite.pipeline.values import FREE_MAX

MONDAY = 1_700_438_400_000  # 2023-11-20 00:00 UTC


def fresh(**given: Any) -> dict[str, Any]:
    return new_session("s-1", profile="p-1", at_ms=MONDAY, **given)


def test_a_new_session_is_shaped_as_the_protocol_shows() -> None:
    record = fresh(ip="10.0.0.1", channel="Web", context={"a": 1}, properties={"b": 2})

    assert record["id"] == "s-1"
    assert record["profile"] == {"id": "p-1"}
    assert record["metadata"] == {
        "time": {
            "insert": "2023-11-20T00:00:00.000+00:00",
            "create": "2023-11-20T00:00:00.000+00:00",
            "update": "2023-11-20T00:00:00.000+00:00",
            "timestamp": MONDAY / 1000,
            "duration": 0,
            "weekday": 0,
        },
        "channel": "Web",
        "aux": {"visits": 1},
        "status": "started",
        "system": {"aux": {"applied": {}}},
    }
    assert record["context"] == {"a": 1, "ip": "10.0.0.1", "language": [], "language_codes": []}
    assert record["properties"] == {"b": 2}
    assert (record["traits"], record["aux"]) == ({}, {})


def test_campaign_and_place_move_from_the_context_to_their_fields() -> None:
    record = fresh(context={"utm": {"source": "g"}, "location": {"city": "Warsaw"}, "time": {"tz": "Europe/Warsaw"}})

    assert record["utm"]["source"] == "g"
    assert record["device"]["geo"] == {"city": "Warsaw"}
    assert record["context"].keys() == {"time", "ip", "language", "language_codes"}


@pytest.mark.parametrize("wrap", [lambda times: times, lambda times: {"time": times}])
def test_a_client_may_give_a_new_session_its_times(wrap: Any) -> None:
    times = {"insert": "2023-11-19 23:59:50", "create": "2020-01-01T00:00:00+02:00", "update": "soon"}

    time = fresh(metadata=wrap(times))["metadata"]["time"]

    assert time == {
        "insert": "2023-11-19T23:59:50.000+00:00",
        "create": "2019-12-31T22:00:00.000+00:00",
        "update": "2023-11-20T00:00:00.000+00:00",
        "timestamp": MONDAY / 1000 - 10,
        "duration": 10,
        "weekday": 6,
    }


@pytest.mark.parametrize("metadata", [None, "TrackerPayload(...)", 3, [], {"time": "now"}, {"insert": 5}])
def test_junk_for_times_is_as_if_it_had_not_been_sent(metadata: object) -> None:
    assert fresh(metadata=metadata) == fresh()


def test_a_later_message_moves_the_session_on() -> None:
    record = fresh(properties={"a": 1})

    touch_session(record, MONDAY + 2500, properties={"b": 2})

    assert record["metadata"]["time"]["update"] == "2023-11-20T00:00:02.500+00:00"
    assert record["metadata"]["time"]["duration"] == 2.5
    assert record["metadata"]["status"] == sessions.ACTIVE
    assert record["properties"] == {"a": 1, "b": 2}


def test_a_message_from_before_does_not_move_the_session_back() -> None:
    record = fresh()
    touch_session(record, MONDAY + 5000)

    touch_session(record, MONDAY - 5000)

    assert record["metadata"]["time"]["duration"] == 5
    assert record["metadata"]["time"]["update"] == "2023-11-20T00:00:05.000+00:00"


def test_later_messages_fill_only_an_empty_place_and_campaign() -> None:
    record = fresh()
    for source in ("first", "second"):
        touch_session(record, MONDAY, context={"utm": {"source": source}, "location": {"city": source}})

    assert record["utm"]["source"] == "first"
    assert record["device"]["geo"] == {"city": "first"}
    assert "utm" not in record["context"]


def test_a_visit_starts_with_a_session_after_its_end_and_after_silence() -> None:
    record = fresh()

    assert visit_starts(None, MONDAY, 1200)
    assert not visit_starts(record, MONDAY + 1_200_000, 1200)
    assert visit_starts(record, MONDAY + 1_200_001, 1200)

    touch_session(record, MONDAY + 1000, ends_visit=True)
    assert record["metadata"]["status"] == sessions.ENDED
    assert visit_starts(record, MONDAY + 1001, 1200)

    touch_session(record, MONDAY + 1001, starts_visit=True)
    assert record["metadata"]["status"] == sessions.STARTED
    assert visits(record) == 2
    assert not visit_starts(record, MONDAY + 1002, 1200)


def test_events_carry_their_sessions_part() -> None:
    record = fresh(context={"time": {"tz": "Europe/Warsaw"}})

    part = session_event_part(record)

    assert part["session"] == {
        "id": "s-1",
        "start": "2023-11-20T00:00:00.000+00:00",
        "duration": 0,
        "tz": "Europe/Warsaw",
    }
    assert part.keys() == {"session", "device", "os", "app", "utm"}


def test_properties_keep_their_bound_over_many_messages() -> None:
    record = fresh(properties={"first": "kept"})
    for n in range(100):
        touch_session(record, MONDAY, properties={f"k{n}": "x" * 1000})

    assert record["properties"]["first"] == "kept"
    assert 50 < len(record["properties"]) < FREE_MAX / 1000 + 2
