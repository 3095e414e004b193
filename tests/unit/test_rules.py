"""Rules on one event: what each kind does, what none may do, and what is said of a rule that can't be obeyed."""

from __future__ import annotations

import time
from typing import Any

import msgspec
import pytest

from bench import rules as measured
from tracardi_lite.errors import BadInput
from tracardi_lite.pipeline.event_types import EventType, EventTypes
from tracardi_lite.pipeline.rules.compliance import hashed_text, hashed_value
from tracardi_lite.pipeline.rules.dry_run import Desk, Result, Trial
from tracardi_lite.pipeline.rules.fault import RuleFault
from tracardi_lite.pipeline.rules.ruleset import Switches, compile_rules
from tracardi_lite.pipeline.rules.template import TAKEN_MAX
from tracardi_lite.ports.registry import RULE_KINDS, Rule

NOW_MS = 1_800_000_000_000
MAIL = "joe@example.com"


def rule(kind: str, spec: dict[str, Any], id: str = "r", **fields: Any) -> Rule:
    return Rule(kind=kind, id=id, spec=spec, **fields)


def schema(of_properties: dict[str, Any], **fields: Any) -> Rule:
    return rule("validation", {"json_schema": {"event@properties": of_properties}}, **fields)


def tried(*rules: Rule, event: dict[str, Any] | None = None, desk: Desk | None = None, **trial: Any) -> Result:
    event = event or {"type": "sign-up", "properties": {"email": {"main": MAIL}, "age": 30}}
    return (desk or Desk()).dry_run(rules, Trial(event=event, **trial), NOW_MS)


# validation


def test_an_invalid_event_is_kept_and_marked_and_mapped_nowhere() -> None:
    result = tried(
        schema({"properties": {"age": {"type": "string"}}}, id="age-is-text"),
        rule("mapping", {"traits": {"age": "age"}, "tags": ["x"], "journey": "y"}, id="m"),
        rule("to-profile", {"ops": [{"to": "traits.age", "from": "properties.age"}]}, id="p"),
    )
    assert result.before.event["data"]["contact"]["email"]["main"] == MAIL
    event = result.after.event
    assert event["metadata"]["valid"] is False
    assert event["metadata"]["aux"]["invalid"] == {
        "rule": "age-is-text",
        "message": 'event@properties.age: the value is not of type "string"',
    }
    assert event["properties"] == result.before.event["properties"]
    assert (event["data"], event["traits"], event["journey"]["state"], event["tags"]["count"]) == ({}, {}, None, 0)
    assert result.after.profile["data"] == {"anonymous": True}
    assert result.after.profile["stats"]["counters"]["events"] == 1
    assert [each.matched for each in result.rules] == [True, False, False]
    assert "invalid" in result.rules[1].why


def test_a_valid_event_is_as_if_there_were_no_rule() -> None:
    result = tried(schema({"required": ["age"]}))
    assert result.after == result.before
    assert result.rules[0].why == "valid"


def test_a_message_tells_the_place_and_never_the_value() -> None:
    result = tried(schema({"properties": {"email": {"properties": {"main": {"enum": ["x"]}}}}}))
    message = result.after.event["metadata"]["aux"]["invalid"]["message"]
    assert message.startswith("event@properties.email.main: ")
    assert MAIL not in message


def test_of_several_validations_the_first_in_order_speaks() -> None:
    rules = [schema({"required": [id]}, id=id, order=place) for place, id in enumerate(["c", "b", "a"])]
    result = tried(*reversed(rules))
    assert result.after.event["metadata"]["aux"]["invalid"]["rule"] == "c"
    assert [each.id for each in result.rules] == ["c", "b", "a"]
    assert [each.matched for each in result.rules] == [True, False, False]


