"""``Client``: the same, from plain threads."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from tests.standin import Collector, Plan, running
from tracardi_lite.client import Client, DeliveryFailed, Event, RetryPolicy

QUICK = RetryPolicy(base_s=0.001, cap_s=0.01, tries=3)


async def run(work: Callable[[Collector], Any], collector: Collector | None = None) -> Collector:
    """The collector lives in this test's loop; what blocks runs beside it."""
    async with running(collector) as collector:
        await asyncio.to_thread(work, collector)
        return collector


async def test_leaving_the_block_delivers_what_was_tracked() -> None:
    def work(collector: Collector) -> None:
        with Client(collector.url, "default", batch_age_s=60) as tracardi:
            for n in range(5):
                tracardi.track("page-view", {"n": n})
            assert tracardi.stats.tracked == 5
        assert tracardi.stats.delivered == 5
        assert tracardi.profile_id == f"profile-of-{tracardi.session_id}"

    collector = await run(work)
    assert len(collector.calls) == 1
    assert collector.types == ["page-view"] * 5


async def test_many_threads_may_share_one_client() -> None:
    def work(collector: Collector) -> None:
        with Client(collector.url, "default", batch_age_s=0.01) as tracardi, ThreadPoolExecutor(8) as pool:
            for n in range(200):
                pool.submit(tracardi.track, "page-view", {"n": n}, session_id=f"s-{n % 7}")
            pool.shutdown()
            tracardi.flush()

    collector = await run(work)
    assert sorted(event["properties"]["n"] for event in collector.taken.values()) == list(range(200))


async def test_sending_at_once_returns_the_receipt() -> None:
    def work(collector: Collector) -> None:
        with Client(collector.url, "default") as tracardi:
            receipt = tracardi.send([Event("a")], session_id="s-1")
            assert tracardi.attempt([Event("a", id="")], session_id="s-1").session_id == "s-1"
            assert receipt.profile_id == "profile-of-s-1"

    await run(work)


async def test_what_is_given_up_on_is_raised_and_the_thread_ends_all_the_same() -> None:
    collector = Collector()
    collector.plan_all = Plan(status=503)

    def work(collector: Collector) -> None:
        with pytest.raises(DeliveryFailed), Client(collector.url, "default", retry=QUICK) as tracardi:
            tracardi.track("page-view")
        assert not [thread for thread in threading.enumerate() if thread.name == "tracardi-client"]
        with pytest.raises(RuntimeError, match="not open"):
            tracardi.track("late")
        tracardi.close()

    await run(work, collector)


async def test_a_client_is_opened_before_it_is_used_and_once() -> None:
    def work(collector: Collector) -> None:
        tracardi = Client(collector.url, "default")
        with pytest.raises(RuntimeError, match="not open"):
            tracardi.track("early")
        with tracardi, pytest.raises(RuntimeError, match="opened once"):
            tracardi.open()

    await run(work)
