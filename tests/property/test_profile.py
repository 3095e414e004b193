from copy import deepcopy
from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from tests.property.json_values import values
from tracardi_lite.pipeline.event_types import EventTypes, predefined
from tracardi_lite.pipeline.mapping import apply_to_profile, map_event
from tracardi_lite.pipeline.profile import count_events, expand, new_profile, refresh_derived, visit
from tracardi_lite.pipeline.watermark import applied, mark_applied, unite_applied

TYPES = EventTypes()
keys = st.sampled_from(["p", "q", "r"])
streams = st.sampled_from(["log/0", "log/1"])
properties = st.fixed_dictionaries(
    {}, optional={"interest": st.sampled_from(["tea", "a.b"]), "value": values, "firstname": values, "email": values}
)
messages = st.lists(
    st.tuples(keys, streams, st.sampled_from(predefined()).map(lambda entry: entry.id), properties), max_size=12
)


def deliver(
    profile: dict[str, Any], key: str, stream: str, position: int, type: str, properties: dict[str, Any]
) -> None:
    """What a worker does with a message of one event."""
    if applied(profile, key, stream, (position,)):
        return
    entry = TYPES.get(type)
    assert entry is not None
    event = {"properties": properties, **map_event(entry, properties)}
    apply_to_profile(profile, entry, event, position, f"{stream}-{position}")
    count_events(profile, [type])
    refresh_derived(profile)
    mark_applied(profile, key, stream, (position,))


@given(messages, st.data())
def test_redelivered_messages_change_nothing(sent: list[Any], data: st.DataObject) -> None:
    """Any earlier message of the log may come again at any time, also after the record was written and read."""
    profile = new_profile("p", 0)
    for position, (key, stream, type, properties) in enumerate(sent):
        deliver(profile, key, stream, position, type, properties)
        profile = msgspec.json.decode(msgspec.json.encode(profile))
        before = deepcopy(profile)
        again = data.draw(st.integers(0, position))
        deliver(profile, *sent[again][:2], again, *sent[again][2:])
        assert profile == before
    assert profile["stats"]["counters"]["events"] == len(sent)


marked = st.dictionaries(keys, st.dictionaries(streams, st.integers(0, 50), min_size=1), max_size=3)


def record(marks: dict[str, dict[str, int]]) -> dict[str, Any]:
    made: dict[str, Any] = {}
    for key, reached in marks.items():
        for stream, position in reached.items():
            mark_applied(made, key, stream, (position,))
    return made


@given(marked, marked, keys, streams, st.integers(0, 50))
def test_a_merged_record_has_applied_what_either_had(a: Any, b: Any, key: str, stream: str, position: int) -> None:
    one, other, turned = record(a), record(b), record(b)
    either = applied(one, key, stream, (position,)) or applied(other, key, stream, (position,))

    unite_applied(one, other)
    unite_applied(turned, record(a))

    assert applied(one, key, stream, (position,)) == applied(turned, key, stream, (position,)) == either


@given(st.lists(values, max_size=5), values, st.one_of(st.none(), st.text(max_size=20)))
def test_no_ids_times_or_zones_spoil_a_profile(ids: list[Any], metadata: Any, tz: str | None) -> None:
    profile = new_profile("p", 0, ids=ids, metadata=metadata)
    visit(profile, 0, tz)

    assert profile["ids"][0] == "p"
    assert all(isinstance(id, str) and id for id in profile["ids"])
    assert msgspec.json.decode(msgspec.json.encode(expand(profile)))["stats"]["visits"] == 1