@pytest.mark.parametrize(
    ("name", "holds"),
    [
        ("event@properties.email", True),
        ("event@properties.email.main", False),
        ("event@properties.nothing", False),
        ("event@context", True),
        ("payload@context", True),
        ("event@config", True),
    ],
)
def test_schemas_are_for_any_part_that_was_sent(name: str, holds: bool) -> None:
    result = tried(rule("validation", {"json_schema": {name: {"type": "object"}}}))
    assert result.after.event["metadata"]["valid"] is holds


def test_the_latest_draft_is_meant_unless_another_is_named() -> None:
    tuple_of = {"prefixItems": [{"type": "string"}], "items": False}
    event = {"type": "x", "properties": {"list": ["a", "b"]}}
    assert tried(schema({"properties": {"list": tuple_of}}), event=event).after.event["metadata"]["valid"] is False
    seven = {"$schema": "http://json-schema.org/draft-07/schema#", "properties": {"list": {"prefixItems": [False]}}}
    assert tried(schema(seven), event=event).after.event["metadata"]["valid"] is True


@pytest.mark.parametrize("uri", ["http://127.0.0.1:1/x.json", "https://example.com/x.json", "file:///etc/passwd"])
def test_a_reference_elsewhere_is_refused_and_never_fetched(uri: str) -> None:
    with pytest.raises(RuleFault) as caught:
        Desk().check(schema({"properties": {"x": {"$ref": uri}}}))
    assert caught.value.where[:3] == ("spec", "json_schema", "event@properties")


def test_a_reference_within_and_a_circle_are_fine() -> None:
    tree = {
        "$defs": {"node": {"properties": {"n": {"$ref": "#/$defs/node"}}, "required": ["v"]}},
        "$ref": "#/$defs/node",
    }
    assert tried(schema(tree), event={"type": "x", "properties": {"v": 1, "n": {"v": 2}}}).after.event["metadata"][
        "valid"
    ]
    assert tried(schema({"allOf": [{"$ref": "#"}]})).after.event["metadata"]["valid"]


def test_no_regular_expression_takes_for_ever() -> None:
    evil = schema({"properties": {"x": {"pattern": "^(a+)+$"}}})
    began = time.perf_counter()
    result = tried(evil, event={"type": "x", "properties": {"x": "a" * 50_000 + "!"}})
    assert result.after.event["metadata"]["valid"] is False
    assert time.perf_counter() - began < 1
    for pattern in ("(?=a)b", r"(a)\1", "(a{1000}){1000}", "["):
        with pytest.raises(RuleFault) as caught:
            Desk().check(schema({"properties": {"x": {"pattern": pattern}}}))
        assert caught.value.where[-3:] == ("properties", "x", "pattern")
        assert "regular expression" in caught.value.text


# reshaping


def test_a_template_makes_the_properties_the_context_and_the_sessions_context_anew() -> None:
    result = tried(
        rule(
            "reshaping",
            {
                "properties": {
                    "mail": "event@properties.email.main",
                    "all": ["event@type", "x@y", 7],
                    "no": "event@context.no",
                },
                "context": {"from": "payload@context.page", "ids": ["session@id", "source@id"]},
                "session": {"age": "event@properties.age"},
            },
        ),
        context={"page": {"url": "u"}},
    )
    event = result.after.event
    assert event["properties"] == {"mail": MAIL, "all": ["sign-up", "x@y", 7], "no": None}
    assert event["context"] == {"from": {"url": "u"}, "ids": ["dry-run-session", "default"]}
    assert event["data"] == {}, "mapped is what was made, not what was sent"
    assert result.session == {"age": 30}


def test_only_the_first_template_that_fits_acts() -> None:
    first, second, third = (rule("reshaping", {"properties": {"n": n}}, id=str(n), order=n) for n in (1, 2, 3))
    first.condition = "properties.age > 40"
    result = tried(third, first, second)
    assert result.after.event["properties"] == {"n": 2}
    assert [each.why for each in result.rules] == [
        "its condition does not hold",
        "made properties anew",
        "an earlier rule has reshaped the event",
    ]


