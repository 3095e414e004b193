"""The door's decoding: what is refused, where it says so, and what a bad event costs the others."""

import msgspec
import pytest

from tracardi_lite.errors import BadInput
from tracardi_lite.intake.decode import ERRORS_SHOWN_MAX, all_refused, decode

EVENT_MAX = 1000


def call(**fields: object) -> bytes:
    return msgspec.json.encode({"source": {"id": "web"}, **fields})


def refusal(body: bytes) -> BadInput:
    with pytest.raises(BadInput) as caught:
        decode(body, EVENT_MAX)
    assert caught.value.status == 422
    return caught.value


def test_a_good_call_is_glanced_at_and_its_raw_parts_are_the_bytes_that_were_sent() -> None:
    body = b'{"source":{"id":" web "},"context":{ "a" : 1.50 },"events":[{"type":"x","id":"mine"},{"type":"y"}]}'

    decoded = decode(body, EVENT_MAX)

    assert decoded.call.source.id == "web"
    assert bytes(decoded.call.context) == b'{ "a" : 1.50 }'
    assert (decoded.count, decoded.ids(), decoded.errors) == (2, ["mine", None], [])


@pytest.mark.parametrize(
    ("body", "type_", "loc"),
    [
        (b"", "json_invalid", ["body"]),
        (b"{", "json_invalid", ["body"]),
        (b'{"source":{"id":"\xff"}}', "json_invalid", ["body"]),
        (b'{"source":{"id":"a"},"events":[{"type":"x","properties":{"k":"\xff"}}]}', "json_invalid", ["body"]),
        (b"[]", "dict_type", ["body"]),
        (b'"text"', "dict_type", ["body"]),
        (b"{}", "missing", ["body", "source"]),
        (b'{"events":null}', "list_type", ["body", "events"]),
        (b'{"source":{}}', "missing", ["body", "source", "id"]),
        (b'{"source":{"id":1}}', "string_type", ["body", "source", "id"]),
        (b'{"source":{"id":"a"},"session":{"id":null}}', "string_type", ["body", "session", "id"]),
        (b'{"source":{"id":"a"},"session":{"id":7}}', "string_type", ["body", "session", "id"]),
        (b'{"source":{"id":"a"},"events":{}}', "list_type", ["body", "events"]),
        (b'{"source":{"id":"a"},"context":[]}', "dict_type", ["body", "context"]),
        (b'{"source":{"id":"a"},"properties":"x"}', "dict_type", ["body", "properties"]),
    ],
)
def test_a_call_that_cannot_be_read_says_where(body: bytes, type_: str, loc: list[str]) -> None:
    (problem,) = refusal(body).detail  # type: ignore[misc]

    assert (problem["type"], problem["loc"]) == (type_, loc)


def test_a_nest_too_deep_to_decode_is_a_refusal_and_not_a_crash() -> None:
    nest = b"[" * 100_000 + b"]" * 100_000

    refusal(b'{"source":{"id":"a"},"events":[{"type":"x","properties":' + nest + b"}]}")


def test_no_error_repeats_the_payload() -> None:
    secret = "s3cret-value"

    for body in (
        msgspec.json.encode({"source": {"id": "a"}, "session": secret}),
        msgspec.json.encode({"source": {"id": "a"}, "context": [secret]}),
        b'{"source":{"id":"' + secret.encode(),
    ):
        assert secret not in str(refusal(body).detail)


def test_a_bad_event_is_reported_by_index_and_the_others_go_on() -> None:
    body = call(
        events=[
            {"type": "good"},
            {"type": "  "},
            {"type": 5},
            {"type": "x", "properties": []},
            {"type": "x", "context": "no"},
            {"type": "x", "options": 1},
            {"type": "x", "time": {"create": "yesterday"}},
            "not an event",
            {"type": "also good", "properties": None, "options": None, "context": None},
        ]
    )

    decoded = decode(body, EVENT_MAX)

    assert [error.index for error in decoded.errors] == [1, 2, 3, 4, 5, 6, 7]
    assert {error.reason for error in decoded.errors} == {"invalid"}
    assert decoded.count == len(decoded.ids()) == 9


@pytest.mark.parametrize("bad", [{"type": ""}, {"type": 5}], ids=["fast path", "slow path"])
def test_an_event_over_the_limit_is_reported_on_either_path(bad: dict[str, object]) -> None:
    large = {"type": "x", "properties": {"k": "v" * EVENT_MAX}}

    decoded = decode(call(events=[bad, large, {"type": "fine"}]), EVENT_MAX)

    assert [(error.index, error.reason) for error in decoded.errors] == [(0, "invalid"), (1, "too_large")]


@pytest.mark.parametrize("text", ["2024-01-01 00:00:00", "2024-01-01T00:00:00Z", "2024-01-01T10:00:00.123+02:00"])
def test_times_may_be_iso_or_with_a_space(text: str) -> None:
    assert decode(call(events=[{"type": "x", "time": {"create": text}}]), EVENT_MAX).errors == []


def test_null_options_and_request_are_accepted() -> None:
    decoded = decode(call(events=[{"type": "x"}], options=None, request=None, context=None), EVENT_MAX)

    assert decoded.errors == []


def test_a_call_of_only_bad_events_explains_a_bounded_number_of_them() -> None:
    decoded = decode(call(events=[{"type": ""}] * (ERRORS_SHOWN_MAX + 50)), EVENT_MAX)

    refused = all_refused(decoded.errors)

    assert refused.status == 422
    assert len(refused.detail) == ERRORS_SHOWN_MAX  # type: ignore[arg-type]
