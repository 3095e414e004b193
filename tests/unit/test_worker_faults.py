"""Messages that fail, events that can never be stored, workers that stop or lose their partitions."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest

from tests.rig import Rig
from tracardi_lite.errors import Unavailable
from tracardi_lite.flush.brake import PROBE_EVERY_S
from tracardi_lite.pipeline import lanes
from tracardi_lite.pipeline.process import Processor
from tracardi_lite.ports.queue import SUBSCRIPTION, Message, Publication
from tracardi_lite.ports.store import EventWrite, Outcome, RecordWrite, Verdict
from tracardi_lite.testing.clock import FakeClock, eventually
from tracardi_lite.testing.faults import Fault, Faults

NEVER = Verdict(Outcome.NEVER, "mapper_parsing_exception")


def poison(monkeypatch: pytest.MonkeyPatch, is_bad: Any) -> None:
    """Make the code fail on some messages, as a bug would."""
    process = Processor.process

    async def faulty(self: Processor, messages: Any, cache: Any) -> Any:
        if any(is_bad(message) for message in messages):
            raise RuntimeError("no such thing")
        return await process(self, messages, cache)

    monkeypatch.setattr(Processor, "process", faulty)


# --- poison ---


@pytest.mark.parametrize(
    ("head", "body", "reason"),
    [
        (b"\xc1", b"{}", "head"),
        (None, b"{", "body"),
        (None, b'{"source":{"id":"x"},"events":[{"type":1}]}', "body"),
        (None, b'{"source":{"id":"x"},"events":[{"type":"a","properties":{"b":"\xff"}}]}', "UTF-8"),
        (None, b'{"source":{"id":"x"},"events":[]}', "holds 0 events, announced as 1"),
        (
            None,
            b'{"source":{"id":"x"},"events":[{"type":"a","properties":' + b'{"a":' * 3000 + b"1" + b"}" * 3002,
            "body",
        ),
    ],
)
async def test_what_does_not_decode_is_a_dead_letter_and_the_rest_goes_on(
    head: bytes | None, body: bytes, reason: str
) -> None:
    async with Rig() as rig:
        await rig.send("a")
        (good,) = [record for part in rig.log.partitions for record in part.records]
        await rig.queue.publish(Publication("p1", good.head if head is None else head, body, 1))
        await rig.send("b")
        await rig.drain()

        (letter,) = await rig.queue.dead_letters()
        assert reason in letter.reason
        assert (letter.body, letter.indices, letter.events) == (body, None, 1)
        assert [event["type"] for event in await rig.events()] == ["a", "b"]
        await rig.audit()


async def test_events_that_the_door_refused_are_passed_over_even_if_they_do_not_decode() -> None:
    async with Rig() as rig:
        await rig.send(events=[{"type": "a"}, {"type": 7}, {"type": "c"}], skip=[1])
        await rig.drain()
        assert sorted(event["type"] for event in await rig.events()) == ["a", "c"]
        await rig.audit()


async def test_a_message_that_fails_by_itself_is_tried_again_then_buried_and_its_neighbours_live(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    async with Rig(workers=1, max_tries=3) as rig:
        tries: list[int] = []

        def is_bad(message: Message) -> bool:
            if b"poison" not in message.body:
                return False
            tries.append(message.tries)
            return True

        poison(monkeypatch, is_bad)
        for number in range(8):
            await rig.send("poison" if number == 3 else "fine", profile=f"p{number % 4}", session=f"s{number % 4}")
        await rig.drain()

        (letter,) = await rig.queue.dead_letters()
        assert "failed 3 times: RuntimeError: no such thing" in letter.reason
        assert sorted(set(tries)) == [0, 1, 2]
        assert len(await rig.events()) == 7
        await rig.audit()


async def test_later_messages_of_a_key_wait_for_the_one_that_was_put_back(monkeypatch: pytest.MonkeyPatch) -> None:
    async with Rig(workers=1) as rig:
        poison(monkeypatch, lambda message: b'"third"' in message.body and message.tries < 2)
        for name in ("first", "second", "third", "fourth", "fifth"):
            await rig.send(name)
            await rig.send(name, profile="other", session="other")
        await rig.drain()

        # Had the fourth been applied first, the watermark would have swallowed the third.
        profile = await rig.record("profile", "p1")
        assert profile["stats"]["counters"]["events"] == 5
        assert not await rig.queue.dead_letters()
        await rig.audit()


# --- never ---


async def test_what_comes_with_its_tries_used_up_is_not_tried_once_more(monkeypatch: pytest.MonkeyPatch) -> None:
    """The queue counts a try for a message that ended the process; nobody was left to put it back."""
    async with Rig(workers=1, max_tries=3) as rig:

        def kills(message: Message) -> bool:
            message.tries = 3 if b'"killer"' in message.body else 0
            return message.tries > 0

        poison(monkeypatch, kills)
        for kind in ("fine", "killer", "fine"):
            await rig.send(kind)
        worker = rig.worker()
        lane_process = lanes.Lane._process

        async def process(self: lanes.Lane, messages: Sequence[Message]) -> None:
            for message in messages:
                kills(message)
            await lane_process(self, messages)

        monkeypatch.setattr(lanes.Lane, "_process", process)
        async with rig.running(worker):
            await rig.settled()
        (letter,) = await rig.queue.dead_letters()
        assert letter.reason == "ended 3 workers that tried it"
        assert (await rig.queue.totals()).stored == 2
        await rig.audit()


async def test_events_that_can_never_be_stored_go_to_the_dead_letters_alone() -> None:
    async with Rig() as rig:
        rig.faults.refuse = lambda write: NEVER if b'"type":"bad"' in write.doc else None
        await rig.send("good", "bad", "good")
        await rig.drain()

        (letter,) = await rig.queue.dead_letters()
        assert (letter.indices, letter.events, letter.reason) == ([1], 1, NEVER.reason)
        assert (await rig.record("profile", "p1"))["stats"]["counters"]["events"] == 2
        await rig.audit()


async def test_a_replayed_letter_is_stored_and_counted_once_the_store_takes_it() -> None:
    async with Rig() as rig:
        rig.faults.refuse = lambda write: NEVER if b'"type":"bad"' in write.doc else None
        id = await rig.send("good", "bad")
        await rig.drain()
        rig.faults.refuse = lambda write: None

        (letter,) = await rig.queue.dead_letters()
        await rig.queue.take_dead_letter(letter.id, replay=None)
        await rig.send(events=[{"type": "good"}, {"type": "bad"}], message=id, only=letter.indices)
        await rig.drain()

        assert len(await rig.events()) == 2
        assert (await rig.record("profile", "p1"))["stats"]["counters"]["events"] == 2


async def test_a_profile_that_one_message_spoils_is_split_from_the_others() -> None:
    async with Rig(workers=1, bulk_idle=0.05) as rig:

        def refuse(write: EventWrite | RecordWrite) -> Verdict | None:
            return NEVER if isinstance(write, RecordWrite) and b"Mallory" in write.doc else None

        rig.faults.refuse = refuse
        await rig.send("page-view")
        await rig.send(events=[{"type": "sign-up", "properties": {"firstname": "Mallory"}}])
        await rig.send("page-view")
        await rig.send("page-view", profile="p2", session="s2")
        await rig.drain()

        (letter,) = await rig.queue.dead_letters()
        assert letter.reason.startswith("profile: ")
        assert b"Mallory" in letter.body
        assert (await rig.record("profile", "p1"))["stats"]["counters"]["events"] == 2
        assert (await rig.record("profile", "p2"))["stats"]["counters"]["events"] == 1
        totals = await rig.queue.totals()
        assert (totals.stored, totals.dead_lettered) == (3, 1)


async def test_a_session_that_can_not_be_stored_is_told_of_without_losing_events() -> None:
    async with Rig() as rig:
        rig.faults.refuse = lambda w: NEVER if isinstance(w, RecordWrite) and w.kind == "session" else None
        await rig.send("page-view", "page-view")
        await rig.drain()

        (letter,) = await rig.queue.dead_letters()
        assert letter.reason.startswith("session: ")
        assert (letter.events, letter.indices) == (0, [])
        assert (await rig.queue.totals()).stored == 2
        assert (await rig.record("profile", "p1"))["stats"]["counters"]["events"] == 2


async def test_the_brake_stops_a_worker_whose_events_all_die_and_lets_it_go_when_they_live() -> None:
    clock = FakeClock()
    async with Rig(clock, workers=1, bulk_size=100, queue_partitions=1) as rig:
        rig.faults.refuse = lambda write: NEVER
        async with rig.running() as worker:
            for _ in range(6):
                await rig.send(*["a"] * 100)
            await eventually(lambda: worker.stats.braked_since is not None)
            assert "braked" in (worker.stats.problem(clock.monotonic()) or "")
            dead = (await rig.queue.totals()).dead_lettered
            assert dead < 600, "the queue was not emptied into the dead letters"

            clock.advance(PROBE_EVERY_S)
            await eventually(lambda: rig.log.ledger["dead_lettered"] == dead + 100, what="one probe")
            assert worker.stats.braked_since is not None

            rig.faults.refuse = lambda write: None
            await eventually(lambda: clock.sleepers > 0)
            clock.advance(PROBE_EVERY_S)
            await eventually(lambda: worker.stats.braked_since is None)
            await eventually(lambda: rig.log.ledger["stored"] == 600 - dead - 100)
            assert worker.stats.problem(clock.monotonic()) is None


# --- the end ---


async def test_a_worker_that_stops_flushes_what_it_has_taken() -> None:
    clock = FakeClock()
    async with Rig(clock, bulk_idle=0, bulk_timeout=1000) as rig:
        async with rig.running() as worker:
            await rig.send("a", "b")
            await rig.send("c", profile="p2", session="s2")
            await eventually(lambda: worker.stats.waiting_messages == 2)
        assert sum(count for (reason,), count in rig.metrics.flushes.values.items() if reason == "shutdown") >= 1
        assert await rig.pending() == 0
        assert worker.stats.waiting_messages == worker.stats.waiting_events == worker.stats.waiting_bytes == 0
        assert worker.stats.problem(0.0) == "worker: not running"
        await rig.audit()


async def test_a_worker_that_stops_while_the_store_is_away_gives_back_untried() -> None:
    async with Rig() as rig:
        rig.faults.add(Fault("create_events", Unavailable("store", "away"), times=10_000))
        async with rig.running() as worker:
            await rig.send("a")
            await eventually(lambda: worker.stats.store_down_since is not None)
        assert await rig.pending() == 1
        rig.faults.pending.clear()
        await rig.drain()
        await rig.audit()
        assert len(await rig.events()) == 1


async def test_a_drain_that_takes_too_long_is_cut_short() -> None:
    clock = FakeClock()
    async with Rig(clock, workers=1, shutdown_timeout=10) as rig:
        rig.faults.add(Fault("create_events", seconds=1e6, times=100))
        stop = asyncio.Event()
        worker = rig.worker()
        task = asyncio.create_task(worker.run(stop))
        await rig.send("a")
        await eventually(lambda: worker.stats.waiting_messages == 1)
        stop.set()
        await eventually(lambda: clock.sleepers >= 2)
        clock.advance(6.0)
        await asyncio.wait_for(task, 10)
        assert await rig.pending() == 1
        assert worker.stats.waiting_messages == 0


async def test_a_cancelled_worker_gives_everything_back() -> None:
    async with Rig(bulk_idle=0, bulk_timeout=1000) as rig:
        worker = rig.worker()
        task = asyncio.create_task(worker.run(asyncio.Event()))
        await rig.send("a")
        await eventually(lambda: worker.stats.waiting_messages == 1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert worker.stats.waiting_messages == 0
        async with rig.running() as other:
            await eventually(lambda: other.stats.waiting_messages == 1, what="it is delivered again")
        assert len(await rig.events()) == 1
        await rig.audit()


async def test_a_bug_outside_of_a_batch_ends_the_worker_and_shows(monkeypatch: pytest.MonkeyPatch) -> None:
    async with Rig() as rig:

        def broken(self: lanes.Lane, message: Message) -> None:
            raise AssertionError("a bug")

        monkeypatch.setattr(lanes.Lane, "offer", broken)
        await rig.send("a")
        with pytest.raises(BaseExceptionGroup) as caught:
            await rig.worker().run(asyncio.Event())
        assert caught.group_contains(AssertionError, match="a bug")


# --- other workers ---


async def test_a_worker_that_comes_back_after_its_partitions_have_moved_changes_nothing() -> None:
    async with Rig(workers=1, queue_partitions=1) as rig:
        stopped = Faults(Fault("create_events", seconds=5.0), Fault("receive", skip=1, seconds=5.0), clock=FakeClock())
        clock = stopped._clock
        assert isinstance(clock, FakeClock)
        await rig.send("page-view", "page-view")
        async with rig.running(rig.worker(stopped)) as paused:
            await eventually(lambda: stopped.calls["create_events"] == 1, what="it stands before the store")
            async with rig.running():
                state = rig.log.subscription(SUBSCRIPTION)
                await eventually(lambda: len(state.members) == 2)
                # Its lease has run out: the partition goes to the other, from the cursor on.
                state.members.reverse()
                state.fences[0] += 1
                state.owners.pop(0)
                state.members[0].wake()
                await rig.settled()
                await rig.send("page-view")
                await rig.settled()
                clock.advance(5.0)
                await eventually(lambda: paused.stats.waiting_messages == 0, what="the late worker is done")
        assert (await rig.record("profile", "p1"))["stats"] == {"visits": 1, "views": 3, "counters": {"events": 3}}
        assert (await rig.queue.totals()).stored == 3
        await rig.audit()


async def test_two_workers_share_the_partitions_and_the_sessions() -> None:
    async with Rig(queue_partitions=8) as rig, rig.running(), rig.running():
        for number in range(200):
            await rig.send("page-view", profile=f"p{number % 7}", session=f"s{number % 7}")
        await rig.settled()
        await rig.audit()


async def test_one_session_by_two_keys_at_once_is_one_session_with_one_visit() -> None:
    async with Rig(queue_partitions=8, workers=4) as rig, rig.running(), rig.running():
        for session in range(20):
            for number in range(6):
                await rig.send("page-view", profile=f"p{session}-{number}", session=f"s{session}", issued=True)
        await rig.settled()
        await rig.audit()
        profiles = await rig.records("profile")
        assert len(profiles) == 20
        assert all(profile["stats"]["visits"] == 1 for profile in profiles)
        assert all(profile["stats"]["counters"]["events"] == 6 for profile in profiles)


async def test_a_record_deleted_under_a_workers_feet_is_made_anew() -> None:
    async with Rig(workers=1) as rig:
        await rig.send("page-view")
        async with rig.running():
            await rig.settled()
            assert await rig.store.delete("profile", "p1")
            assert await rig.store.delete("session", "s1")
            await rig.send("page-view")
            await rig.settled()
        assert (await rig.record("profile", "p1"))["stats"]["counters"]["events"] == 1
        assert (await rig.system_events())["profile-created"] == 2