def test_properties_can_be_taken_away_and_the_rest_stays() -> None:
    result = tried(rule("reshaping", {"properties": {"-": ["email.main", "nothing.there"]}}))
    assert result.after.event["properties"] == {"email": {}, "age": 30}
    result = tried(rule("reshaping", {"properties": {"e": "event@properties.email", "x": 1, "-": ["x"]}}))
    assert result.after.event["properties"] == {"e": {"main": MAIL}}


def test_validation_judges_what_was_sent_and_not_what_it_was_made_into() -> None:
    result = tried(schema({"required": ["email"]}), rule("reshaping", {"properties": {"x": 1}}, id="s"))
    assert result.after.event["metadata"]["valid"] is True
    assert result.after.event["properties"] == {"x": 1}


def test_a_template_cant_make_an_event_endless() -> None:
    big = {"type": "x", "properties": {"text": "x" * 200_000}}
    result = tried(rule("reshaping", {"properties": {str(n): "event@properties.text" for n in range(100)}}), event=big)
    event = result.after.event
    assert len(msgspec.json.encode(event)) < TAKEN_MAX + 20_000
    assert event["metadata"]["warning"] is True
    assert "makes the event too large" in event["aux"]["warnings"][0]


# mapping


def test_properties_become_traits_and_tags_and_a_journey_state_are_set() -> None:
    result = tried(
        rule(
            "mapping",
            {"traits": {"age": "person.age", "email": "person.email"}, "tags": ["a"], "journey": "one"},
            id="1",
        ),
        rule("mapping", {"traits": {"email.main": "traits.person.mail"}, "tags": ["a", "b"], "journey": "two"}, id="2"),
    )
    event = result.after.event
    assert event["traits"] == {"person": {"age": 30, "email": {"main": MAIL}, "mail": MAIL}}
    assert event["tags"]["values"] == [*result.before.event["tags"]["values"], "a", "b"]
    assert event["journey"]["state"] == "two"
    assert event["data"] == result.before.event["data"], "the type's own mapping stays"


def test_a_value_that_does_not_fit_is_a_warning_on_the_event() -> None:
    types = EventTypes(custom=[EventType(id="t", copy={"n": "data.ec.checkout.value"})])
    result = tried(
        rule("to-profile", {"ops": [{"to": "data.metrics.ltv", "op": "+", "from": "properties.n"}]}),
        event={"type": "t", "properties": {"n": {"not": "a number"}}},
        desk=Desk(types),
    )
    assert result.after.event["metadata"]["warning"] is True
    assert result.after.event["aux"]["warnings"] == [
        "properties.n does not fit data.ec.checkout.value",
        "properties.n does not fit + of data.metrics.ltv",
    ]
    assert result.after.profile == result.before.profile


# to-profile


def test_operations_change_the_profile_after_those_of_the_type() -> None:
    result = tried(
        rule(
            "to-profile",
            {
                "ops": [
                    {"to": "traits.age", "from": "properties.age"},
                    {"to": "traits.count", "op": "increment"},
                    {"to": "data.contact.email.main", "op": "delete"},
                    "data.contact.email.private",
                ]
            },
        ),
        profile={"traits": {"count": 2}},
    )
    assert result.after.profile["traits"] == {"age": 30, "count": 3}
    assert result.after.profile["data"]["contact"]["email"] == {}
    assert result.after.profile["metadata"]["fields"]["traits.age"] == [NOW_MS / 1000, result.after.event["id"]]
    assert "traits.count" in result.rules[0].why


def test_a_condition_may_ask_for_the_profile() -> None:
    ask = rule(
        "to-profile",
        {"ops": [{"to": "segments", "op": "append", "value": "vip"}]},
        condition="profile@traits.spent > 100 AND type = sign-up",
    )
    for spent, segments in ((99, []), (101, ["vip"])):
        assert tried(ask, profile={"traits": {"spent": spent}}).after.profile["segments"] == segments


