"""Exactly-once effects: whatever step a worker dies at, doing it all again changes nothing."""

from __future__ import annotations

import pytest

from tests.rig import Rig
from tracardi_lite.errors import Unavailable
from tracardi_lite.ports.queue import SUBSCRIPTION
from tracardi_lite.protocol.envelope import SAVE_EVENTS, SAVE_PROFILE, SAVE_SESSION
from tracardi_lite.testing.faults import Crash, Fault

STEPS = [
    ("lookup", 0),
    ("claim", 0),
    ("get", 0),
    ("get", 1),
    ("create_events", 0),
    ("put", 0),
    ("put", 1),
    ("ack", 0),
]


async def test_a_message_becomes_events_a_profile_and_a_session() -> None:
    async with Rig() as rig:
        await rig.send("page-view", "sign-up", profile="p1", session="s1")
        await rig.drain()

        assert [event["type"] for event in await rig.events()] == ["page-view", "sign-up"]
        profile = await rig.record("profile", "p1")
        assert profile["stats"] == {"visits": 1, "views": 1, "counters": {"events": 2}}
        session = await rig.record("session", "s1")
        assert session["profile"] == {"id": "p1"}
        assert await rig.system_events() == {"profile-created": 1, "session-opened": 1, "visit-started": 1}
        await rig.audit()


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize(("call", "skip"), STEPS)
async def test_a_crash_at_any_step_changes_nothing_in_the_end(call: str, skip: int, when: str) -> None:
    async with Rig(workers=1) as rig:
        await rig.send("page-view", "page-view", profile="p1", session="s1")
        await rig.send("page-view", profile="p2", session="s2")
        await rig.send("page-view", profile="p1", session="s1")
        rig.faults.add(Fault(call, Crash(), when, skip=skip))

        assert await rig.drain() == 1

        assert len(await rig.events()) == 4
        assert (await rig.record("profile", "p1"))["stats"] == {"visits": 1, "views": 3, "counters": {"events": 3}}
        assert await rig.system_events() == {"profile-created": 2, "session-opened": 2, "visit-started": 2}
        await rig.audit()


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize(("call", "skip"), STEPS)
async def test_a_crash_while_a_session_is_reopened_makes_one_more_visit(call: str, skip: int, when: str) -> None:
    async with Rig(workers=1) as rig:
        await rig.send("page-view")
        await rig.send("visit-ended")
        await rig.drain()
        await rig.send("page-view")
        await rig.send("page-view", profile="p9", session="s9")
        rig.faults.add(Fault(call, Crash(), when, skip=skip))

        assert await rig.drain() == 1

        assert (await rig.record("profile", "p1"))["stats"]["visits"] == 2
        assert (await rig.record("session", "s1"))["metadata"]["aux"]["visits"] == 2
        await rig.audit()


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("call", ["lookup", "claim", "get", "create_events", "put", "ack", "receive", "subscribe"])
async def test_a_part_that_is_away_for_a_while_costs_time_only(call: str, when: str) -> None:
    async with Rig() as rig:
        for number in range(10):
            await rig.send("page-view", profile=f"p{number % 3}", session=f"s{number % 3}")
        # A consumer whose making, or whose messages, nobody heard of holds them until it dies: a crash, not a pause.
        if call not in ("receive", "subscribe") or when == "before":
            rig.faults.add(Fault(call, Unavailable("store", "is away", 0.01), when, times=3))

        assert await rig.drain() == 0

        assert len(await rig.events()) == 10
        assert rig.metrics.flushes.values
        await rig.audit()


async def test_a_message_delivered_twice_counts_once() -> None:
    async with Rig() as rig:
        rig.faults.repeat = lambda message: True
        for number in range(6):
            await rig.send("page-view", profile=f"p{number % 2}", session=f"s{number % 2}")
        await rig.drain()

        assert (await rig.record("profile", "p0"))["stats"]["counters"]["events"] == 3
        await rig.audit()


async def test_a_replay_of_everything_changes_nothing() -> None:
    async with Rig() as rig:
        for number in range(6):
            await rig.send("page-view", "visit-ended", profile=f"p{number % 2}", session=f"s{number % 2}")
        await rig.drain()
        before = await rig.records("profile"), await rig.records("session"), await rig.records("event")

        assert await rig.queue.seek(SUBSCRIPTION, None) == 12
        await rig.drain()

        assert (await rig.records("profile"), await rig.records("session"), await rig.records("event")) == before
        totals = await rig.queue.totals()
        assert totals.stored == 24  # each replay is received and settled once more


async def test_a_client_that_sends_an_event_again_in_another_call_makes_a_duplicate() -> None:
    async with Rig() as rig:
        again = [{"type": "page-view", "id": "mine"}]
        await rig.send(events=again)
        await rig.drain()
        await rig.send(events=again)
        await rig.drain()

        totals = await rig.queue.totals()
        assert (totals.stored, totals.duplicate) == (1, 1)
        assert (await rig.record("profile", "p1"))["stats"]["counters"]["events"] == 1
        await rig.audit()


async def test_an_id_that_stands_twice_in_one_call_is_stored_once() -> None:
    async with Rig() as rig:
        await rig.send(events=[{"type": "a", "id": "same"}, {"type": "b", "id": "same"}])
        await rig.drain()

        totals = await rig.queue.totals()
        assert (totals.stored, totals.duplicate) == (1, 1)
        await rig.audit()


