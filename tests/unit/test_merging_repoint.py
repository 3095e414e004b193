"""After a merge, events and sessions come to name the survivor: byte for byte otherwise, and again after a crash."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec

from tests.rig import Rig
from tracardi_lite.errors import Unavailable
from tracardi_lite.metrics import Metrics
from tracardi_lite.pipeline.merging import repoint
from tracardi_lite.pipeline.merging.repoint import GRACE_S, Repointer, renamed
from tracardi_lite.testing.clock import FakeClock, eventually
from tracardi_lite.testing.faults import Fault, FaultyStore

MAIL = {"type": "sign-up", "properties": {"email": {"main": "joe@x"}}}


async def merged(rig: Rig, events: int = 3) -> None:
    """p2 has become part of p1."""
    async with rig.running():
        await rig.send(events=[MAIL], profile="p1", session="s1")
        await rig.settled()
        # What a client sends must not be taken for the record's own field.
        odd: dict[str, Any] = {"properties": {"profile": {"id": "p2"}, "text": '"profile":{"id":"p2"'}}
        for number in range(events):
            await rig.send(
                events=[{"type": "page-view", "time": {"insert": f"2027-01-0{number + 1}"}, **odd}],
                profile="p2",
                session="s2",
            )
        await rig.settled()
        await rig.send(events=[MAIL], profile="p2", session="s2")
        await rig.settled()


async def owners(rig: Rig) -> set[str]:
    found = {event["profile"]["id"] for event in await rig.records("event")}
    return found | {session["profile"]["id"] for session in await rig.records("session")}


async def test_all_records_name_the_survivor_and_nothing_else_of_them_changes() -> None:
    async with Rig() as rig:
        await merged(rig)
        before = {event["id"]: event for event in await rig.records("event")}
        assert await owners(rig) == {"p1", "p2"}
        mover = Repointer(rig.store, rig.clock, rig.metrics)
        moved = await mover.move("p2")
        assert await owners(rig) == {"p1"}
        assert moved == rig.metrics.records_moved.value > 4
        for event in await rig.records("event"):
            old = before[event["id"]]
            assert event == {**old, "profile": {**old["profile"], "id": "p1"}}
        assert (await rig.record("profile", "p2"))["metadata"]["status"] == "moved"
        assert await mover.move("p2") == 0


async def test_it_goes_in_steps(monkeypatch: Any) -> None:
    monkeypatch.setattr(repoint, "STEP", 2)
    async with Rig() as rig:
        await merged(rig, events=7)
        await Repointer(rig.store, rig.clock, rig.metrics).move("p2")
        assert await owners(rig) == {"p1"}


async def test_a_redelivered_event_that_has_moved_is_still_the_same() -> None:
    async with Rig() as rig:
        await merged(rig)
        await Repointer(rig.store, rig.clock, rig.metrics).move("p2")
        await rig.queue.seek("tracardi-function-subscription", 0)
        async with rig.running():
            await rig.settled()
        assert len(await rig.events()) == 5
        assert (await rig.record("profile", "p1"))["stats"]["counters"]["events"] == 5


async def test_what_was_left_is_found_at_the_next_start() -> None:
    async with Rig() as rig:
        await merged(rig)
        mover = Repointer(rig.store, rig.clock, rig.metrics)
        await mover.resume()
        assert len(mover) == 1
        await mover.move("p2")
        again = Repointer(rig.store, rig.clock, rig.metrics)
        await again.resume()
        assert len(again) == 0


async def test_a_profile_that_lives_is_left_alone() -> None:
    async with Rig() as rig:
        await merged(rig)
        mover = Repointer(rig.store, rig.clock, rig.metrics)
        assert await mover.move("p1") == 0
        assert await mover.move("unheard-of") == 0


async def test_it_waits_for_what_is_in_flight_and_survives_a_store_that_is_away() -> None:
    async with Rig() as rig:
        await merged(rig)
        clock, metrics, stop = FakeClock(), Metrics(), asyncio.Event()
        rig.faults.add(Fault("find", Unavailable("store", "away")))
        store = FaultyStore(rig.store, rig.faults)
        store.rewriting = rig.store  # type: ignore[attr-defined]
        mover = Repointer(store, clock, metrics)
        task = asyncio.create_task(mover.run(stop))
        await eventually(lambda: clock.sleepers > 0, what="it waits")
        assert await owners(rig) == {"p1", "p2"}
        for _ in range(2):
            await eventually(lambda: len(mover) == 1 and clock.sleepers > 0, what="it waits")
            clock.advance(GRACE_S)
        while metrics.records_moved.value == 0:
            await eventually(lambda: clock.sleepers > 0 or metrics.records_moved.value > 0, what="it moves")
            clock.advance(1.0)
        assert await owners(rig) == {"p1"}
        stop.set()
        await task


async def test_a_worker_tells_whom_it_has_merged() -> None:
    async with Rig() as rig:
        await rig.send(events=[MAIL], profile="p1", session="s1")
        await rig.send("page-view", profile="p2", session="s2")
        worker = rig.worker()
        async with rig.running(worker):
            await rig.settled()
            await rig.send(events=[MAIL], profile="p2", session="s2")
            await rig.settled()
        assert len(worker.repointer) == 1


def test_only_the_records_own_profile_is_renamed() -> None:
    event = (
        b'{"id":"\\"profile\\":{\\"id\\":\\"a\\"","profile":{"id":"a","primary_id":null},'
        b'"properties":{"profile":{"id":"a"}}}'
    )
    changed = renamed(event, "a", "b")
    assert changed is not None
    assert msgspec.json.decode(changed) == {
        "id": '"profile":{"id":"a"',
        "profile": {"id": "b", "primary_id": None},
        "properties": {"profile": {"id": "a"}},
    }
    assert renamed(event, "c", "b") is None
