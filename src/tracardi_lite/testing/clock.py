"""Time that moves on command, and waiting for a condition with a limit: tests need no sleeps to be sure."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import time
from collections.abc import Callable


class FakeClock:
    """A ``Clock`` that stands still until ``advance``; sleepers wake in the order of their deadlines.

    Not bound to an event loop; ``advance`` is called from the loop whose tasks sleep. Reading it from other threads
    is fine.
    """

    def __init__(self, now_ms: int = 1_800_000_000_000, monotonic: float = 1000.0) -> None:
        self._now_ms = float(now_ms)
        self._monotonic = monotonic
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []
        self._order = itertools.count()
        self.sleeps = 0
        """How often anybody went to sleep: tells a new sleep from the one before it."""

    def now_ms(self) -> int:
        return int(self._now_ms)

    def monotonic(self) -> float:
        return self._monotonic

    async def sleep(self, seconds: float) -> None:
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        self.sleeps += 1
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._sleepers, (self._monotonic + seconds, next(self._order), future))
        await future

    @property
    def sleepers(self) -> int:
        """How many tasks sleep now: what a test waits for before it advances."""
        return sum(not future.done() for _, _, future in self._sleepers)

    def advance(self, seconds: float) -> None:
        """Move both clocks on and wake whoever is due; they run when the caller next awaits."""
        assert seconds >= 0
        self._monotonic += seconds
        self._now_ms += seconds * 1000
        while self._sleepers and self._sleepers[0][0] <= self._monotonic:
            _, _, future = heapq.heappop(self._sleepers)
            if not future.done():
                future.set_result(None)

    def jump_wall(self, seconds: float) -> None:
        """Set the wall clock forward or back, as an administrator would; monotonic time does not notice."""
        self._now_ms += seconds * 1000


async def eventually(condition: Callable[[], bool], limit_s: float = 10.0, what: str = "") -> None:
    """Wait in real time until ``condition()`` holds; ``AssertionError`` after ``limit_s``."""
    deadline = time.monotonic() + limit_s
    while not condition():
        if time.monotonic() > deadline:
            raise AssertionError(f"not within {limit_s} s: {what or condition}")
        await asyncio.sleep(0.002)
