import json
from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from tests.property.json_values import objects, scalars, values
from tracardi_lite.pipeline.paths import MISSING, put, split
from tracardi_lite.pipeline.session import new_session, session_event_part, touch_session, visit_starts
from tracardi_lite.pipeline.values import parse_time

_PLACES = """time.tz utm utm.source location location.latitude location.country location.country.name
browser.local.browser.userAgent browser.local.browser.language screen.local.width screen.local.height screen.width
screen.local.colorDepth screen.local.orientation screen.local.orientation.type device.name device.touch"""
moments = st.integers(min_value=0, max_value=4_000_000_000_000)
headers = st.dictionaries(
    st.sampled_from(["user-agent", "accept-language", "x-forwarded-for", "from"]), st.text(max_size=80)
)


@st.composite
def contexts(draw: st.DrawFn) -> Any:
    if draw(st.integers(0, 9)) == 0:
        return draw(values)
    context = draw(objects)
    for place in _PLACES.split():
        if draw(st.booleans()):
            put(context, split(place), draw(st.one_of(scalars, values)))
    return context


def check(session: dict[str, Any]) -> None:
    written = msgspec.json.decode(msgspec.json.encode(session))
    assert json.loads(json.dumps(written)) == written
    device, app = session["device"], session["app"]
    for part, keys in (
        (device, ("name", "brand", "model", "type", "ip", "resolution", "orientation")),
        (session["os"], ("name", "version")),
        (app, ("type", "name", "version", "language", "resolution")),
        (session["utm"], ("source", "medium", "campaign", "term", "content")),
    ):
        assert all(isinstance(part.get(key), str | None) for key in keys)
    assert isinstance(device["touch"], bool)
    assert isinstance(app["bot"], bool)
    assert isinstance(device["color_depth"], int | None)
    assert device["geo"] is not MISSING
    assert session["metadata"]["time"]["duration"] >= 0
    assert session_event_part(session)["session"]["id"] == session["id"]


@given(contexts(), headers, values, values, moments)
def test_no_context_raises_or_spoils_a_session(
    context: Any, headers: dict[str, str], properties: Any, metadata: Any, at_ms: int
) -> None:
    session = new_session(
        "s", profile="p", at_ms=at_ms, headers=headers, context=context, properties=properties, metadata=metadata
    )
    check(session)
    starts = visit_starts(session, at_ms, 1200)
    touch_session(session, at_ms, context=context, properties=properties, starts_visit=starts)
    check(session)


@given(st.lists(moments, min_size=1, max_size=8))
def test_whatever_the_order_of_messages_the_last_moment_and_the_duration_agree(at: list[int]) -> None:
    session = new_session("s", profile=None, at_ms=at[0])
    for moment in at[1:]:
        touch_session(session, moment)

    time = session["metadata"]["time"]
    assert parse_time(time["update"]) == max(at)
    assert time["duration"] == round((max(at) - at[0]) / 1000, 3)
