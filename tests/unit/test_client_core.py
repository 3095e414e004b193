"""The client's pure parts: what is sent, what an answer means, how long to wait, which id stands for which."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from uuid import UUID

import pytest

from tracardi_lite.client import Event, EventError, RetryPolicy, Times, new_id
from tracardi_lite.client.identity import Aliases
from tracardi_lite.client.retry import is_temporary, retry_after_s
from tracardi_lite.client.wire import NotAnAnswer, decode_event, decode_receipt, encode_event, encode_payload

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


def test_new_ids_are_version_7_uuids_in_the_order_of_time() -> None:
    ids = [new_id() for _ in range(500)]

    assert len(set(ids)) == 500
    for id in ids:
        assert UUID(id).version == 7
        assert UUID(id).variant == "specified in RFC 4122"
    milliseconds = [UUID(id).int >> 80 for id in ids]
    assert milliseconds == sorted(milliseconds)


def test_an_event_is_encoded_in_the_protocols_shape_without_what_it_does_not_have() -> None:
    event = Event("page-view", {"path": "/"}, id="e-1", time=Times(NOW))

    assert json.loads(encode_event(event)) == {
        "type": "page-view",
        "properties": {"path": "/"},
        "id": "e-1",
        "time": {"create": "2026-03-01T12:00:00Z"},
    }
    assert decode_event(encode_event(event)) == event


@pytest.mark.parametrize("type", ["", "  "])
def test_an_event_without_a_type_is_refused_before_it_is_sent(type: str) -> None:
    with pytest.raises(ValueError, match="type"):
        encode_event(Event(type))


def test_the_payload_names_source_session_and_profile() -> None:
    body = encode_payload(
        source_id="default",
        session_id="s-1",
        profile_id=None,
        events=[encode_event(Event("a", id="1")), encode_event(Event("b", id="2"))],
        context={"time": {"tz": "UTC"}},
        options={"saveSession": False},
    )

    payload = json.loads(body)
    assert payload["source"] == {"id": "default"}
    assert payload["session"] == {"id": "s-1"}
    assert payload["profile"] is None
    assert payload["context"] == {"time": {"tz": "UTC"}}
    assert payload["options"] == {"saveSession": False}
    assert [event["id"] for event in payload["events"]] == ["1", "2"]


def test_a_receipt_says_which_events_were_refused() -> None:
    body = json.dumps(
        {
            "task": "t-1",
            "profile": {"id": "p-1"},
            "session": {"id": "s-1"},
            "errors": [{"index": 1, "reason": "too_large", "detail": "larger than 512 bytes"}, "something else"],
            "warnings": ["slow"],
            "ux": [{"tag": "div"}],
        }
    ).encode()

    receipt = decode_receipt(226, body, event_ids=["a", "b"], sent="p-0", attempts=2)

    assert not receipt.ok
    assert receipt.errors == (
        EventError("larger than 512 bytes", "too_large", 1, "b"),
        EventError("something else"),
    )
    assert (receipt.task, receipt.profile_id, receipt.session_id) == ("t-1", "p-1", "s-1")
    assert receipt.replaced
    assert receipt.warnings == ("slow",)
    assert receipt.answer["ux"] == [{"tag": "div"}]


def test_a_receipt_of_the_commercial_edition_has_a_list_of_tasks_and_perhaps_no_ids() -> None:
    receipt = decode_receipt(
        201,
        b'{"task":["t-1","t-2"],"profile":{"id":null},"session":null}',
        event_ids=["a"],
        sent=None,
        attempts=1,
    )

    assert receipt.ok
    assert (receipt.task, receipt.profile_id, receipt.session_id) == ("t-1", None, None)
    assert not receipt.replaced


@pytest.mark.parametrize("body", [b"", b"<html>", b"null", b"[]", b'"ok"', b"{}", b'{"profile":{}}'])
def test_what_no_collector_answers_is_not_taken_for_a_receipt(body: bytes) -> None:
    with pytest.raises(NotAnAnswer):
        decode_receipt(200, body, event_ids=["a"], sent=None, attempts=1)


@pytest.mark.parametrize(
    ("header", "seconds"),
    [
        (None, None),
        ("7", 7.0),
        (" 0 ", 0.0),
        ("Sun, 01 Mar 2026 12:00:30 GMT", 30.0),
        ("Sun, 01 Mar 2026 11:00:00 GMT", 0.0),
        ("soon", None),
        ("-3", None),
        ("9" * 500, 1e9),
    ],
)
def test_retry_after_is_seconds_or_a_date_or_nothing(header: str | None, seconds: float | None) -> None:
    assert retry_after_s(header, NOW) == seconds


def test_only_what_may_pass_is_temporary() -> None:
    assert [
        status for status in (200, 301, 400, 401, 404, 408, 413, 422, 425, 429, 500, 503) if is_temporary(status)
    ] == [
        408,
        425,
        429,
        500,
        503,
    ]


def test_a_pause_is_never_shorter_than_the_server_asked_for() -> None:
    policy = RetryPolicy(base_s=1, cap_s=10)

    assert policy.pause(1, 0, 0.0, retry_after_s=5) == 5
    assert policy.pause(1, 0, 0.0, retry_after_s=121) is None


def test_aliases_follow_chains_and_survive_cycles() -> None:
    aliases = Aliases()
    aliases.learn("a", "b")
    aliases.learn("b", "c")
    assert aliases.survivor("a") == aliases.survivor("b") == "c"

    aliases.learn("c", "a")
    assert aliases.survivor("c") == "a"
    assert aliases.survivor("a") == "a"


def test_aliases_are_bounded_and_forget_the_oldest() -> None:
    aliases = Aliases(kept=2)
    for number in range(5):
        aliases.learn(f"old-{number}", f"new-{number}")

    assert aliases.survivor("old-2") == "old-2"
    assert aliases.survivor("old-3") == "new-3"
    assert aliases.survivor("old-4") == "new-4"
