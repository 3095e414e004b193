"""The cache that processes share, on Redis, with a small one of this process in front. Needs the extra ``redis``.

Losing Redis slows and never breaks: a call waits for it at most about ``REDIS_TIMEOUT`` (three times that while
connecting), after a failure it is left alone for ``RETRY_S``, and meanwhile ``get`` finds what this process knows by
itself, ``set`` and ``delete`` act on that alone. Only ``ping`` raises. A deletion that Redis did not hear of leaves the
entry there until its time is up: whoever reads the cache checks what matters against the store, as the port says.

What other processes change is seen after ``NEAR_S`` at the latest.

Calls of one loop turn travel together: a pump sends what has gathered during the last trip as one pipeline.
Bounds: ``WAITING_MAX`` commands wait (more are misses), ``TRIP_MAX`` travel at once, the near layer holds
``DIRECTORY_CACHE_SIZE`` entries.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Self

import structlog
from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from tracardi_lite.clock import Clock, SystemClock
from tracardi_lite.errors import Unavailable
from tracardi_lite.settings import Settings
from tracardi_lite.settings.redis import redis_options

log = structlog.get_logger(__name__)

NEAR_S = 1.0
RETRY_S = 1.0
WAITING_MAX = 20_000
TRIP_MAX = 1000
PING_S = 2.0


def open_cache(url: str, settings: Settings, clock: Clock | None = None) -> RedisCache:
    """``redis://host:6379/0``, ``rediss://…``, or ``redis:`` for what REDIS_HOST names."""
    options = redis_options(url, settings)
    return RedisCache(
        options, settings.redis_prefix, settings.directory_cache_size, settings.redis_timeout, clock or SystemClock()
    )


class _Near:
    """Least recently used out, and nothing older than ``NEAR_S``."""

    def __init__(self, entries_max: int, clock: Clock) -> None:
        self._entries_max = entries_max
        self._clock = clock
        self._entries: OrderedDict[str, tuple[float, bytes]] = OrderedDict()

    def get(self, key: str) -> bytes | None:
        entry = self._entries.get(key)
        if entry is None:
            return None
        if entry[0] <= self._clock.monotonic():
            del self._entries[key]
            return None
        self._entries.move_to_end(key)
        return entry[1]

    def set(self, key: str, value: bytes, ttl_s: float) -> None:
        self._entries[key] = (self._clock.monotonic() + min(ttl_s, NEAR_S), value)
        self._entries.move_to_end(key)
        if len(self._entries) > self._entries_max:
            self._entries.popitem(last=False)

    def delete(self, key: str) -> None:
        self._entries.pop(key, None)


class _Trip:
    """One command that waits to travel: a MGET, SETs or a DEL."""

    __slots__ = ("done", "keys", "ttl_ms", "values")

    def __init__(self, keys: Sequence[str], values: Sequence[bytes] | None = None, ttl_ms: int = 0) -> None:
        self.keys = keys
        self.values = values
        """None: read."""
        self.ttl_ms = ttl_ms
        """0 with values: delete."""
        self.done: asyncio.Future[Any] = asyncio.get_running_loop().create_future()


