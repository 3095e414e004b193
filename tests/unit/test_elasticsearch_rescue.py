"""Moving aside what Elasticsearch does not take: the record stays a record, and nothing of it is lost."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tracardi_lite.backends.store.elasticsearch import mappings, rescue
from tracardi_lite.backends.store.elasticsearch.rescue import STEPS, blamed

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=10,
)


@pytest.mark.parametrize(
    ("reason", "path"),
    [
        ("[1:9] failed to parse field [traits.n] of type [double] in document with id 'x'", "traits.n"),
        ("[1:9] object mapping for [hit] tried to parse field [hit] as object, but found a concrete value", "hit"),
        ("mapping set to strict, dynamic introduction of [foo] within [_doc] is not allowed", "foo"),
        ("mapping set to strict, dynamic introduction of [foo] within [bar] is not allowed", "bar.foo"),
        ("Limit of total fields [2000] has been exceeded while adding new fields [5]", None),
        ("Limit of mapping depth [20] has been exceeded due to object field [traits.a.b]", "traits.a.b"),
        ("failed to parse field [_id] of type", None),
        ("unavailable", None),
    ],
)
def test_the_field_to_blame_is_read_from_the_reason(reason: str, path: str | None) -> None:
    assert blamed(reason) == path


def event(**parts: Any) -> bytes:
    doc = {"id": "1", "metadata": {"aux": {"message": "m"}, "warning": False}, "aux": {}, "trash": {}, **parts}
    return json.dumps(doc).encode()


def rescued(doc: bytes, reason: str, step: int) -> bytes | None:
    return rescue.rescued(doc, reason, step, mappings.fields("event"))


def read(doc: bytes | None) -> dict[str, Any]:
    assert doc is not None
    found: dict[str, Any] = json.loads(doc)
    return found


def test_first_the_field_that_is_named_then_its_part_then_everything() -> None:
    reason = "failed to parse field [traits.a.b] of type [double]"
    doc = event(traits={"a": {"b": "x", "c": 1}, "d": 2}, properties={"p": 1})
    first = rescued(doc, reason, 1)
    assert read(first)["traits"] == {"a": {"c": 1}, "d": 2}
    assert read(first)["trash"] == {"traits": {"a": {"b": "x"}}}
    second = rescued(first or b"", reason, 2)
    assert read(second)["traits"] == {}
    assert read(second)["trash"] == {"traits": {"a": {"b": "x", "c": 1}, "d": 2}}
    third = read(rescued(second or b"", reason, 3))
    assert third["traits"] == third["properties"] == {}
    assert third["metadata"]["warning"] is True
    assert json.loads(third["trash"]["properties"]) == {"p": 1}


def test_too_many_fields_cost_the_traits() -> None:
    doc = read(rescued(event(traits={"a": 1}), "Limit of total fields [2000] has been exceeded", 1))
    assert (doc["traits"], doc["trash"]) == ({}, {"traits": {"a": 1}})
    assert doc["aux"]["warnings"] == ["traits does not fit the index and was moved to trash"]


def test_what_makes_it_a_record_is_never_moved() -> None:
    doc = json.dumps({"id": "1", "metadata": {}}).encode()
    assert rescued(doc, "failed to parse field [metadata.time.insert] of type [date]", 3) is None
    assert rescued(b"not json", "", 1) is None


def test_a_record_without_the_flag_gets_no_warning() -> None:
    profile = json.dumps({"id": "1", "metadata": {"aux": {}}, "traits": {"n": {}}}).encode()
    doc = read(rescued(profile, "failed to parse field [traits.n] of type [double]", 1))
    assert doc == {"id": "1", "metadata": {"aux": {}}, "traits": {}, "trash": {"traits": {"n": {}}}}


def united(*parts: Any) -> dict[str, Any]:
    whole: dict[str, Any] = {}
    for part in parts:
        for key, value in part.items():
            there = whole.get(key)
            whole[key] = united(there, value) if isinstance(there, dict) and isinstance(value, dict) else value
    return whole


@given(
    traits=st.dictionaries(st.text(alphabet="ab.", max_size=3), JSON, max_size=4),
    properties=JSON,
    path=st.text(alphabet="ab.", max_size=5),
)
def test_every_step_on_any_document_keeps_every_value_somewhere(traits: Any, properties: Any, path: str) -> None:
    doc = event(traits=traits, properties=properties)
    for step in range(1, STEPS + 1):
        doc = rescued(doc, f"failed to parse field [traits.{path}] of type [double]", step) or doc
        found = read(doc)
        assert (found["id"], found["metadata"]["aux"]) == ("1", {"message": "m"})
        trash = found["trash"]
        if step < STEPS:
            assert united(found["traits"], trash.get("traits", {})) == traits
            assert found["properties"] == properties
        else:
            earlier = json.loads(trash.get("trash", "{}"))
            assert united(json.loads(trash.get("traits", "{}")), earlier.get("traits", {})) == traits
            assert json.loads(trash.get("properties", "null")) == properties or properties in ({}, [])


def test_of_a_part_that_the_index_has_an_empty_one_stays_and_of_another_nothing() -> None:
    doc = event(tags={"values": [{}]}, unheard_of={"a": 1}, hit="text", properties=[1])
    found = read(rescued(doc, "", 3))
    assert (found["tags"], found["properties"]) == ({}, [])
    assert "unheard_of" not in found
    assert "hit" not in found
    assert json.loads(found["trash"]["unheard_of"]) == {"a": 1}
