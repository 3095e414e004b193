"""The cache that processes share, on Redis, and word of moved keys by publish and subscribe. Needs the extra ``redis``.

Losing Redis slows and never breaks: a call waits for it at most about ``REDIS_TIMEOUT`` (three times that while
connecting), after a failure it is left alone for ``RETRY_S``, and meanwhile ``get`` finds nothing and ``add`` does
nothing. Only ``ping`` raises. An announcement that Redis did not hear of is made again until it does: what Redis kept
over its absence may be from before the move.

A value is stored behind ``_VALUE``, so that the mark that a move leaves in its place can't be mistaken for one. Values
are added with NX: the mark, which lives for ``HOLD_S``, keeps out what was asked before the move and arrives after it.

Calls of one loop turn travel together: a pump sends what has gathered during the last trip as one pipeline.
Bounds: ``WAITING_MAX`` keys wait (more are misses), ``TRIP_MAX`` travel at once, ``UNHEARD_MAX`` announcements wait for
this process's listener, ``UNSAID_MAX`` for Redis to come back; of more, the oldest are given up.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from itertools import islice
from types import TracebackType
from typing import Any, Self

import msgspec
import structlog
from redis.asyncio import Redis
from redis.asyncio.client import Pipeline
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import RedisError

from tracardi_lite import tls
from tracardi_lite.clock import Clock, SystemClock
from tracardi_lite.errors import Unavailable
from tracardi_lite.ports.cache import HOLD_S, Moves
from tracardi_lite.settings import Settings
from tracardi_lite.settings.redis import connect, redis_options

log = structlog.get_logger(__name__)

RETRY_S = 1.0
WAITING_MAX = 20_000
TRIP_MAX = 1000
UNHEARD_MAX = 10_000
UNSAID_MAX = 10_000
PING_S = 2.0
# A subscription is silent for as long as nobody merges; asked every so often, it has to say something.
QUIET_S = 2.0

_VALUE = b"="
_MARK = b"!"

_encode_keys = msgspec.json.Encoder().encode
_decode_keys = msgspec.json.Decoder(list[str]).decode


def open_cache(url: str, settings: Settings, clock: Clock | None = None) -> RedisCache:
    """``redis://host:6379/0``, ``rediss://…``, or ``redis:`` for what REDIS_HOST names."""
    options = redis_options(url, settings)
    return RedisCache(options, settings.redis_prefix, settings.redis_timeout, clock or SystemClock())


def _away(error: BaseException) -> Unavailable:
    fault = tls.fault("cache", "redis", error)
    return fault or Unavailable("cache", f"Redis: {str(error) or type(error).__name__}")


class _Trip:
    """Commands that wait to travel together: what puts them into a pipeline, and what becomes of the answers."""

    __slots__ = ("done", "load", "size")

    def __init__(self, size: int, load: Callable[[Pipeline], object]) -> None:
        self.size = size
        self.load = load
        self.done: asyncio.Future[list[Any] | None] = asyncio.get_running_loop().create_future()