class RedisCache:
    """Used from one event loop."""

    def __init__(
        self, options: Mapping[str, Any], prefix: str, entries_max: int, timeout_s: float, clock: Clock
    ) -> None:
        self._options = dict(options)
        self._prefix = f"{prefix}:c:"
        self._timeout_s = timeout_s
        self._clock = clock
        self._near = _Near(entries_max, clock)
        self._redis: Redis
        self._trips: deque[_Trip] = deque()
        self._waiting = 0
        self._pump: asyncio.Task[None] | None = None
        self._retry_at = 0.0
        self._away = False

    async def __aenter__(self) -> Self:
        self._redis = Redis(
            **self._options,
            socket_timeout=self._timeout_s,
            socket_connect_timeout=self._timeout_s,
            retry=Retry(NoBackoff(), 0),
            max_connections=4,
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._pump is not None:
            self._pump.cancel()
            await asyncio.gather(self._pump, return_exceptions=True)
        self._fail()
        await self._redis.aclose()

    async def get(self, keys: Sequence[str]) -> list[bytes | None]:
        found = {key: self._near.get(key) for key in keys}
        missing = [key for key, value in found.items() if value is None]
        if missing:
            answer = await self._travel(_Trip(missing))
            for key, pair in zip(missing, answer or (), strict=bool(answer)):
                value, left_ms = pair
                # Unless it was set here while the question was on its way: what is near is newer then.
                newer = self._near.get(key)
                found[key] = value if newer is None else newer
                if value is not None and newer is None and left_ms > 0:
                    self._near.set(key, value, left_ms / 1000)
        return [found[key] for key in keys]

    async def set(self, values: Mapping[str, bytes], ttl_s: float) -> None:
        if not values:
            return
        if ttl_s <= 0:
            await self.delete(list(values))
            return
        for key, value in values.items():
            self._near.set(key, value, ttl_s)
        await self._travel(_Trip(list(values), list(values.values()), max(1, int(ttl_s * 1000))))

    async def delete(self, keys: Sequence[str]) -> None:
        if not keys:
            return
        for key in keys:
            self._near.delete(key)
        await self._travel(_Trip(keys, []))

    async def ping(self) -> None:
        try:
            async with asyncio.timeout(PING_S):
                await self._redis.ping()
        except (RedisError, OSError, TimeoutError) as error:
            raise Unavailable("cache", f"Redis: {str(error) or type(error).__name__}") from error

    async def _travel(self, trip: _Trip) -> Any:
        """The answer, or None where Redis is not to be had."""
        size = len(trip.keys)
        if self._clock.monotonic() < self._retry_at or self._waiting + size > WAITING_MAX:
            return None
        self._trips.append(trip)
        self._waiting += size
        if self._pump is None or self._pump.done():
            self._pump = asyncio.create_task(self._run())
        return await trip.done

    async def _run(self) -> None:
        while self._trips:
            trips: list[_Trip] = []
            size = 0
            while self._trips and size < TRIP_MAX:
                trips.append(self._trips.popleft())
                size += len(trips[-1].keys)
            self._waiting -= size
            try:
                await self._send(trips)
            except (RedisError, OSError, TimeoutError) as error:
                self._note_away(error)
                for trip in trips:
                    if not trip.done.done():
                        trip.done.set_result(None)
                self._fail()
                return
            except BaseException:
                for trip in trips:
                    trip.done.cancel()
                raise

    async def _send(self, trips: Sequence[_Trip]) -> None:
        pipeline = self._redis.pipeline(transaction=False)
        counts = []
        for trip in trips:
            keys = [self._prefix + key for key in trip.keys]
            before = len(pipeline)
            if trip.values is None:
                pipeline.mget(keys)
                for key in keys:
                    pipeline.pttl(key)
            elif trip.ttl_ms:
                for key, value in zip(keys, trip.values, strict=True):
                    pipeline.set(key, value, px=trip.ttl_ms)
            else:
                pipeline.delete(*keys)
            counts.append(len(pipeline) - before)
        answers = await pipeline.execute()
        if self._away:
            self._away = False
            log.warning("redis_back")
        place = 0
        for trip, count in zip(trips, counts, strict=True):
            answer = answers[place : place + count]
            place += count
            if not trip.done.done():
                trip.done.set_result(list(zip(answer[0], answer[1:], strict=True)) if trip.values is None else True)

    def _note_away(self, error: BaseException) -> None:
        self._retry_at = self._clock.monotonic() + RETRY_S
        if not self._away:
            self._away = True
            log.warning("redis_away", reason=str(error) or type(error).__name__)

    def _fail(self) -> None:
        while self._trips:
            trip = self._trips.popleft()
            if not trip.done.done():
                trip.done.set_result(None)
        self._waiting = 0
