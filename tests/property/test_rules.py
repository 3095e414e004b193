"""Rules over whatever clients send: total, the same again, and without a trace of what may not be kept."""

from __future__ import annotations

from typing import Any

import msgspec
from hypothesis import example, given
from hypothesis import strategies as st

from tests.property.json_values import keys, objects, values
from tracardi_lite.pipeline.decode import decode
from tracardi_lite.pipeline.event_types import EventTypes
from tracardi_lite.pipeline.events import build, look, share
from tracardi_lite.pipeline.paths import MISSING, get
from tracardi_lite.pipeline.profile import new_profile
from tracardi_lite.pipeline.rules import touch
from tracardi_lite.pipeline.rules.compliance import Compliance, hashed_value
from tracardi_lite.pipeline.rules.consents import Standing, given_consents
from tracardi_lite.pipeline.rules.fault import RuleFault
from tracardi_lite.pipeline.rules.reshaping import without
from tracardi_lite.pipeline.rules.ruleset import RuleSet, compile_rule, compile_rules
from tracardi_lite.pipeline.type_book import TypeBook
from tracardi_lite.pipeline.work import Work
from tracardi_lite.ports.queue import Message
from tracardi_lite.ports.registry import RULE_KINDS, Rule
from tracardi_lite.protocol.envelope import Head, encode_head

NAMES = ["id", "value", "email", "main", "country", "location", "pii", "firstname"]
names = st.sampled_from(NAMES)
paths = st.lists(names, min_size=1, max_size=3).map(".".join)
conditions = st.one_of(
    st.just(""),
    st.builds(lambda path, value: f"properties.{path} = '{value}'", paths, names),
    st.builds(lambda path: f"properties.{path} EXISTS", paths),
    st.builds(lambda path: f"NOT properties.{path} > 5", paths),
)
schemas = st.fixed_dictionaries(
    {},
    optional={
        "required": st.lists(names, max_size=2, unique=True),
        "properties": st.dictionaries(
            names, st.sampled_from([{"type": "string"}, {"type": "object"}, {"minimum": 3}, False])
        ),
        "maxProperties": st.integers(0, 5),
    },
)
references = st.builds(
    lambda root, path: f"{root}@{path}", st.just("event"), paths.map(lambda path: f"properties.{path}")
)
templates = st.dictionaries(
    names,
    st.one_of(references, st.just("event@properties"), values.filter(lambda v: v is None or type(v) in (bool, str))),
    min_size=1,
    max_size=4,
)
profile_paths = st.sampled_from(
    [
        "traits.a",
        "data.contact.email.main",
        "data.metrics.ltv",
        "data.preferences.colors",
        "consents",
        "interests",
        "segments",
    ]
)
specs = {
    "validation": st.builds(lambda schema: {"json_schema": {"event@properties": schema}}, schemas),
    "reshaping": st.builds(lambda made: {"properties": made}, templates),
    "mapping": st.builds(lambda traits: {"traits": traits, "tags": ["x"]}, st.dictionaries(paths, paths, max_size=3)),
    "to-profile": st.builds(
        lambda ops: {"ops": [{"to": to, "op": op, "from": f"properties.{source}"} for to, op, source in ops]},
        st.lists(
            st.tuples(
                profile_paths, st.sampled_from(["equal", "equals_if_not_exists", "append", "+", "delete"]), paths
            ),
            min_size=1,
            max_size=3,
        ),
    ),
    "compliance": st.builds(
        lambda fields: {
            "fields": [{"field": field, "action": action, "consents": consents} for field, action, consents in fields]
        },
        st.lists(
            st.tuples(
                st.one_of(
                    paths.map(lambda path: f"event@properties.{path}"),
                    st.sampled_from(["event@context.page", "event@request", "event@metadata.ip", "profile@traits.a"]),
                ),
                st.sampled_from(["remove", "hash", "nothing"]),
                st.lists(names, max_size=1),
            ),
            min_size=1,
            max_size=3,
        ),
    ),
    "identification": st.fixed_dictionaries(
        {"fields": st.dictionaries(paths, st.sampled_from(["emm-", "data.identifier.pk"]), min_size=1, max_size=2)},
        optional={"anonymous": st.booleans()},
    ),
}
rules = st.sampled_from(RULE_KINDS).flatmap(
    lambda kind: st.builds(Rule, kind=st.just(kind), id=st.uuids().map(str), spec=specs[kind], condition=conditions)
)
events = st.fixed_dictionaries(
    {"type": st.sampled_from(["a", "sign-up", "consent-update", "page-view"])},
    optional={
        "properties": objects | st.none(),
        "context": objects | st.none(),
        "tags": st.lists(st.text(max_size=5), max_size=2),
    },
)


def ruleset(made: list[Rule]) -> RuleSet:
    """Those that can be obeyed; generated ones mostly can."""
    return compile_rules(made, b"key")


