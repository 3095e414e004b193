"""Rules in a worker: what is stored, what the profile becomes, and that it happens once."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from tests.rig import Rig
from tracardi_lite.pipeline.rules.ruleset import compile_rules
from tracardi_lite.pipeline.worker import Worker
from tracardi_lite.ports.queue import Publication
from tracardi_lite.ports.registry import Rule
from tracardi_lite.ports.store import Query
from tracardi_lite.protocol.envelope import SAVE_ALL, SAVE_EVENTS, Head, encode_head
from tracardi_lite.testing.faults import Crash, Fault

MAIL = "joe@example.com"
_ALL = Query(limit=100)


def rule(kind: str, spec: dict[str, Any], id: str = "r", **fields: Any) -> Rule:
    return Rule(kind=kind, id=id, spec=spec, **fields)


class RuledRig(Rig):
    """Workers that have rules from the start."""

    def __init__(self, *rules: Rule, **settings: Any) -> None:
        super().__init__(**settings)
        self.rules = compile_rules(rules, b"key")
        assert not self.rules.broken

    def worker(self, *args: Any) -> Worker:
        worker = super().worker(*args)
        worker.book.use(self.rules)
        return worker


def needs(*names: str, **fields: Any) -> Rule:
    return rule("validation", {"json_schema": {"event@properties": {"required": list(names)}}}, **fields)


def sign_up(**properties: Any) -> dict[str, Any]:
    return {"type": "sign-up", "properties": {"email": {"main": MAIL}, **properties}}


async def test_an_invalid_event_is_stored_counted_and_mapped_nowhere() -> None:
    async with RuledRig(needs("age", event_type="sign-up")) as rig:
        await rig.send(events=[sign_up(), sign_up(age=1, n="b"), {"type": "page-view"}])
        await rig.drain()
        events = await rig.events()
        assert [event["metadata"]["valid"] for event in events if event["type"] == "sign-up"] == [False, True]
        invalid = next(event for event in events if not event["metadata"]["valid"])
        assert invalid["metadata"]["aux"]["message"] == "m0"
        assert invalid["metadata"]["aux"]["invalid"]["rule"] == "r"
        assert invalid["data"] == {}
        assert (await rig.record("profile", "p1"))["stats"]["counters"]["events"] == 3
        assert rig.metrics.events_invalid.value == 1
        await rig.audit()


async def test_an_invalid_event_alone_leaves_the_profile_without_its_data() -> None:
    async with RuledRig(needs("age")) as rig:
        await rig.send(events=[sign_up()])
        await rig.drain()
        assert (await rig.record("profile", "p1"))["data"] == {"anonymous": True}


STEPS = [("claim", 0), ("get", 0), ("create_events", 0), ("put", 0), ("put", 1), ("ack", 0)]


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize(("call", "skip"), STEPS)
async def test_a_crash_at_any_step_does_what_rules_say_once(call: str, skip: int, when: str) -> None:
    count = rule("to-profile", {"ops": [{"to": "traits.count", "op": "increment"}]})
    async with RuledRig(count, needs("n", id="v"), workers=1) as rig:
        await rig.send("a", "a")
        await rig.send("a")
        await rig.send(events=[{"type": "a"}])
        rig.faults.add(Fault(call, Crash(), when, skip=skip))
        assert await rig.drain() == 1
        assert (await rig.record("profile", "p1"))["traits"] == {"count": 3}
        assert sum(not event["metadata"]["valid"] for event in await rig.events()) == 1
        await rig.audit()


async def test_a_redelivered_event_keeps_what_it_was_first_stored_as() -> None:
    """Rules that changed in between find the event there; the profile takes each message in once."""
    async with RuledRig(rule("mapping", {"tags": ["old"]}), workers=1) as rig:
        rig.faults.add(Fault("put", Crash(), "before"))
        await rig.send(events=[{"type": "a"}])
        worker = rig.rules

        def new_rules(*args: Any) -> Worker:
            made = Rig.worker(rig, *args)
            made.book.use(rules.pop(0) if len(rules) > 1 else rules[0])
            return made

        rules = [worker, compile_rules([rule("mapping", {"tags": ["new"]})])]
        rig.worker = new_rules  # type: ignore[method-assign]
        assert await rig.drain() == 1
        assert [event["tags"]["values"] for event in await rig.events()] == [["old"]]
        await rig.audit()


async def test_rules_can_change_while_the_worker_runs() -> None:
    async with Rig(workers=1) as rig, rig.running() as worker:
        for tag in ("one", "two"):
            worker.book.use(compile_rules([rule("mapping", {"tags": [tag]}, event_type="a")]))
            await rig.send("a", "b")
            await rig.settled()
        assert [event["tags"]["values"] for event in await rig.events()] == [["one"], [], ["two"], []]


async def test_the_servers_own_events_go_through_no_rule() -> None:
    async with RuledRig(rule("mapping", {"tags": ["x"]}), needs("nothing", id="v")) as rig:
        await rig.send("a")
        await rig.drain()
        own = [event for event in await rig.records("event") if event["source"]["id"].startswith("@")]
        assert len(own) == 3
        assert all(event["metadata"]["valid"] and "x" not in event["tags"]["values"] for event in own)


async def test_a_sessions_context_can_be_reshaped_for_a_new_session() -> None:
    made = {"session": {"browser": {"local": {"device": {"resolution": "1x1"}}}, "plan": "event@properties.plan"}}
    async with RuledRig(rule("reshaping", made, event_type="a")) as rig:
        await rig.send(events=[{"type": "a", "properties": {"plan": "gold"}}], payload={"context": {"secret": 1}})
        await rig.drain()
        context = (await rig.record("session", "s1"))["context"]
        assert context["plan"] == "gold"
        assert "secret" not in context
        await rig.send(events=[{"type": "b"}], payload={"context": {"utm": {"source": "g"}}})
        await rig.drain()
        assert (await rig.record("session", "s1"))["utm"]["source"] == "g"


async def test_consents_hold_within_a_batch_from_the_event_that_gives_or_takes_them() -> None:
    guard = rule(
        "compliance",
        {"fields": [{"field": "event@properties.email.main", "action": "remove", "consents": ["a"]}]},
        event_type="sign-up",
    )
    give = {"type": "consent-update", "properties": {"n": "g", "consents": {"a": {"revoke": None}}}}
    take = {"type": "consent-update", "properties": {"n": "t", "consents": {"a": {"revoke": "2020-01-01"}}}}
    async with RuledRig(guard, workers=1) as rig:
        await rig.send(events=[sign_up(n="1"), give, sign_up(n="2")])
        await rig.send(events=[sign_up(n="3"), take])
        await rig.send(events=[sign_up(n="4")])
        await rig.send(events=[sign_up(n="5")], profile="p2", session="s2")
        await rig.drain()
        kept = [
            event["properties"]["n"]
            for event in await rig.events()
            if event["properties"].get("email") == {"main": MAIL}
        ]
        assert kept == ["2", "3"]
        assert "email" not in (await rig.record("profile", "p2"))["data"].get("contact", {})


async def test_a_rule_on_consents_moves_them_on_too() -> None:
    guard = rule(
        "compliance",
        {"fields": [{"field": "event@properties.x", "action": "remove", "consents": ["a"]}]},
        event_type="t",
    )
    grant = rule(
        "to-profile",
        {"ops": [{"to": "consents", "from": "properties.yes"}]},
        event_type="agreed",
        condition="profile@traits.blocked NOT EXISTS",
    )
    agreed = {"type": "agreed", "properties": {"n": "0", "yes": {"a": {"revoke": None}}}}
    async with RuledRig(guard, grant, workers=1) as rig:
        await rig.send(events=[agreed, {"type": "t", "properties": {"x": 1, "n": "1"}}])
        await rig.drain()
        assert (await rig.events())[-1]["properties"] == {"x": 1, "n": "1"}
        assert (await rig.record("profile", "p1"))["consents"] == {"a": {"revoke": None}}


async def test_withdrawing_a_consent_cleans_the_profile() -> None:
    fields = [
        {"field": "profile@data.contact.email.main", "action": "hash", "consents": ["a"]},
        {"field": "profile@traits.plan", "action": "remove", "consents": ["a"]},
    ]
    async with RuledRig(
        rule("compliance", {"fields": fields}),
        rule("to-profile", {"ops": [{"to": "traits.plan", "value": 1}]}, event_type="sign-up"),
    ) as rig:
        await rig.send(
            events=[{"type": "consent-update", "properties": {"consents": {"a": {"revoke": None}}}}, sign_up()]
        )
        await rig.drain()
        profile = await rig.record("profile", "p1")
        assert profile["data"]["contact"]["email"]["main"] == MAIL
        assert profile["traits"] == {"plan": 1}
        await rig.send(events=[{"type": "consent-update", "properties": {"consents": {"a": {"revoke": "2020-01-01"}}}}])
        await rig.drain()
        profile = await rig.record("profile", "p1")
        assert profile["data"]["contact"]["email"]["main"].startswith("h:")
        assert profile["traits"] == {}
        hashed = profile["data"]["contact"]["email"]["main"]
        await rig.send("page-view")
        await rig.drain()
        assert (await rig.record("profile", "p1"))["data"]["contact"]["email"]["main"] == hashed


async def test_addresses_and_headers_can_be_taken_away_and_the_rest_of_the_record_stays() -> None:
    fields = [
        {"field": "event@metadata.ip", "action": "remove"},
        {"field": "event@device.ip", "action": "remove"},
        {"field": "event@request.headers.user-agent", "action": "hash"},
        {"field": "event@hit.url", "action": "remove"},
    ]
    sent = {"type": "a", "properties": {"n": 1}, "context": {"page": {"url": "u", "title": "t"}}}
    async with RuledRig(rule("compliance", {"fields": fields}, source="default")) as rig:
        for source in ("default", "other"):
            await rig.send(events=[sent], ip="10.0.0.1", headers={"user-agent": "x"}, source=source, session=source)
        await rig.drain()
        clean, plain = sorted(await rig.events(), key=lambda event: event["source"]["id"])
        assert "10.0.0.1" not in msgspec.json.encode(clean).decode()
        assert clean["request"]["headers"]["user-agent"].startswith("h:")
        assert clean["hit"] == {"name": "t"}
        assert plain["metadata"]["ip"] == "10.0.0.1"
        assert clean.keys() == plain.keys()
        assert clean["properties"] == plain["properties"]


UNREADABLE = b'{"source":{"id":"default"},"events":[{"type":"a","properties":{"x":1e999,"y":"secret"}}]}'


@pytest.mark.parametrize(
    ("made", "kept", "valid", "warning"),
    [
        (rule("mapping", {"tags": ["t"]}), True, True, False),
        (needs("x"), True, False, False),
        (rule("reshaping", {"properties": {"-": ["y"]}}), True, True, True),
        (rule("compliance", {"fields": [{"field": "event@properties.y", "action": "hash"}]}), False, True, True),
    ],
    ids=["mapping", "validation", "reshaping", "compliance"],
)
async def test_properties_that_cant_be_read_are_kept_unless_a_rule_guards_them(
    made: Rule, kept: bool, valid: bool, warning: bool
) -> None:
    async with RuledRig(made) as rig:
        head = Head(id="m", received_ms=1_800_000_000_000, source="default", session="s", profile="p", save=SAVE_ALL)
        await rig.queue.publish(Publication("p", encode_head(head), UNREADABLE, 1))
        await rig.drain()
        docs = [doc for doc in (await rig.store.search("event", _ALL)).result if b'"type":"a"' in doc]
        assert len(docs) == 1
        assert (b"1e999" in docs[0]) is kept
        assert (b'"valid":true' in docs[0]) is valid
        assert (b'"warning":true' in docs[0]) is warning


async def test_an_event_that_is_not_to_be_stored_still_goes_through_rules_into_the_profile() -> None:
    count = rule("to-profile", {"ops": [{"to": "traits.n", "from": "properties.n"}]})
    async with RuledRig(count) as rig:
        await rig.send(events=[{"type": "a", "properties": {"n": 7}, "options": {"saveEvent": False}}])
        await rig.drain()
        assert (await rig.record("profile", "p1"))["traits"] == {"n": 7}
        assert await rig.events() == []


async def test_a_call_without_a_profile_has_given_no_consent() -> None:
    fields = [{"field": "event@properties.x", "action": "remove", "consents": ["a"]}]
    async with RuledRig(rule("compliance", {"fields": fields})) as rig:
        await rig.send(events=[{"type": "a", "properties": {"x": 1}}], profile=None, session=None, save=SAVE_EVENTS)
        await rig.drain()
        assert [event["properties"] for event in await rig.events()] == [{}]


async def test_a_rule_that_fails_is_a_warning_and_one_that_guards_takes_the_data_away(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """No rule is known to fail; should one, it costs the event that rule and nothing else."""
    from tracardi_lite.pipeline.rules import compliance, traits

    def fail(*_: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(traits.TraitsMapping, "traits", fail)
    monkeypatch.setattr(compliance.Compliance, "clean", fail)
    fields = [{"field": "event@properties.x", "action": "remove"}]
    async with RuledRig(rule("mapping", {"traits": {"x": "x"}}, id="m"), rule("compliance", {"fields": fields})) as rig:
        await rig.send(events=[{"type": "a", "properties": {"x": 1}}])
        await rig.drain()
        [event] = await rig.events()
        assert event["properties"] == {}
        assert event["metadata"]["warning"] is True
        assert [warning.split()[:3] for warning in event["aux"]["warnings"]] == [
            ["compliance", "rule", "r"],
            ["mapping", "rule", "m"],
        ]
        await rig.audit()