def test_traits_that_a_rule_has_made_can_go_into_the_profile() -> None:
    result = tried(
        rule("mapping", {"traits": {"age": "age"}}),
        rule("to-profile", {"ops": ["traits.age"]}),
    )
    assert result.after.profile["traits"] == {"age": 30}


# compliance


def test_without_consent_fields_go_or_become_hashes_and_reach_nothing() -> None:
    fields = [
        {"field": "event@properties.email.main", "action": "hash", "consents": ["marketing"]},
        {"field": "event@properties.age", "action": "remove", "consents": ["marketing", "profiling"]},
        {"field": "event@device", "action": "remove", "consents": ["marketing"]},
    ]
    guard = rule("compliance", {"fields": fields})
    desk = Desk(key=b"k")
    hashed = hashed_text(MAIL, b"k")

    without = tried(guard, desk=desk)
    assert without.after.event["properties"] == {"email": {"main": hashed}}
    assert without.after.event["data"]["contact"]["email"]["main"] == hashed
    assert without.after.profile["data"]["contact"]["email"]["main"] == hashed
    assert without.after.event["device"] == {}
    assert MAIL not in str(without.after)

    some = tried(guard, desk=desk, profile={"consents": {"marketing": {"revoke": None}}})
    assert some.after.event["properties"] == {"email": {"main": MAIL}}
    assert some.after.event["device"] == some.before.event["device"]

    gone = tried(guard, desk=desk, profile={"consents": {"marketing": {"revoke": "2020-01-01"}}})
    assert gone.after.event["properties"] == {"email": {"main": hashed}}


def test_a_consent_holds_from_the_event_that_gives_it() -> None:
    guard = rule("compliance", {"fields": [{"field": "profile@traits.plan", "action": "remove", "consents": ["a"]}]})
    give = {"type": "consent-update", "properties": {"consents": {"a": {"revoke": None}}}}
    assert tried(guard, event=give, profile={"traits": {"plan": 1}}).after.profile["traits"] == {"plan": 1}
    take = {"type": "consent-update", "properties": {"consents": {"a": {"revoke": "2020-01-01"}}}}
    assert tried(guard, event=take, profile={"traits": {"plan": 1}}).after.profile["traits"] == {}


def test_hashes_depend_on_the_key_and_stay_what_they_are() -> None:
    once = hashed_value({"a": [MAIL, 1, True, None, 1.5]}, b"k")
    assert once == hashed_value(once, b"k")
    assert once != hashed_value({"a": [MAIL, 1, True, None, 1.5]}, b"other")
    assert once["a"][3] is None
    # As openssl's dgst -sha256 -hmac k has it.
    assert once["a"][0] == "h:t3Cyhavufc6GjLYYgTio1sY-53eC3ROSJPhUPHCmY_A"
    assert all(len(item) == 45 for item in once["a"] if item)


# which rules act


@pytest.mark.parametrize(
    ("change", "matched", "why"),
    [
        ({}, True, "set tags x"),
        ({"event_type": "*"}, True, "set tags x"),
        ({"event_type": "Sign Up"}, True, "set tags x"),
        ({"event_type": "sign-in"}, False, "it is for events of type sign-in"),
        ({"source": "default"}, True, "set tags x"),
        ({"source": "shop"}, False, "it is for events of source shop"),
        ({"enabled": False}, False, "it is disabled"),
        ({"condition": "properties.age = 30 AND source.id = default"}, True, "set tags x"),
        ({"condition": "event@properties.age > 30"}, False, "its condition does not hold"),
        ({"spec": {"tags": 5}}, False, "it is broken: spec.tags: Expected `array`, got `int`"),
    ],
    ids=str,
)
def test_a_rule_acts_by_type_source_switch_and_condition(change: dict[str, Any], matched: bool, why: str) -> None:
    made = msgspec.structs.replace(rule("mapping", {"tags": ["x"]}), **change)
    result = tried(made)
    assert ("x" in result.after.event["tags"]["values"]) is matched
    assert (result.rules[0].matched, result.rules[0].why) == (matched, why)


