import json
from copy import deepcopy
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.property.json_values import objects, values
from tracardi_lite.pipeline import values as kinds
from tracardi_lite.pipeline.event_types import EventTypes, predefined
from tracardi_lite.pipeline.fields import leaves
from tracardi_lite.pipeline.mapping import apply_to_profile, map_event
from tracardi_lite.pipeline.paths import MISSING, get, put, split
from tracardi_lite.pipeline.profile import new_profile

TYPES = EventTypes()
entries = st.sampled_from(predefined())
LEAVES = dict(leaves("profile"))


@st.composite
def aimed(draw: st.DrawFn) -> tuple[Any, dict[str, Any]]:
    """A type, and properties that hold something, often junk, where the type looks."""
    entry = draw(entries)
    properties: dict[str, Any] = {}
    looked_at = [copy.source for copy in entry.copies if copy.source]
    looked_at += [path[1:] for op in entry.ops for path in (op.source, op.key) if path and path[0] == "properties"]
    for path in looked_at:
        if draw(st.booleans()):
            put(properties, path, draw(values))
    return entry, properties


def well_typed(kind: str, value: Any) -> bool:
    match kind:
        case "text":
            return isinstance(value, str)
        case "number":
            return isinstance(value, int | float) and not isinstance(value, bool)
        case "date":
            return isinstance(value, str | int)
        case "texts":
            return isinstance(value, list) and all(isinstance(item, str) for item in value)
    return isinstance(value, dict)


@given(aimed(), objects)
def test_no_properties_raise_or_spoil_the_types_of_a_profile(given: tuple[Any, dict[str, Any]], junk: Any) -> None:
    entry, properties = given
    profile = new_profile("p", 0)
    for sent in ({**junk, **properties}, properties):
        event = {"properties": sent, **map_event(entry, sent, [])}
        changed = apply_to_profile(profile, entry, event, 1.0, "e", [])
        assert set(changed) <= set(profile["metadata"]["fields"])
    written = msgspec.json.decode(msgspec.json.encode(profile))
    assert json.loads(json.dumps(written)) == written
    for path, kind in LEAVES.items():
        value = get(profile, split(path))
        assert value in (MISSING, None) or well_typed(kind, value), path


@given(aimed())
def test_what_is_passed_over_undecoded_holds_nothing_to_copy(given: tuple[Any, dict[str, Any]]) -> None:
    entry, properties = given

    if not entry.may_copy(json.dumps(properties).encode()):
        warnings: list[str] = []
        assert (map_event(entry, properties, warnings), warnings) == ({}, [])


@given(aimed())
def test_mapping_changes_neither_properties_nor_event(given: tuple[Any, dict[str, Any]]) -> None:
    entry, properties = given
    before = deepcopy(properties)
    event = {"properties": properties, **map_event(entry, properties)}
    kept = deepcopy(event)

    apply_to_profile(new_profile("p", 0), entry, event, 1.0, "e")

    assert (properties, event) == (before, kept)


@given(aimed())
def test_setting_operations_change_nothing_the_second_time(given: tuple[Any, dict[str, Any]]) -> None:
    entry, properties = given
    event = {"properties": properties, **map_event(entry, properties)}
    counting = {op.name for op in entry.ops if op.op in ("+", "-", "increment", "decrement")}
    profile = new_profile("p", 0)
    apply_to_profile(profile, entry, event, 1.0, "e")

    again = apply_to_profile(profile, entry, event, 2.0, "f")

    assert [name for name in again if not any(name.startswith(counted) for counted in counting)] == []


@given(values)
def test_every_kind_gives_something_writable_or_nothing(value: Any) -> None:
    for name, fit in kinds.KINDS.items():
        fitted = fit(value)
        if fitted is not MISSING:
            # What was fitted fits, and can be written.
            assert fit(fitted) == fitted, name
            msgspec.json.encode(fitted)


@given(st.integers(min_value=-62_135_596_800_000, max_value=253_402_300_799_999))
def test_times_survive_being_written(at_ms: int) -> None:
    assert kinds.parse_time(kinds.iso(at_ms)) == at_ms


@given(
    st.datetimes(timezones=st.just(UTC)),
    st.sampled_from(["milliseconds", "microseconds", "seconds"]),
    st.sampled_from(["+00:00", "Z", "+02:00", ""]),
)
def test_a_time_that_is_written_as_records_write_it_is_taken_as_it_stands(
    at: datetime, precision: str, zone: str
) -> None:
    text = at.isoformat(timespec=precision).removesuffix("+00:00") + zone
    at_ms = kinds.parse_time(text)
    assert kinds.written_time(text) == (None if at_ms is None else kinds.iso(at_ms))


@pytest.mark.parametrize("junk", [None, 5, "", "now", "2026-13-01T00:00:00.000Z", "2026-11-29T24:00:00.000Z", "x" * 70])
def test_what_is_no_time_is_not_written(junk: object) -> None:
    assert kinds.written_time(junk) is None
