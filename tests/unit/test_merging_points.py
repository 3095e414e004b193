"""Identification points: rules by which events tell who their customer is."""

from __future__ import annotations

from typing import Any

import pytest

from tests.rig import Rig
from tracardi_lite.pipeline.merging import marks
from tracardi_lite.pipeline.merging.keys import key_hash
from tracardi_lite.pipeline.rules.fault import RuleFault
from tracardi_lite.pipeline.rules.ruleset import Switches, compile_rule, compile_rules
from tracardi_lite.pipeline.worker import Worker
from tracardi_lite.ports.registry import Rule
from tracardi_lite.ports.store import Entry
from tracardi_lite.settings.schema import DEFAULT_MERGING_SECRET


def point(anonymous: bool = False, **fields: Any) -> Rule:
    spec = {"fields": {"account": "data.identifier.id"}, "anonymous": anonymous}
    return Rule(**{"kind": "identification", "id": "shop", "event_type": "account-opened", "spec": spec, **fields})


class PointRig(Rig):
    def __init__(self, *rules: Rule, switches: Switches | None = None, **settings: Any) -> None:
        super().__init__(**settings)
        self.rules = compile_rules(rules, b"key", switches)
        assert not self.rules.broken

    def worker(self, *args: Any) -> Worker:
        worker = super().worker(*args)
        worker.book.use(self.rules)
        return worker

    async def open(self, who: str, **properties: Any) -> None:
        await self.send(events=[{"type": "account-opened", "properties": properties}], profile=who, session=f"s-{who}")

    async def living(self) -> dict[str, dict[str, Any]]:
        await self.drain()
        return {doc["id"]: doc for doc in await self.records("profile") if marks.into(doc) is None}


async def test_a_property_identifies_without_going_into_the_profile() -> None:
    async with PointRig(point()) as rig:
        await rig.open("p1", account=" A7 ")
        await rig.open("p2", account="a7")
        await rig.open("p3", account="b8")
        profiles = await rig.living()
        assert len(profiles) == 2
        key = key_hash(DEFAULT_MERGING_SECRET, "iid", "a7")
        (one,) = [doc for doc in profiles.values() if key in doc["ids"]]
        assert one["stats"]["counters"]["events"] == 2
        assert "identifier" not in one["data"]
        assert [told["why"] for told in marks.history(one)] == [["identification: shop"]]


async def test_it_is_the_same_key_as_that_of_the_profiles_field() -> None:
    async with PointRig(point()) as rig:
        await rig.send(events=[{"type": "identification", "properties": {"id": "A7"}}], profile="p1", session="s-p1")
        await rig.drain()
        await rig.open("p2", account="a7")
        assert set(await rig.living()) == {"p1"}


@pytest.mark.parametrize(
    ("rule", "settings"),
    [
        (point(condition="properties.verified = true"), {}),
        (point(source="other"), {}),
        (point(event_type="another"), {}),
        (point(enabled=False), {}),
        (point(), {"apm": False}),
        (point(), {"switches": Switches(identification=False)}),
        (point(spec={"fields": {"nothing.here": "emm-"}}), {}),
    ],
    ids=["condition", "source", "type", "disabled", "apm", "switch", "field"],
)
async def test_what_a_rule_is_not_for_identifies_nobody(rule: Rule, settings: Any) -> None:
    async with PointRig(rule, **settings) as rig:
        await rig.open("p1", account="a7")
        await rig.open("p2", account="a7")
        assert set(await rig.living()) == {"p1", "p2"}


async def test_an_invalid_event_identifies_nobody() -> None:
    guard = Rule(
        kind="validation",
        id="v",
        spec={"json_schema": {"event@properties": {"required": ["age"]}}},
    )
    async with PointRig(point(), guard) as rig:
        await rig.open("p1", account="a7")
        await rig.open("p2", account="a7")
        assert set(await rig.living()) == {"p1", "p2"}


@pytest.mark.parametrize(("anonymous", "left"), [(False, {"p1", "p2"}), (True, {"p1"})])
async def test_anonymous_takes_in_who_only_lists_the_key(anonymous: bool, left: set[str]) -> None:
    rule = point(anonymous)
    async with PointRig(rule, identification_point_type="restricted", identification_event_type="sign-in") as rig:
        # Listed, since it stands in the profile, and not claimed, since this event does not identify.
        await rig.send(events=[{"type": "identification", "properties": {"id": "a7"}}], profile="p1", session="s-p1")
        await rig.drain()
        assert await rig.store.lookup([f"k:{key_hash(DEFAULT_MERGING_SECRET, 'iid', 'a7')}"]) == [None]
        await rig.open("p2", account="a7")
        assert set(await rig.living()) == left


async def test_a_deleted_owner_frees_the_key() -> None:
    async with PointRig(point()) as rig:
        await rig.open("p1", account="a7")
        await rig.drain()
        await rig.store.delete("profile", "p1")
        await rig.open("p2", account="a7")
        assert set(await rig.living()) == {"p2"}
        assert await rig.store.lookup([f"k:{key_hash(DEFAULT_MERGING_SECRET, 'iid', 'a7')}"]) == [Entry("p2", "")]


@pytest.mark.parametrize(
    ("spec", "where"),
    [
        ({"fields": {}}, ("spec", "fields")),
        ({"fields": {"a": "mail"}}, ("spec", "fields", "a")),
        ({"fields": {"a..b": "emm-"}}, ("spec", "fields", "a..b")),
        ({}, ("spec",)),
        ({"fields": {"a": "emm-"}, "more": 1}, ("spec",)),
    ],
)
def test_a_rule_that_makes_no_sense_is_refused_with_its_place(spec: dict[str, Any], where: tuple[str, ...]) -> None:
    with pytest.raises(RuleFault) as caught:
        compile_rule(point(spec=spec))
    assert caught.value.where[: len(where)] == where