async def test_a_duplicate_neither_ends_nor_begins_a_visit() -> None:
    async with Rig() as rig:
        view = [{"type": "page-view", "id": "view"}]
        await rig.send(events=view)
        await rig.send("visit-ended")
        await rig.drain()
        await rig.send(events=view)
        await rig.drain()

        assert (await rig.record("session", "s1"))["metadata"]["status"] == "ended"
        assert (await rig.record("profile", "p1"))["stats"]["visits"] == 1
        await rig.audit()


async def test_a_new_session_of_duplicates_alone_is_a_visit_all_the_same() -> None:
    async with Rig() as rig:
        await rig.send(events=[{"type": "page-view", "id": "mine"}], session="s1")
        await rig.drain()
        await rig.send(events=[{"type": "page-view", "id": "mine"}], session="s2")
        await rig.drain()

        assert (await rig.system_events())["visit-started"] == 2
        assert (await rig.record("profile", "p1"))["stats"] == {"visits": 2, "views": 1, "counters": {"events": 1}}
        await rig.audit()


async def test_a_long_silence_begins_the_next_visit() -> None:
    async with Rig(close_visit_after=60) as rig:
        await rig.send("page-view", received_ms=1_800_000_000_000)
        await rig.send("page-view", received_ms=1_800_000_000_000 + 61_000)
        await rig.drain()

        assert (await rig.system_events())["visit-started"] == 2
        assert (await rig.record("profile", "p1"))["stats"]["visits"] == 2
        await rig.audit()


async def test_visit_ended_suppresses_the_servers_events() -> None:
    async with Rig() as rig:
        await rig.send("visit-ended")
        await rig.drain()

        assert await rig.system_events() == {}
        assert (await rig.record("session", "s1"))["metadata"]["status"] == "ended"


async def test_without_system_events_visits_count_the_same() -> None:
    async with Rig(system_events=False) as rig:
        await rig.send("page-view", "visit-ended")
        await rig.send("page-view")
        await rig.drain()

        assert await rig.system_events() == {}
        assert (await rig.record("profile", "p1"))["stats"]["visits"] == 2


@pytest.mark.parametrize(
    ("save", "profiles", "sessions", "events"),
    [
        (SAVE_SESSION | SAVE_EVENTS, 0, 1, 2),
        (SAVE_PROFILE | SAVE_EVENTS, 1, 0, 2),
        (SAVE_PROFILE | SAVE_SESSION, 1, 1, 0),
        (SAVE_PROFILE, 1, 0, 0),
    ],
)
async def test_what_is_not_to_be_saved_is_not(save: int, profiles: int, sessions: int, events: int) -> None:
    async with Rig() as rig:
        await rig.send("page-view", "page-view", save=save)
        await rig.drain()

        assert len(await rig.records("profile")) == profiles
        assert len(await rig.records("session")) == sessions
        stored = await rig.events()
        assert len(stored) == events
        for event in stored:
            assert (event["profile"] is not None, event["session"] is not None) == (bool(profiles), bool(sessions))
        totals = await rig.queue.totals()
        assert (totals.stored, totals.rejected) == (events, 2 - events)
        system = await rig.system_events()
        assert system["profile-created"] == bool(profiles and events)
        assert system["session-opened"] == system["visit-started"] == bool(sessions and events)


async def test_an_event_that_asks_not_to_be_saved_still_takes_effect() -> None:
    async with Rig() as rig:
        unsaved = {"type": "sign-up", "properties": {"firstname": "Ada"}, "options": {"saveEvent": False}}
        await rig.send(events=[unsaved, {"type": "page-view"}])
        await rig.drain()

        totals = await rig.queue.totals()
        assert (totals.stored, totals.rejected) == (1, 1)
        profile = await rig.record("profile", "p1")
        assert profile["data"]["pii"]["firstname"] == "Ada"
        assert profile["stats"]["counters"]["events"] == 1


async def test_a_call_without_a_profile_is_an_event_and_nothing_else() -> None:
    async with Rig() as rig:
        await rig.send("hook", profile=None, session=None)
        await rig.drain()

        (event,) = await rig.records("event")
        assert event["profile"] is None
        assert event["session"] is None
        assert event["metadata"]["profile_less"] is True
        assert not await rig.records("profile")
        assert not await rig.records("session")


async def test_a_profile_that_many_messages_touch_is_written_once_in_a_flush() -> None:
    async with Rig(workers=1, bulk_idle=0.05) as rig:
        for _ in range(50):
            await rig.send("page-view")
        await rig.drain()

        assert rig.metrics.verdicts.values["profile", "stored"] == 1
        assert rig.metrics.verdicts.values["session", "stored"] == 1
        assert (await rig.record("profile", "p1"))["stats"]["counters"]["events"] == 50
        await rig.audit()


async def test_a_replayed_dead_letter_brings_only_the_events_that_died() -> None:
    async with Rig() as rig:
        await rig.send("a", "b", "c", message="m")
        await rig.drain()
        await rig.send("a", "b", "c", message="m", only=[1], key="p1")
        await rig.drain()

        # The same message's same event: as good as stored, not stored again.
        assert len(await rig.events()) == 3
        assert (await rig.queue.totals()).stored == 4
