"""Publishing: what is asked for during one round trip travels in the next, so that Redis syncs its log once for many.

Bounds: ``WAITING_MAX`` publications or ``in_flight_max`` bytes wait; more is ``Full``. After a failure everything is
refused at once for ``RETRY_S``.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

from tracardi_lite.backends.queue.redis import scripts
from tracardi_lite.backends.queue.redis.server import Argument, Server
from tracardi_lite.backends.queue.routing import partition_of
from tracardi_lite.clock import Clock
from tracardi_lite.errors import Full, TryLater, Unavailable
from tracardi_lite.ports.queue import Posted, Publication

WAITING_MAX = 20_000
TRIP_MAX = 500
TRIP_BYTES = 4 << 20
RETRY_S = 0.5


class _Waiting:
    __slots__ = ("arguments", "done", "size")

    def __init__(self, arguments: tuple[Argument, ...], size: int, done: Posted) -> None:
        self.arguments = arguments
        self.size = size
        self.done = done


class Publisher:
    def __init__(
        self,
        server: Server,
        partitions: int,
        bytes_max: int,
        in_flight_max: int,
        clock: Clock,
        on_published: Callable[[], None],
    ) -> None:
        self._server = server
        self._partitions = partitions
        self._bytes_max = bytes_max
        self._in_flight_max = in_flight_max
        self._clock = clock
        self._on_published = on_published
        self._waiting: deque[_Waiting] = deque()
        self._bytes = 0
        self._pump: asyncio.Task[None] | None = None
        self._refuse_until = float("-inf")

    def post(self, publication: Publication, done: Posted) -> None:
        size = len(publication.head) + len(publication.body)
        if len(self._waiting) >= WAITING_MAX or (self._waiting and self._bytes + size > self._in_flight_max):
            raise Full("queue", "too much waits for Redis")
        if self._clock.monotonic() < self._refuse_until:
            raise Unavailable("queue", "Redis is away")
        one = _Waiting(
            (
                partition_of(publication.key, self._partitions),
                self._bytes_max,
                publication.key.encode("utf-8", "surrogatepass"),
                publication.head,
                publication.body,
                publication.events,
                int(publication.replay),
            ),
            size,
            done,
        )
        self._waiting.append(one)
        self._bytes += size
        if self._pump is None or self._pump.done():
            self._pump = asyncio.create_task(self._run())

    async def close(self) -> None:
        if self._pump is not None:
            await asyncio.gather(self._pump, return_exceptions=True)

    async def _run(self) -> None:
        while self._waiting:
            trip, size = [self._waiting.popleft()], 0
            while self._waiting and len(trip) < TRIP_MAX and size < TRIP_BYTES:
                trip.append(self._waiting.popleft())
                size += trip[-1].size
            self._bytes -= sum(one.size for one in trip)
            try:
                answers = await self._server.run_many(scripts.PUBLISH, [one.arguments for one in trip])
            except TryLater as error:
                self._refuse_until = self._clock.monotonic() + RETRY_S
                answers = [error] * len(trip)
                trip += self._waiting
                answers += [error] * len(self._waiting)
                self._waiting.clear()
                self._bytes = 0
            for one, answer in zip(trip, answers, strict=True):
                if isinstance(answer, TryLater):
                    one.done(answer)
                elif answer == -1:
                    one.done(Full("queue", "holds as much as it may", retry_after_s=5.0))
                else:
                    one.done(None)
            self._on_published()
