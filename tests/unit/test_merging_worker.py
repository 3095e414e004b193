"""Merging as an operator sees it: whole workers on memory backends, from the call to the profile."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from tests.rig import Rig
from tracardi_lite.pipeline.merging import marks
from tracardi_lite.pipeline.merging.keys import key_hash
from tracardi_lite.ports.store import Entry
from tracardi_lite.settings.schema import DEFAULT_MERGING_SECRET

MAIL = {"type": "sign-up", "properties": {"email": {"main": " Joe@Example.com "}, "firstname": "Joe"}}
KEY = key_hash(DEFAULT_MERGING_SECRET, "emm", "joe@example.com")


def sign_up(**email: str) -> dict[str, Any]:
    return {"type": "sign-up", "properties": {"email": email}}


async def survivor(rig: Rig, id: str) -> str:
    for _ in range(8):
        (entry,) = await rig.store.lookup([f"p:{id}"])
        if entry is None or entry.target == id:
            return id
        id = entry.target
    raise AssertionError("no end")


async def living(rig: Rig) -> dict[str, dict[str, Any]]:
    return {doc["id"]: doc for doc in await rig.records("profile") if marks.into(doc) is None}


async def settle(rig: Rig) -> None:
    async with rig.running():
        await rig.settled()


async def test_a_key_is_claimed_and_listed() -> None:
    async with Rig() as rig:
        await rig.send(events=[MAIL], profile="p1", session="s1")
        await settle(rig)
        assert await rig.store.lookup([f"k:{KEY}"]) == [Entry("p1", "")]
        assert (await rig.record("profile", "p1"))["ids"] == ["p1", KEY]


async def test_a_second_profile_with_the_key_becomes_part_of_the_older_one() -> None:
    async with Rig() as rig:
        await rig.send("page-view", "page-view", profile="p1", session="s1")
        await rig.send("page-view", profile="p2", session="s2")
        await settle(rig)
        await rig.send(events=[MAIL], profile="p2", session="s2")
        await rig.send(events=[MAIL], profile="p1", session="s1")
        await settle(rig)

        assert await survivor(rig, "p2") == "p1"
        profiles = await living(rig)
        assert set(profiles) == {"p1"}
        joe = profiles["p1"]
        assert joe["stats"]["counters"]["events"] == 5
        assert joe["stats"]["views"] == 3
        assert joe["stats"]["visits"] == joe["metadata"]["time"]["visit"]["count"] == 2
        assert joe["ids"] == ["p1", "p2", KEY]
        assert joe["data"]["pii"]["firstname"] == "Joe"
        (told,) = marks.history(joe)
        assert (told["id"], told["why"], told["events"]) == ("p2", ["data.contact.email.main"], 2)
        left = await rig.record("profile", "p2")
        assert (left["active"], left["metadata"]["status"], left["data"]) == (False, "merged", {"anonymous": True})
        assert rig.metrics.profiles_merged.value == 1
        assert not await rig.queue.dead_letters()


async def test_later_calls_of_either_id_and_session_go_to_the_survivor() -> None:
    async with Rig() as rig:
        await rig.send(events=[MAIL], profile="p1", session="s1")
        await rig.send(events=[MAIL], profile="p2", session="s2")
        await settle(rig)
        await rig.send("page-view", profile="p2", session="s2")
        await rig.send("page-view", profile="p2", session="s3")
        await rig.send("page-view", profile="p1", session="s1")
        await settle(rig)
        (one,) = (await living(rig)).values()
        assert one["stats"]["counters"]["events"] == 5
        assert {event["profile"]["id"] for event in (await rig.events())[-3:]} == {one["id"]}
        assert (await rig.record("session", "s2"))["profile"] == {"id": one["id"]}


async def test_a_profile_that_never_had_a_record_is_told_of_and_its_events_are_found() -> None:
    async with Rig() as rig:
        await rig.send(events=[MAIL], profile="p1", session="s1")
        await settle(rig)
        await rig.send(events=[MAIL], profile="p2", session="s2")
        await settle(rig)
        assert set(await living(rig)) == {"p1"}
        assert await survivor(rig, "p2") == "p1"
        joe = (await living(rig))["p1"]
        assert [told["id"] for told in marks.history(joe)] == ["p2"]
        assert {event["profile"]["id"] for event in await rig.events()} <= set(joe["ids"])
        assert joe["metadata"]["time"]["insert"] < joe["metadata"]["time"]["update"]


async def test_chains_end_in_one_and_stay_short() -> None:
    async with Rig(workers=1) as rig:
        for number in range(12):
            # Older than the one before, and of the same address later on: the survivor changes every time.
            who: dict[str, Any] = {
                "profile": f"p{number}",
                "session": f"s{number}",
                "received_ms": 1_800_000_000_000 - number * 1000,
            }
            await rig.send(events=[sign_up(main=f"v{number}@x")], **who)
            await settle(rig)
            if number:
                await rig.send(events=[sign_up(main=f"v{number - 1}@x")], **who)
                await settle(rig)
        assert set(await living(rig)) == {"p11"}
        for number in range(11):
            assert await rig.store.lookup([f"p:p{number}"]) == [Entry("p11", "")], "flat"


async def test_each_address_that_a_profile_had_identifies_it() -> None:
    async with Rig() as rig:
        await rig.send(events=[sign_up(main="a@x"), sign_up(main="b@x")], profile="p1", session="s1")
        await rig.send(events=[sign_up(main="a@x")], profile="p2", session="s2")
        await rig.send(events=[sign_up(main="b@x")], profile="p3", session="s3")
        await settle(rig)
        assert len(await living(rig)) == 1


async def test_one_value_in_two_fields_is_two_keys() -> None:
    async with Rig() as rig:
        await rig.send(events=[sign_up(main="a@x")], profile="p1", session="s1")
        await rig.send(events=[sign_up(business="a@x")], profile="p2", session="s2")
        await settle(rig)
        assert len(await living(rig)) == 2


async def test_apm_no_merges_nobody() -> None:
    async with Rig(apm=False) as rig:
        await rig.send(events=[MAIL], profile="p1", session="s1")
        await rig.send(events=[MAIL], profile="p2", session="s2")
        await settle(rig)
        assert set(await living(rig)) == {"p1", "p2"}
        assert await rig.store.lookup([f"k:{KEY}"]) == [None]
        assert (await rig.record("profile", "p1"))["ids"] == ["p1"]


async def test_a_key_of_a_deleted_profile_is_free() -> None:
    async with Rig() as rig:
        await rig.send(events=[MAIL], profile="p1", session="s1")
        await settle(rig)
        await rig.store.delete("profile", "p1")
        await rig.send(events=[MAIL], profile="p2", session="s2")
        await settle(rig)
        assert set(await living(rig)) == {"p2"}
        assert await rig.store.lookup([f"k:{KEY}"]) == [Entry("p2", "")]


async def test_fields_that_do_not_count_identify_nobody() -> None:
    async with Rig(identification_event_property="data.identifier.pk") as rig:
        await rig.send(events=[MAIL], profile="p1", session="s1")
        await rig.send(events=[MAIL], profile="p2", session="s2")
        await settle(rig)
        assert len(await living(rig)) == 2


RESTRICTED = {"identification_point_type": "restricted", "identification_event_type": "sign-in"}
SIGN_IN = {"type": "Sign In", "properties": {"email": {"main": "joe@example.com"}}}


async def test_restricted_only_events_that_identify_merge_and_only_whom_they_identified() -> None:
    async with Rig(**RESTRICTED) as rig:
        await rig.send(events=[MAIL], profile="p1", session="s1")
        await rig.send(events=[MAIL], profile="p2", session="s2")
        await rig.send(events=[SIGN_IN], profile="p3", session="s3")
        await settle(rig)
        assert set(await living(rig)) == {"p1", "p2", "p3"}
        await rig.send(events=[SIGN_IN], profile="p2", session="s2")
        await settle(rig)
        assert set(await living(rig)) == {"p1", "p2"}


async def test_anonymous_an_event_that_identifies_brings_all_together_who_have_the_key() -> None:
    async with Rig(**{**RESTRICTED, "identification_point_type": "anonymous"}) as rig:
        await rig.send(events=[MAIL], profile="p1", session="s1")
        await rig.send(events=[MAIL], profile="p2", session="s2")
        await rig.send(events=[sign_up(main="other@x")], profile="p4", session="s4")
        await settle(rig)
        assert set(await living(rig)) == {"p1", "p2", "p4"}
        await rig.send(events=[SIGN_IN], profile="p3", session="s3")
        await settle(rig)
        profiles = await living(rig)
        assert set(profiles) == {"p1", "p4"}
        assert profiles["p1"]["stats"]["counters"]["events"] == 3


async def test_a_visitor_of_another_domain_is_the_one_there() -> None:
    async with Rig() as rig:
        await rig.send("page-view", profile="p1", session="s1")
        await rig.send("page-view", profile="p2", session="s2", passed="p1")
        await rig.send("page-view", profile="p3", session="s3", passed="unheard-of")
        await settle(rig)
        await rig.send("page-view", profile="p2", session="s2", passed="p1")
        await settle(rig)
        assert set(await living(rig)) == {"p1", "p3"}
        assert await survivor(rig, "p2") == "p1"
        assert (await living(rig))["p1"]["stats"]["counters"]["events"] == 3


async def test_an_id_issued_while_the_door_could_not_ask_means_whom_the_client_had_sent() -> None:
    async with Rig() as rig:
        await rig.send("page-view", profile="old", session="s1", static=True)
        await settle(rig)
        await rig.send("page-view", profile="new", session="s2", issued=True, sent_profile="old")
        await rig.send("page-view", profile="newer", session="s3", issued=True, sent_profile="unheard-of")
        await settle(rig)
        assert await rig.store.lookup(["p:new"]) == [Entry("old", "", "m1")]
        assert await survivor(rig, "newer") == "newer"
        assert (await living(rig))["old"]["stats"]["counters"]["events"] == 2
        await rig.audit()


@pytest.mark.parametrize("as_hash", [False, True])
async def test_the_primary_id_follows_the_field_that_is_set(as_hash: bool) -> None:
    async with Rig(primary_id="emm-", primary_id_as_hash=as_hash) as rig:
        await rig.send(events=[sign_up(main="Joe@Example.com")], profile="p1", session="s1")
        await rig.send(events=[{"type": "sign-in", "properties": {"pk": "17"}}], profile="p1", session="s1")
        await settle(rig)
        assert (await rig.record("profile", "p1"))["primary_id"] == (KEY if as_hash else "Joe@Example.com")


async def test_doors_are_told_of_a_merge_before_they_can_see_it_and_again_after_it() -> None:
    async with Rig() as rig:
        await rig.send("page-view", profile="p2", session="s2")
        await rig.send(events=[MAIL], profile="p1", session="s1")
        await settle(rig)
        worker = rig.worker()
        cache = worker._cache
        announce = cache.announce
        meant: dict[str, list[str]] = {}

        async def noted(keys: Sequence[str]) -> None:
            for key in keys:
                meant.setdefault(key, []).append(await survivor(rig, key.removeprefix("p:")))
            await announce(keys)

        cache.announce = noted  # type: ignore[method-assign]
        await rig.send(events=[MAIL], profile="p2", session="s2")
        async with rig.running(worker):
            await rig.settled()
        [(key, targets)] = meant.items()
        [living_] = await living(rig)
        loser = key.removeprefix("p:")
        assert targets == [loser, living_]
        assert {loser, living_} == {"p1", "p2"}
