"""Waiting before another try, and being woken from it.

A pause is drawn from [0, ceiling] ("full jitter": many workers that failed together do not come back together), with a
ceiling that doubles from ``first_s`` to ``longest_s``. A part that names its own pause gets at least that, up to
``longest_s``. The number of tries is bounded by the caller, or by the stop event that ends every wait here.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable

from msgspec import Struct

from tracardi_lite.clock import Clock

# 2**40 times any first pause is beyond any longest one; keeps the power small after years of outage.
_DOUBLINGS_MAX = 40


class Stopped(Exception):
    """The worker is stopping: whatever was being tried is given back to the queue."""


class Backoff(Struct, frozen=True):
    first_s: float
    longest_s: float
    draw: Callable[[], float] = random.random
    """A number in [0, 1)."""

    def ceiling_s(self, failures: int) -> float:
        """The longest pause after that many failures in a row (1 after the first)."""
        return min(self.longest_s, self.first_s * 2.0 ** min(max(failures, 1) - 1, _DOUBLINGS_MAX))

    def pause_s(self, failures: int, at_least_s: float = 0.0) -> float:
        return max(self.ceiling_s(failures) * self.draw(), min(at_least_s, self.longest_s))


async def wait(event: asyncio.Event, clock: Clock, seconds: float) -> bool:
    """Wait for ``event`` for at most ``seconds`` of the clock's time; whether it is set."""
    if event.is_set():
        return True
    if seconds <= 0:
        await asyncio.sleep(0)
        return event.is_set()
    waiter = asyncio.ensure_future(event.wait())
    timer = asyncio.ensure_future(clock.sleep(seconds))
    try:
        await asyncio.wait((waiter, timer), return_when=asyncio.FIRST_COMPLETED)
    finally:
        # Not awaited: a cancellation of this wait that came meanwhile would be taken for theirs, and lost.
        waiter.cancel()
        timer.cancel()
    return event.is_set()


async def pause(stop: asyncio.Event, clock: Clock, seconds: float) -> None:
    """Sit out a pause. Raises ``Stopped`` as soon as ``stop`` is set."""
    if await wait(stop, clock, seconds):
        raise Stopped
