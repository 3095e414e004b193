"""Waiting at start for servers that start at the same time: a line for each try, and an end."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

import structlog

from tracardi_lite.clock import Clock
from tracardi_lite.errors import Misconfigured, TryLater, Unavailable, Untrusted

T = TypeVar("T")

log = structlog.get_logger(__name__)

PAUSE_S = 0.5
PAUSE_MAX_S = 5.0


async def ready(
    part: str | None, attempt: Callable[[], Awaitable[T]], limit_s: float, clock: Clock, stop: asyncio.Event
) -> T:
    """What ``attempt`` gives, tried again after growing pauses while it raises ``TryLater``.

    ``part`` is what is waited for, as the log's lines name it; None where that is for the error to say.

    After ``limit_s`` seconds, or when ``stop`` is set meanwhile, the last error is raised. Other errors are raised at
    once, and ``Untrusted`` as ``Misconfigured``: no waiting makes us trust a server.
    """
    deadline, pause_s = clock.monotonic() + limit_s, PAUSE_S
    while True:
        try:
            return await attempt()
        except Untrusted as error:
            raise Misconfigured(error.key, error.problem, error.fix) from error
        except TryLater as error:
            left_s = deadline - clock.monotonic()
            if left_s <= 0 or stop.is_set():
                raise
            log.warning("waiting_for", part=part or error.part, reason=error.reason, seconds_left=round(left_s, 1))
        await _pause(min(pause_s, left_s), clock, stop)
        pause_s = min(pause_s * 2, PAUSE_MAX_S)


class Patience:
    """What a start has for all its servers together, so that its end doesn't depend on how many are away."""

    def __init__(self, limit_s: float, clock: Clock, stop: asyncio.Event) -> None:
        self._clock = clock
        self._stop = stop
        self._limit_s = limit_s
        self._end = clock.monotonic() + limit_s

    async def ready(self, part: str | None, attempt: Callable[[], Awaitable[T]]) -> T:
        """As ``ready``, with what is left; at least one try. The last error says how long was waited in all."""
        try:
            return await ready(part, attempt, self._end - self._clock.monotonic(), self._clock, self._stop)
        except TryLater as error:
            waited = f"a start waits {self._limit_s:g} s for its servers (WAIT_FOR_DEPENDENCIES)"
            raise Unavailable(part or error.part, f"{error.reason}; {waited}") from error


async def _pause(seconds: float, clock: Clock, stop: asyncio.Event) -> None:
    tasks = [asyncio.create_task(stop.wait()), asyncio.ensure_future(clock.sleep(seconds))]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
