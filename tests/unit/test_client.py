"""``AsyncClient`` against a collector that fails on command."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any, Unpack

import pytest
from aiohttp import ServerDisconnectedError

from tests.standin import Collector, Plan, running
from tracardi_lite.client import (
    AsyncClient,
    AttemptFailed,
    BufferFull,
    DeliveryFailed,
    Event,
    Options,
    Receipt,
    Refused,
    RetryPolicy,
    Undelivered,
)
from tracardi_lite.testing.clock import FakeClock, eventually

QUICK = RetryPolicy(base_s=0.001, cap_s=0.01, tries=5)


@pytest.fixture
async def collector() -> AsyncIterator[Collector]:
    async with running() as made:
        yield made


def client_of(collector: Collector, **options: Unpack[Options]) -> AsyncClient:
    defaults: Options = {"retry": QUICK, "batch_age_s": 0.01}
    defaults.update(options)
    return AsyncClient(collector.url, "default", **defaults)


async def test_events_of_one_session_travel_in_one_call(collector: Collector) -> None:
    async with client_of(collector, batch_age_s=60) as tracardi:
        ids = [await tracardi.track("page-view", {"n": n}, session_id="s-1") for n in range(5)]

    (call,) = collector.calls
    assert call["source"] == {"id": "default"}
    assert call["session"] == {"id": "s-1"}
    assert [event["id"] for event in call["events"]] == ids
    assert [event["properties"] for event in call["events"]] == [{"n": n} for n in range(5)]
    assert collector.headers[0]["User-Agent"].startswith("tracardi-lite/")


async def test_events_of_different_sessions_never_share_a_call(collector: Collector) -> None:
    async with client_of(collector) as tracardi:
        for n in range(6):
            await tracardi.track("page-view", session_id=f"s-{n % 2}")

    assert sorted(call["session"]["id"] for call in collector.calls) == ["s-0", "s-1"]
    assert len(collector.taken) == 6


async def test_a_full_batch_goes_at_once_and_the_rest_when_it_is_old() -> None:
    clock = FakeClock()
    async with running() as collector, client_of(collector, clock=clock, batch_events=3, batch_age_s=5) as tracardi:
        for _ in range(4):
            await tracardi.track("page-view", session_id="s-1")
        await eventually(lambda: len(collector.calls) == 1 and tracardi.stats.pending == 1)
        assert len(collector.calls[0]["events"]) == 3

        await eventually(lambda: clock.sleepers > 0)
        clock.advance(5)
        await eventually(lambda: len(collector.calls) == 2)
        assert len(collector.calls[1]["events"]) == 1


async def test_an_answer_that_was_lost_is_asked_for_again_with_the_same_ids(collector: Collector) -> None:
    collector.plans = [Plan(take=True, drop=True), Plan(take=True, status=502)]
    async with client_of(collector) as tracardi:
        id = await tracardi.track("purchase", session_id="s-1")
        await tracardi.flush()
        assert tracardi.stats.retries == 2

    assert collector.seen[id] == 3, "it came three times"
    assert len(collector.taken) == 1, "and counts once"
    assert len({call["session"]["id"] for call in collector.calls}) == 1


async def test_retry_after_is_waited_for() -> None:
    clock = FakeClock()
    async with running() as collector, client_of(collector, clock=clock, batch_age_s=0) as tracardi:
        collector.plans = [Plan(status=429, headers={"Retry-After": "20"})]
        await tracardi.track("page-view")
        await eventually(lambda: len(collector.calls) == 1 and clock.sleepers > 0)
        clock.advance(19.9)
        for _ in range(20):
            await asyncio.sleep(0)
        assert len(collector.calls) == 1
        clock.advance(0.2)
        await eventually(lambda: tracardi.stats.delivered == 1)


async def test_a_server_that_is_away_for_a_while_costs_nothing(collector: Collector) -> None:
    await collector.stop()
    async with client_of(collector, retry=RetryPolicy(base_s=0.01, cap_s=0.02, tries=1000)) as tracardi:
        ids = [await tracardi.track("page-view", {"n": n}) for n in range(50)]
        await eventually(lambda: tracardi.stats.retries > 2)
        await collector.start()
        await tracardi.flush()

        assert list(collector.taken) == ids
        assert tracardi.stats.delivered == 50


async def test_a_profiles_batches_arrive_in_order_while_others_overtake(collector: Collector) -> None:
    collector.plans = [Plan(status=503), Plan(status=503)]
    async with client_of(collector, batch_events=2, concurrency=3) as tracardi:
        for n in range(20):
            await tracardi.track("step", {"n": n}, session_id="slow")
            await tracardi.track("step", {"n": n}, session_id="other")
        await tracardi.flush()

    for session in ("slow", "other"):
        order = [
            event["properties"]["n"]
            for call in collector.calls
            for event in call["events"]
            if call["session"]["id"] == session
        ]
        assert sorted(set(order)) == list(range(20))
        assert [n for i, n in enumerate(order) if n not in order[:i]] == list(range(20))


async def test_no_more_calls_are_in_flight_than_allowed(collector: Collector) -> None:
    collector.gate.clear()
    async with client_of(collector, concurrency=2, batch_events=1) as tracardi:
        for n in range(10):
            await tracardi.track("page-view", session_id=f"s-{n}")
        await eventually(lambda: collector.in_flight == 2)
        collector.gate.set()
        await tracardi.flush()
    assert collector.most_in_flight == 2
    assert len(collector.taken) == 10


async def test_what_is_given_up_on_goes_to_the_callback_whole(collector: Collector) -> None:
    collector.plan_all = Plan(status=503)
    lost: list[Undelivered] = []
    async with client_of(collector, on_undelivered=lost.append) as tracardi:
        id = await tracardi.track("purchase", {"price": 9.5}, session_id="s-1", tags=["sale"])
        await tracardi.flush()
        assert tracardi.stats.undelivered == 1
        assert tracardi.stats.pending == 0

        (part,) = lost
        assert (part.session_id, part.status) == ("s-1", 503)
        assert part.events[0].id == id
        assert part.events[0].properties == {"price": 9.5}
        assert "5 attempts" in part.reason

        collector.plan_all = None
        receipt = await tracardi.send(part.events, session_id=part.session_id)
        assert receipt.event_ids == (id,)
    assert list(collector.taken) == [id]


async def test_without_a_callback_it_is_raised_once(collector: Collector) -> None:
    collector.plan_all = Plan(status=503)
    async with client_of(collector) as tracardi:
        await tracardi.track("purchase")
        with pytest.raises(DeliveryFailed, match="1 event not delivered") as failed:
            await tracardi.flush()
        assert failed.value.undelivered[0].events[0].type == "purchase"

        await tracardi.track("purchase")
        await eventually(lambda: tracardi.stats.undelivered == 2)
        with pytest.raises(DeliveryFailed):
            await tracardi.track("next")

        collector.plan_all = None
        await tracardi.track("next")
    assert collector.types == ["next"]


async def test_a_call_that_the_server_will_never_take_is_not_repeated(collector: Collector) -> None:
    collector.plan_all = Plan(status=401, body='{"detail":"Unknown source"}')
    lost: list[Undelivered] = []
    async with client_of(collector, on_undelivered=lost.append) as tracardi:
        await tracardi.track("page-view")
        await tracardi.flush()
        with pytest.raises(Refused, match="Unknown source") as refused:
            await tracardi.send([Event("page-view")])

    assert refused.value.status == lost[0].status == 401
    assert len(collector.calls) == 2


async def test_something_else_at_the_address_is_not_believed(collector: Collector) -> None:
    collector.plans = [Plan(status=200, body="null"), Plan(status=200, body="<html>log in to the wifi</html>")]
    async with client_of(collector) as tracardi:
        await tracardi.track("page-view")
    assert len(collector.taken) == 1
    assert len(collector.calls) == 3


async def test_one_bad_event_is_reported_and_sinks_no_other(collector: Collector) -> None:
    receipts: list[Receipt] = []
    async with client_of(collector, on_receipt=receipts.append) as tracardi:
        for type in ("first", "refused", "last"):
            await tracardi.track(type)
        await tracardi.flush()
        stats = tracardi.stats

    (receipt,) = receipts
    assert receipt.status == 226
    assert [(error.index, error.event_id) for error in receipt.errors] == [(1, receipt.event_ids[1])]
    assert collector.types == ["first", "last"]
    assert (stats.delivered, stats.refused) == (2, 1)


async def test_a_callback_that_fails_is_logged_and_stops_nothing(
    collector: Collector, caplog: pytest.LogCaptureFixture
) -> None:
    def broken(receipt: Receipt) -> None:
        raise RuntimeError("mistake in the callback")

    async with client_of(collector, on_receipt=broken, batch_events=1) as tracardi:
        await tracardi.track("first")
        await tracardi.track("second")
        await tracardi.flush()
    assert collector.types == ["first", "second"]
    assert "mistake in the callback" in caplog.text


async def test_a_full_buffer_raises_when_told_to(collector: Collector) -> None:
    collector.gate.clear()
    async with client_of(collector, buffer_events=2, overflow="raise") as tracardi:
        await tracardi.track("first")
        await tracardi.track("second")
        with pytest.raises(BufferFull):
            await tracardi.track("third")
        collector.gate.set()
        await tracardi.flush()
        await tracardi.track("fourth")
    assert collector.types == ["first", "second", "fourth"]


async def test_a_full_buffer_makes_the_sender_wait_and_not_for_ever(collector: Collector) -> None:
    collector.gate.clear()
    async with client_of(collector, buffer_events=1, wait_s=0.05) as tracardi:
        await tracardi.track("first")
        with pytest.raises(BufferFull, match=r"0\.05 s"):
            await tracardi.track("second")
        waiting = asyncio.create_task(tracardi.track("third"))
        await asyncio.sleep(0)
        assert not waiting.done()
        collector.gate.set()
        await waiting
    assert collector.types == ["first", "third"]


async def test_bytes_bound_the_buffer_too(collector: Collector) -> None:
    collector.gate.clear()
    async with client_of(collector, buffer_bytes=2000, overflow="raise") as tracardi:
        await tracardi.track("first", {"text": "x" * 1500})
        with pytest.raises(BufferFull):
            await tracardi.track("second", {"text": "x" * 1500})
        with pytest.raises(ValueError, match="larger than the whole buffer"):
            await tracardi.track("third", {"text": "x" * 3000})
        collector.gate.set()


async def test_a_client_is_one_visitor_unless_told_otherwise(collector: Collector) -> None:
    async with client_of(collector) as tracardi:
        own = tracardi.session_id
        await tracardi.track("first")
        await tracardi.flush()
        assert tracardi.profile_id == f"profile-of-{own}"
        await tracardi.track("second")

    assert [call["session"]["id"] for call in collector.calls] == [own, own]
    assert [call["profile"] for call in collector.calls] == [None, {"id": f"profile-of-{own}"}]


async def test_each_profile_has_a_session_of_its_own(collector: Collector) -> None:
    async with client_of(collector) as tracardi:
        for profile in ("p-1", "p-2", "p-1"):
            await tracardi.track("page-view", profile_id=profile)
            await tracardi.flush()
        await tracardi.track("page-view")

    sessions = [call["session"]["id"] for call in collector.calls]
    assert sessions[0] == sessions[2]
    assert len(set(sessions)) == 3


async def test_after_a_merge_the_surviving_id_is_sent(collector: Collector) -> None:
    receipts: list[Receipt] = []
    collector.merge("old", "new")
    async with client_of(collector, on_receipt=receipts.append) as tracardi:
        await tracardi.track("page-view", session_id="s-1", profile_id="old")
        await tracardi.flush()
        await tracardi.track("page-view", session_id="s-2", profile_id="old")
        await tracardi.flush()

    assert [call["profile"] for call in collector.calls] == [{"id": "old"}, {"id": "new"}]
    assert [(receipt.profile_id, receipt.replaced) for receipt in receipts] == [("new", True), ("new", False)]


async def test_the_clients_own_profile_follows_a_merge_even_between_two_attempts(collector: Collector) -> None:
    async with client_of(collector, profile_id="mine") as tracardi:
        await tracardi.track("first")
        await tracardi.flush()
        collector.merge("mine", "ours")
        await tracardi.track("second")
        await tracardi.flush()
        assert tracardi.profile_id == "ours"
        await tracardi.track("third")
    assert [call["profile"]["id"] for call in collector.calls] == ["mine", "mine", "ours"]


async def test_sending_at_once_returns_the_receipt(collector: Collector) -> None:
    events = [Event("a"), Event("b")]
    async with client_of(collector, context={"app": "shop"}, options={"saveSession": True}) as tracardi:
        receipt = await tracardi.send(events, session_id="s-1", options={"debugger": True})
        with pytest.raises(ValueError, match="no events"):
            await tracardi.send([])

    assert receipt.ok
    assert receipt.event_ids == tuple(event.id for event in events)
    assert receipt.session_id == "s-1"
    assert collector.calls[0]["context"] == {"app": "shop"}
    assert collector.calls[0]["options"] == {"debugger": True}


async def test_compressed_bodies_arrive_whole(collector: Collector) -> None:
    async with client_of(collector, compress=True) as tracardi:
        await tracardi.track("small")
        await tracardi.flush()
        await tracardi.track("large", {"text": "x" * 5000})
    assert [headers.get("Content-Encoding") for headers in collector.headers] == [None, "gzip"]
    assert collector.types == ["small", "large"]


async def test_closing_gives_up_within_its_time_and_hands_everything_back(collector: Collector) -> None:
    collector.gate.clear()
    tracardi = await client_of(collector, batch_events=1, concurrency=1).open()
    ids = [await tracardi.track("page-view") for _ in range(3)]
    await eventually(lambda: collector.in_flight == 1)

    with pytest.raises(DeliveryFailed, match="3 events not delivered: closed") as failed:
        await tracardi.close(timeout_s=0.05)

    assert [event.id for part in failed.value.undelivered for event in part.events] == ids
    assert tracardi.stats.pending == 0
    await tracardi.close()
    with pytest.raises(RuntimeError, match="not open"):
        await tracardi.track("late")


async def test_an_error_inside_the_block_is_not_hidden_by_what_was_left_behind(
    collector: Collector, caplog: pytest.LogCaptureFixture
) -> None:
    collector.plan_all = Plan(status=503)

    async def fails() -> None:
        async with client_of(collector) as tracardi:
            await tracardi.track("page-view")
            raise KeyError("the real problem")

    with pytest.raises(KeyError, match="the real problem"):
        await fails()
    assert "1 event not delivered" in caplog.text


async def test_flush_says_when_its_time_is_over(collector: Collector) -> None:
    collector.gate.clear()
    async with client_of(collector) as tracardi:
        await tracardi.track("page-view")
        with pytest.raises(TimeoutError, match="1 events"):
            await tracardi.flush(timeout_s=0.02)
        collector.gate.set()
    assert len(collector.taken) == 1


@pytest.mark.parametrize("url", ["", "localhost:8686", "ftp://host", "http://"])
def test_an_address_that_is_none_is_refused_at_once(url: str) -> None:
    with pytest.raises(ValueError, match="address"):
        AsyncClient(url, "default")


async def test_a_client_is_opened_once(collector: Collector) -> None:
    tracardi = client_of(collector)
    with pytest.raises(RuntimeError, match="not open"):
        await tracardi.track("early")
    async with tracardi:
        with pytest.raises(RuntimeError, match="opened once"):
            await tracardi.open()


async def test_the_stats_add_up_at_every_moment(collector: Collector) -> None:
    def balanced(stats: Any) -> bool:
        return bool(stats.tracked == stats.delivered + stats.refused + stats.undelivered + stats.pending)

    collector.plans = [Plan(status=503), Plan(status=422), Plan(status=503)]
    async with client_of(collector, batch_events=2, on_undelivered=lambda lost: None) as tracardi:
        for n in range(12):
            await tracardi.track("refused" if n % 5 == 4 else "page-view")
            assert balanced(tracardi.stats)
        await tracardi.flush()
        stats = tracardi.stats
        assert balanced(stats)
        assert stats.undelivered == 2
        assert stats.refused == 2
        assert stats.pending == 0


async def test_an_attempt_sends_exactly_what_is_given(collector: Collector) -> None:
    async with client_of(collector, session_id="own", profile_id="mine", context={"page": 1}) as tracardi:
        receipt = await tracardi.attempt([Event("page-view", id=""), Event("page-view", id="e-2")])
        other = await tracardi.attempt([Event("page-view", id="")], session_id="s-1", profile_id="p-1", context={})
        assert (tracardi.session_id, tracardi.profile_id) == ("own", "mine"), "nothing is learned from it"

    first, second = collector.calls
    assert (first["session"], first["profile"], first["context"]) == (None, None, {"page": 1})
    assert [event.get("id") for event in first["events"]] == [None, "e-2"]
    assert (second["session"], second["profile"], second["context"]) == ({"id": "s-1"}, {"id": "p-1"}, {})
    assert receipt.event_ids == ("", "e-2")
    assert receipt.session_id == "session-1", "made by the server"
    assert (other.session_id, other.profile_id) == ("s-1", "p-1")


@pytest.mark.parametrize(
    ("plan", "status", "perhaps_taken"),
    [
        (Plan(status=503, headers={"Retry-After": "7"}), 503, True),
        (Plan(status=429, headers={"Retry-After": "7"}), 429, False),
        (Plan(status=200, body="<html>"), 200, True),
    ],
)
async def test_an_attempt_that_is_not_taken_is_not_repeated(
    collector: Collector, plan: Plan, status: int, perhaps_taken: bool
) -> None:
    collector.plans = [plan]
    async with client_of(collector) as tracardi:
        with pytest.raises(AttemptFailed) as failed:
            await tracardi.attempt([Event("page-view")])
    assert len(collector.calls) == 1
    assert (failed.value.status, failed.value.perhaps_taken) == (status, perhaps_taken)
    assert failed.value.retry_after_s == (7.0 if status != 200 else None)


async def test_an_attempt_without_an_answer_may_have_been_taken_unless_nobody_was_there(collector: Collector) -> None:
    collector.plans = [Plan(drop=True, take=True)]
    async with client_of(collector) as tracardi:
        with pytest.raises(AttemptFailed) as cut:
            await tracardi.attempt([Event("page-view", id="e-1")])
        assert (cut.value.status, cut.value.perhaps_taken) == (None, True)
        assert isinstance(cut.value.__cause__, ServerDisconnectedError)
        assert set(collector.taken) == {"e-1"}
        await collector.stop()
        with pytest.raises(AttemptFailed) as nobody:
            await tracardi.attempt([Event("page-view")])
        assert (nobody.value.status, nobody.value.perhaps_taken) == (None, False)


async def test_a_slow_attempt_says_that_time_was_up(collector: Collector) -> None:
    collector.gate.clear()
    async with client_of(collector, timeout_s=0.05) as tracardi:
        with pytest.raises(AttemptFailed) as late:
            await tracardi.attempt([Event("page-view")])
    assert isinstance(late.value.__cause__, TimeoutError)
    assert late.value.perhaps_taken


async def test_an_attempt_that_is_wrong_is_refused(collector: Collector) -> None:
    collector.plans = [Plan(status=401)]
    async with client_of(collector) as tracardi:
        with pytest.raises(Refused):
            await tracardi.attempt([Event("page-view")])
        with pytest.raises(ValueError, match="no events"):
            await tracardi.attempt([])


async def test_what_may_be_sent_again_needs_an_id(collector: Collector) -> None:
    async with client_of(collector) as tracardi:
        with pytest.raises(ValueError, match="attempt"):
            await tracardi.send([Event("page-view", id="")])
        assert await tracardi.track("page-view", id="")
    assert all(event["id"] for event in collector.taken.values())