def worked(sent: list[dict[str, Any]], compiled: RuleSet) -> tuple[list[bytes], dict[str, Any]]:
    """A message through the pure part of the pipeline: the events' records, and the profile."""
    book = TypeBook(EventTypes(), compiled)
    body = msgspec.json.encode({"source": {"id": "s"}, "events": sent})
    head = Head(id="m", received_ms=1_800_000_000_000, source="s", session=None, profile="p", ip="10.0.0.1")
    work = Work(decode(Message("p", encode_head(head), body, len(sent), "s", (0,), 0)), profile_id="p")
    profile = new_profile("p", head.received_ms)
    look(work, book)
    shared = share(work, session=None, primary_id=None, visits=1, context={}, partition="2027-1")
    build(work, book, shared, Standing(profile) if compiled.guards_consents else None)
    for item in work.items:
        if item.touch is not None:
            touch.fold(profile, item.touch, book[item.type].entry, {}, 1.0, item.id)
            touch.comply(profile, item.touch, 1_800_000_000.0, item.id)
    return [item.write.doc for item in work.items if item.write is not None], profile


FORGETFUL = [
    Rule(kind="to-profile", id="f", spec={"ops": [{"to": "consents", "op": "delete", "from": "properties.id"}]}),
    Rule(kind="compliance", id="c", spec={"fields": [{"field": "event@properties.id", "action": "remove"}]}),
]
"""One takes away what the other asks for."""


@example(FORGETFUL, [{"type": "a"}, {"type": "a"}])
@given(st.lists(rules, max_size=4), st.lists(events, min_size=1, max_size=3))
def test_no_rule_can_raise_lose_an_event_or_spoil_a_record(made: list[Rule], sent: list[dict[str, Any]]) -> None:
    docs, profile = worked(sent, ruleset(made))
    assert len(docs) == len(sent)
    for doc in docs:
        record = msgspec.json.decode(doc)
        assert type(record["metadata"]["valid"]) is bool
        assert type(record["properties"]) is dict
        assert record["metadata"]["valid"] == ("invalid" not in record["metadata"]["aux"])
        assert record["metadata"]["warning"] == ("warnings" in record["aux"])
    msgspec.json.encode(profile)


@given(st.lists(rules, max_size=4), st.lists(events, min_size=1, max_size=3))
def test_the_same_rules_make_the_same_of_the_same(made: list[Rule], sent: list[dict[str, Any]]) -> None:
    assert worked(sent, ruleset(made)) == worked(sent, ruleset(list(reversed(made))))


@given(st.lists(events, min_size=1, max_size=3))
def test_rules_for_other_types_change_nothing(sent: list[dict[str, Any]]) -> None:
    other = Rule(kind="mapping", id="m", event_type="something-else", spec={"tags": ["x"]})
    assert worked(sent, ruleset([other])) == worked(sent, RuleSet())


@given(values)
def test_hashing_is_stable_and_done_once(value: Any) -> None:
    once = hashed_value(value, b"key")
    assert once == hashed_value(value, b"key")
    if once is not MISSING:
        assert hashed_value(once, b"key") == once
        msgspec.json.encode(once)


@given(objects, paths, st.sampled_from(["remove", "hash"]))
def test_compliance_takes_the_field_and_nothing_else_and_leaves_what_it_was_given(
    properties: dict[str, Any], path: str, action: str
) -> None:
    made = compile_rule(
        Rule(kind="compliance", id="c", spec={"fields": [{"field": f"event@properties.{path}", "action": action}]}),
        b"key",
    )
    assert isinstance(made, Compliance)
    document, before = {"properties": properties}, repr(properties)
    [field] = made._sent
    cleaned = made.cleaned(document, field)
    assert repr(properties) == before
    assert made.cleaned(cleaned, field) == cleaned, "once is enough"
    full = ("properties", *path.split("."))
    was, now = get(document, full), get(cleaned, full)
    if was is MISSING or was is None:
        assert cleaned is document
    elif action == "remove":
        assert now is MISSING
    else:
        assert now is MISSING or now == hashed_value(was, b"key")
    assert without(cleaned, full) == without(document, full)


@given(st.sampled_from(RULE_KINDS), objects, st.text(max_size=30), keys)
def test_whatever_is_saved_as_a_rule_compiles_or_says_where_it_is_wrong(
    kind: str, spec: dict[str, Any], condition: str, type: str
) -> None:
    try:
        compile_rule(Rule(kind=kind, id="x", spec=spec, condition=condition, event_type=type))
    except RuleFault as fault:
        assert fault.where[0] in ("spec", "condition")
        assert fault.text


@given(values, st.floats(0, 4e9))
def test_consents_of_any_shape_are_given_or_not(consents: Any, at: float) -> None:
    given = given_consents(consents, at)
    assert all(type(id) is str for id in given)
    assert not given or given <= set(consents)