class RedisCache:
    """Used from one event loop."""

    shared = True
    hears_all = False

    def __init__(self, options: Mapping[str, Any], prefix: str, timeout_s: float, clock: Clock) -> None:
        self._options = dict(options)
        self._prefix = f"{prefix}:c:"
        self._channel = f"{prefix}:moved"
        self._timeout_s = timeout_s
        self._clock = clock
        self._redis: Redis
        self._trips: deque[_Trip] = deque()
        self._waiting = 0
        self._pump: asyncio.Task[None] | None = None
        self._following: asyncio.Task[None] | None = None
        self._ears: list[_Ear] = []
        self._unsaid: dict[str, None] = {}
        self._saying: asyncio.Task[None] | None = None
        self._retry_at = 0.0
        self._away = False

    async def __aenter__(self) -> Self:
        self._redis = connect(
            Redis,
            self._options,
            socket_timeout=self._timeout_s,
            socket_connect_timeout=self._timeout_s,
            retry=Retry(NoBackoff(), 0),
            max_connections=4,
        )
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        tasks = [task for task in (self._pump, self._following, self._saying) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._fail()
        await self._redis.aclose()

    # values

    async def get(self, keys: Sequence[str]) -> list[bytes | None]:
        if not keys:
            return []
        names = [self._prefix + key for key in keys]
        answers = await self._travel(len(names), lambda pipeline: pipeline.mget(names))
        if answers is None:
            return [None] * len(keys)
        return [value[1:] if value is not None and value[:1] == _VALUE else None for value in answers[0]]

    async def add(self, values: Mapping[str, bytes], ttl_s: float) -> None:
        ttl_ms = int(ttl_s * 1000)
        if not values or ttl_ms <= 0:
            return

        def load(pipeline: Pipeline) -> None:
            for key, value in values.items():
                pipeline.set(self._prefix + key, _VALUE + value, px=ttl_ms, nx=True)

        await self._travel(len(values), load)

    # moves

    async def announce(self, keys: Sequence[str]) -> None:
        if not keys or await self._say(keys):
            return
        self._unsaid.update(dict.fromkeys(keys))
        while len(self._unsaid) > UNSAID_MAX:
            del self._unsaid[next(iter(self._unsaid))]
        if self._saying is None or self._saying.done():
            self._saying = asyncio.create_task(self._say_later())

    async def _say(self, keys: Sequence[str]) -> bool:
        def load(pipeline: Pipeline) -> None:
            for key in keys:
                pipeline.set(self._prefix + key, _MARK, px=int(HOLD_S * 1000))
            pipeline.publish(self._channel, _encode_keys(keys))

        return await self._travel(len(keys), load) is not None

    async def _say_later(self) -> None:
        """Announce what Redis has not heard of, until it has."""
        while self._unsaid:
            await self._clock.sleep(RETRY_S)
            keys = list(islice(self._unsaid, TRIP_MAX))
            if await self._say(keys):
                for key in keys:
                    self._unsaid.pop(key, None)

    def moves(self) -> Moves:
        ear = _Ear()
        self._ears.append(ear)
        if self._following is None:
            self._following = asyncio.create_task(self._follow())
        return ear

    async def _follow(self) -> None:
        """Listen for ever; tell the ears what comes, and that something may have been missed, where it may."""
        while True:
            try:
                async with self._redis.pubsub() as subscription:
                    await subscription.subscribe(self._channel)
                    quiet = False
                    while True:
                        message = await subscription.get_message(timeout=QUIET_S)
                        if message is None:
                            if quiet:
                                raise TimeoutError("the subscription says nothing")
                            quiet = True
                            await subscription.ping()
                            continue
                        quiet = False
                        if message["type"] == "subscribe":
                            self._hear(None)
                        elif message["type"] == "message":
                            self._hear(_decode_keys(message["data"]))
            except (RedisError, OSError, TimeoutError) as error:
                log.debug("moves_not_heard", reason=str(error) or type(error).__name__)
            except msgspec.MsgspecError:
                # Whatever others say in our channel, it may have been meant for us.
                self._hear(None)
            await self._clock.sleep(RETRY_S)

    def _hear(self, keys: Sequence[str] | None) -> None:
        for ear in self._ears:
            ear.hear(keys)

    async def ping(self) -> None:
        try:
            async with asyncio.timeout(PING_S):
                await self._redis.ping()
        except (RedisError, OSError, TimeoutError) as error:
            raise _away(error) from error

    # travelling

    async def _travel(self, size: int, load: Callable[[Pipeline], object]) -> list[Any] | None:
        """The answers, one for each command, or None where Redis is not to be had."""
        if self._clock.monotonic() < self._retry_at or self._waiting + size > WAITING_MAX:
            return None
        trip = _Trip(size, load)
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
                size += trips[-1].size
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
            before = len(pipeline)
            trip.load(pipeline)
            counts.append(len(pipeline) - before)
        answers = await pipeline.execute()
        if self._away:
            self._away = False
            log.warning("redis_back")
        place = 0
        for trip, count in zip(trips, counts, strict=True):
            if not trip.done.done():
                trip.done.set_result(answers[place : place + count])
            place += count

    def _note_away(self, error: BaseException) -> None:
        self._retry_at = self._clock.monotonic() + RETRY_S
        if not self._away:
            self._away = True
            log.warning("redis_away", reason=_away(error).reason)

    def _fail(self) -> None:
        while self._trips:
            trip = self._trips.popleft()
            if not trip.done.done():
                trip.done.set_result(None)
        self._waiting = 0


class _Ear:
    def __init__(self) -> None:
        self._news: list[str] | None = []

    def hear(self, keys: Sequence[str] | None) -> None:
        if keys is None or (self._news is not None and len(self._news) + len(keys) > UNHEARD_MAX):
            self._news = None
        elif self._news is not None:
            self._news.extend(keys)

    def heard(self) -> Sequence[str] | None:
        news = self._news
        if news == []:
            return ()
        self._news = []
        return news
