"""Waiting for servers at start: until they are there, the time is up, or somebody says stop."""

from __future__ import annotations

import asyncio

import pytest

from tracardi_lite.errors import Misconfigured, Unavailable, Untrusted
from tracardi_lite.testing.clock import FakeClock
from tracardi_lite.waiting import Patience, ready


class Server:
    """Away for so many tries."""

    def __init__(self, away: int) -> None:
        self.away = away
        self.tries = 0

    async def attempt(self) -> str:
        self.tries += 1
        if self.tries <= self.away:
            raise Unavailable("queue", "connection refused")
        return "here"


async def step(clock: FakeClock, task: asyncio.Task[str]) -> None:
    """Let it come to its next sleep, and end that."""
    for _ in range(20):
        await asyncio.sleep(0)
    if not task.done():
        assert clock.sleepers == 1
        clock.advance(5)


async def test_it_tries_until_the_server_is_there() -> None:
    server, clock = Server(away=3), FakeClock()
    task = asyncio.create_task(ready("queue", server.attempt, 60, clock, asyncio.Event()))
    for _ in range(5):
        await step(clock, task)
    assert task.result() == "here"
    assert server.tries == 4


async def test_the_time_is_bounded_and_the_last_reason_said() -> None:
    server, clock = Server(away=1000), FakeClock()
    task = asyncio.create_task(ready("queue", server.attempt, 12, clock, asyncio.Event()))
    for _ in range(6):
        await step(clock, task)
    with pytest.raises(Unavailable, match="refused"):
        task.result()
    assert server.tries == 4


async def test_zero_waits_not_at_all() -> None:
    server = Server(away=1)
    with pytest.raises(Unavailable):
        await ready("queue", server.attempt, 0, FakeClock(), asyncio.Event())
    assert server.tries == 1


async def test_a_stop_ends_the_wait() -> None:
    server, stop = Server(away=1000), asyncio.Event()
    task = asyncio.create_task(ready("queue", server.attempt, 60, FakeClock(), stop))
    for _ in range(20):
        await asyncio.sleep(0)
    stop.set()
    with pytest.raises(Unavailable):
        await asyncio.wait_for(task, 5)


async def test_what_waiting_does_not_mend_is_said_at_once() -> None:
    async def attempt() -> None:
        raise Misconfigured("queue_url", "no such thing")

    with pytest.raises(Misconfigured):
        await ready("queue", attempt, 60, FakeClock(), asyncio.Event())


async def test_a_server_that_is_not_trusted_is_not_waited_for() -> None:
    async def attempt() -> None:
        raise Untrusted("queue", "pulsar_ca_file", "not trusted.", "Set it.")

    with pytest.raises(Misconfigured, match=r"pulsar_ca_file: not trusted\. Set it\."):
        await ready("queue", attempt, 60, FakeClock(), asyncio.Event())


async def test_servers_are_waited_for_together_and_the_end_says_how_long() -> None:
    clock = FakeClock()
    patience = Patience(12, clock, asyncio.Event())
    first = asyncio.create_task(patience.ready("registry", Server(away=3).attempt))
    for _ in range(4):
        await step(clock, first)
    assert first.result() == "here"
    second = Server(away=1000)
    with pytest.raises(Unavailable, match=r"refused; a start waits 12 s for its servers \(WAIT_FOR_DEPENDENCIES\)"):
        await asyncio.wait_for(patience.ready("queue", second.attempt), 5)
    assert second.tries == 1, "nothing was left of the time"