def test_a_kind_can_be_switched_off() -> None:
    made = [schema(False), rule("reshaping", {"properties": {"a": 1}}), rule("mapping", {"tags": ["x"]})]  # type: ignore[arg-type]
    off = Desk(switches=Switches(validation=False, reshaping=False, mapping=False))
    result = tried(*made, desk=off)
    assert result.after == result.before
    assert [each.why for each in result.rules] == [
        "ENABLE_EVENT_VALIDATION is no",
        "ENABLE_EVENT_RESHAPING is no",
        "ENABLE_EVENT_MAPPING is no",
    ]


def test_a_broken_rule_is_left_out_and_the_others_act() -> None:
    compiled = compile_rules([rule("mapping", {}, id="bad"), rule("mapping", {"tags": ["x"]}, id="good")])
    assert [each.rule.id for each in compiled.rules] == ["good"]
    assert [(each.id, fault.where) for each, fault in compiled.broken] == [("bad", ("spec",))]


def test_a_type_that_no_rule_touches_has_none() -> None:
    compiled = compile_rules([rule("mapping", {"tags": ["x"]}, event_type="a", source="s")])
    assert compiled.of("b") is None
    found = compiled.of("a")
    assert found is not None
    assert found.of("other") is None
    assert found.of("s") is not None


# what can't be obeyed


@pytest.mark.parametrize(
    ("kind", "spec", "where"),
    [
        ("magic", {}, "kind"),
        ("validation", {}, "spec"),
        ("validation", {"json_schema": {}}, "spec.json_schema"),
        ("validation", {"json_schema": {"profile@traits": {}}}, "spec.json_schema.profile@traits"),
        ("validation", {"json_schema": {"event@properties.": {}}}, "spec.json_schema.event@properties."),
        (
            "validation",
            {"json_schema": {"event@properties": {"properties": {"x": {"type": "strin"}}}}},
            "spec.json_schema.event@properties.properties.x.type",
        ),
        ("validation", {"json_schema": {"event@properties": 3}}, "spec.json_schema.event@properties"),
        ("reshaping", {}, "spec"),
        ("reshaping", {"properties": {"a": {"b": ["event@foo"]}}}, "spec.properties.a.b.0"),
        ("reshaping", {"properties": {"a": "profile@traits.x"}}, "spec.properties.a"),
        ("reshaping", {"properties": {"a": "memory@x"}}, "spec.properties.a"),
        ("reshaping", {"properties": {"-": "a"}}, "spec.properties.-"),
        ("reshaping", {"properties": {"-": ["a", 5]}}, "spec.properties.-.1"),
        ("reshaping", {"props": {}}, "spec"),
        ("mapping", {}, "spec"),
        ("mapping", {"traits": {"a..b": "c"}}, "spec.traits.a..b"),
        ("mapping", {"tags": [""]}, "spec.tags"),
        ("to-profile", {"ops": []}, "spec.ops"),
        ("to-profile", {"ops": ["traits.a", {"to": "dataa.x", "value": 1}]}, "spec.ops.1"),
        ("to-profile", {"ops": [{"to": 3}]}, "spec.ops.0.to"),
        ("to-profile", {"ops": [{"to": "stats.visits", "op": "+", "value": 1}]}, "spec.ops.0"),
        ("compliance", {"fields": []}, "spec.fields"),
        ("compliance", {"fields": [{"field": "event@id", "action": "remove"}]}, "spec.fields.0.field"),
        ("compliance", {"fields": [{"field": "properties.x", "action": "remove"}]}, "spec.fields.0.field"),
        ("compliance", {"fields": [{"field": "event@device.geo", "action": "hash"}]}, "spec.fields.0.field"),
        ("compliance", {"fields": [{"field": "profile@consents.a", "action": "remove"}]}, "spec.fields.0.field"),
        ("compliance", {"fields": [{"field": "profile@data", "action": "remove"}]}, "spec.fields.0.field"),
        ("compliance", {"fields": [{"field": "profile@data.metrics.ltv", "action": "hash"}]}, "spec.fields.0.field"),
        ("compliance", {"fields": [{"field": "event@properties.x", "action": "eat"}]}, "spec.fields.0.action"),
    ],
    ids=str,
)
def test_a_rule_that_cant_be_obeyed_says_where(kind: str, spec: dict[str, Any], where: str) -> None:
    with pytest.raises(RuleFault) as caught:
        Desk().check(rule(kind, spec))
    assert ".".join(map(str, caught.value.where)) == where
    assert caught.value.status == 422
    assert caught.value.detail == [
        {"type": "value_error", "loc": ["body", *caught.value.where], "msg": caught.value.text}
    ]


