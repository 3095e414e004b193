"""Whatever arrives, the decoder answers or refuses; and it never says yes to what a worker can't read."""

import json

from hypothesis import given
from hypothesis import strategies as st

from tracardi_lite.errors import BadInput
from tracardi_lite.intake.decode import _decode_loosely, decode
from tracardi_lite.pipeline import decode as worker
from tracardi_lite.ports.queue import Message
from tracardi_lite.protocol.envelope import Head, encode_head

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)
objects = st.dictionaries(st.text(max_size=8), values, max_size=4)


@given(st.binary(max_size=200))
def test_any_bytes_are_decoded_or_refused(body: bytes) -> None:
    try:
        decode(body, 100)
    except BadInput as error:
        assert 400 <= error.status < 500


@given(objects | st.fixed_dictionaries({"source": values, "events": st.lists(values, max_size=4), "session": values}))
def test_any_json_is_decoded_or_refused(body: dict[str, object]) -> None:
    try:
        decode(json.dumps(body).encode(), 100)
    except BadInput as error:
        assert error.status == 422


@given(st.lists(st.tuples(st.booleans(), objects), min_size=1, max_size=8), st.integers(50, 400))
def test_good_events_keep_their_properties_whatever_stands_beside_them(
    events: list[tuple[bool, dict[str, object]]], event_max: int
) -> None:
    sent = [{"type": "x" if good else "", "properties": properties} for good, properties in events]
    body = json.dumps({"source": {"id": "s"}, "events": sent}).encode()

    decoded = decode(body, event_max)

    refused = {error.index for error in decoded.errors}
    for index, (good, properties) in enumerate(events):
        if index not in refused:
            assert good
        elif good:
            assert len(json.dumps(properties)) + 1 > event_max - 100
    if len(refused) < len(events):
        head = Head(id="m", received_ms=0, source="s", session=None, profile=None, skip=sorted(refused))
        message = Message("k", encode_head(head), body, len(events) - len(refused), "stream", (0,), 0)
        behind = worker.decode(message)
        assert behind.indices == [index for index in range(len(events)) if index not in refused]
        for index in behind.indices:
            assert json.loads(bytes(behind.payload.events[index].properties)) == events[index][1]  # type: ignore[arg-type]


@given(
    st.lists(
        st.dictionaries(st.sampled_from(["type", "id", "time", "properties", "options", "context", "tags"]), values)
    )
)
def test_a_glance_takes_no_event_that_a_closer_look_refuses(events: list[dict[str, object]]) -> None:
    events = [{"type": "x", **event} for event in events]
    body = json.dumps({"source": {"id": "s"}, "events": events}).encode()

    assert decode(body, 1 << 20).errors == _decode_loosely(body, 1 << 20).errors
