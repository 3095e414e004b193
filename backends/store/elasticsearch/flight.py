"""How many bulk requests are in flight: learned from the server, as TCP learns of a road.

Starts at ``_FIRST``; each request that goes well while all places are taken adds a fraction of a place (one place for a
whole round of them), each refusal (429) halves the places, once for all that were under way together. Between 1 and
``most``. Who finds no place waits, first come, first served; the wait ends with the requests before it, each of which
has a timeout. For the tasks of one loop.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

_FIRST = 4


class Place:
    """A place in flight. Set ``refused`` when the server said that it is too much."""

    def __init__(self, age: int) -> None:
        self.age = age
        self.refused = False


class Flight:
    def __init__(self, most: int) -> None:
        self._most = most
        self._places = float(min(_FIRST, most))
        self._taken = 0
        self._age = 0
        self._waiting: deque[asyncio.Future[None]] = deque()

    @property
    def places(self) -> int:
        """How many requests may be in flight just now."""
        return int(self._places)

    @asynccontextmanager
    async def place(self) -> AsyncIterator[Place]:
        await self._take()
        place = Place(self._age)
        full = self._taken >= self.places
        try:
            yield place
            if not place.refused and full:
                self._places = min(self._most, self._places + 1 / self._places)
        finally:
            if place.refused and place.age == self._age:
                self._places = max(1.0, self._places / 2)
                self._age += 1
            self._give()

    async def _take(self) -> None:
        if not self._waiting and self._taken < self.places:
            self._taken += 1
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self._give()
            raise

    def _give(self) -> None:
        self._taken -= 1
        while self._waiting and self._taken < self.places:
            turn = self._waiting.popleft()
            if not turn.done():
                self._taken += 1
                turn.set_result(None)