@pytest.mark.parametrize(
    ("condition", "text"),
    [
        ("type =", "expected a value at position 7, found the end"),
        ("foo = 1", "no field of an event"),
        ("traits.a = 1", "no field of an event"),
        ("profile@traits.x = 1", "the profile is not asked here"),
        ("NOT (type = a OR profile.data.x EXISTS)", "the profile is not asked here"),
    ],
)
def test_a_condition_that_cant_be_judged_is_refused(condition: str, text: str) -> None:
    with pytest.raises(RuleFault) as caught:
        Desk().check(rule("mapping", {"tags": ["x"]}, condition=condition))
    assert caught.value.where == ("condition",)
    assert text in caught.value.text


@pytest.mark.parametrize(
    "event",
    [{}, {"type": " "}, {"type": 5}, {"type": "x", "properties": []}, {"type": "x", "tags": "a"}],
    ids=str,
)
def test_an_event_that_the_door_would_refuse_cant_be_tried(event: dict[str, Any]) -> None:
    with pytest.raises(BadInput) as caught:
        Desk().dry_run([], Trial(event=event), NOW_MS)
    assert caught.value.status == 422


def test_a_draft_is_tried_in_place_of_the_saved_rule() -> None:
    saved, draft = rule("mapping", {"tags": ["old"]}), rule("mapping", {"tags": ["new"]})
    result = tried(saved, rules=[draft])
    assert result.after.event["tags"]["values"][-1] == "new"
    assert len(result.rules) == 1


@pytest.mark.parametrize(
    ("kind", "spec", "why"),
    [
        ("reshaping", {"properties": {"-": ["age"]}}, "took properties away"),
        ("reshaping", {"context": {"a": 1}, "session": {"b": 2}}, "made context, the session's context anew"),
        (
            "mapping",
            {"traits": {"age": "years"}, "tags": ["x", "y"], "journey": "known"},
            "set traits years; tags x, y; journey known",
        ),
        ("mapping", {"traits": {"nothing.there": "years"}}, "the event has none of its fields"),
        ("identification", {"fields": {"email.main": "emm", "nothing": "ipk"}}, "identifies the customer by emm"),
        ("identification", {"fields": {"nothing": "ipk"}}, "the event has none of its fields"),
        (
            "compliance",
            {"fields": [{"field": "event@properties.nothing", "action": "remove", "consents": []}]},
            "found nothing to act on in properties and context",
        ),
    ],
)
def test_a_dry_run_says_of_every_rule_what_it_did(kind: str, spec: dict[str, Any], why: str) -> None:
    [outcome] = tried(rule(kind, spec)).rules
    assert (outcome.matched, outcome.why) == (True, why)


def test_every_kind_of_rule_is_measured() -> None:
    assert tuple(measured.SPECS) == RULE_KINDS
    cases = dict(measured.cases())
    assert all(not rules.broken for rules in cases.values())
    assert {f"1 {kind}" for kind in RULE_KINDS} < cases.keys()
