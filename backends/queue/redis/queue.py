"""The port's queue on Redis Streams, for those who have Redis and no Pulsar; see docs/redis.md."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Mapping
from contextlib import suppress
from functools import partial
from types import TracebackType
from typing import Any, Self

import msgspec
from msgspec import Struct

from tracardi_lite.backends.queue.redis import scripts, upkeep
from tracardi_lite.backends.queue.redis.consumer import RedisConsumer
from tracardi_lite.backends.queue.redis.publisher import Publisher
from tracardi_lite.backends.queue.redis.server import Server, mapped
from tracardi_lite.backends.queue.routing import partition_name
from tracardi_lite.clock import Clock
from tracardi_lite.errors import Full, TryLater, Unavailable
from tracardi_lite.ports.queue import (
    SUBSCRIPTION,
    DeadLetter,
    PartitionBacklog,
    Posted,
    Publication,
    Totals,
    wait_posted,
)
from tracardi_lite.settings import Settings

REASONS_MAX = 64
_letters = msgspec.msgpack.Decoder(DeadLetter)


class _State(Struct):
    """A partition as a subscription sees it."""

    next: int
    events: int
    cursor: int
    before: int


class RedisQueue:
    def __init__(self, options: Mapping[str, Any], settings: Settings, clock: Clock) -> None:
        self._server = Server(options, "{" + settings.redis_prefix + ":q}")
        self._settings = settings
        self._clock = clock
        self._consumers: set[RedisConsumer] = set()
        self._open = False
        self._trimming: asyncio.Task[None] | None = None
        self._partitions = 0
        self._incarnation = ""
        self._publisher: Publisher

    async def __aenter__(self) -> Self:
        server = self._server
        try:
            with mapped():
                meta = server.key("meta")
                await server.redis.hsetnx(meta, "incarnation", uuid.uuid4().hex)
                await server.redis.hsetnx(meta, "partitions", str(self._settings.queue_partitions))
                incarnation, partitions = await server.redis.hmget(meta, ["incarnation", "partitions"])
            self._incarnation, self._partitions = incarnation.decode(), int(partitions)
            await server.run(scripts.SUBSCRIBE, SUBSCRIPTION, self._partitions)
        except BaseException:
            await server.close()
            raise
        self._publisher = Publisher(
            server,
            self._partitions,
            self._settings.queue_bytes_max,
            self._settings.in_flight_max,
            self._clock,
            self._published,
        )
        self._open = True
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open = False
        for consumer in list(self._consumers):
            await consumer.close()
        await self._publisher.close()
        if self._trimming is not None:
            await asyncio.wait([self._trimming])
        await self._server.close()

    async def publish(self, publication: Publication) -> None:
        await wait_posted(self.post, publication)

    def post(self, publication: Publication, done: Posted) -> None:
        self._check_open()
        self._publisher.post(publication, partial(self._told, done))

    def _told(self, done: Posted, error: Exception | None) -> None:
        done(error)
        if isinstance(error, Full) and self._open and (self._trimming is None or self._trimming.done()):
            # What every subscription has passed makes room at once, not at the next round of the house.
            self._trimming = asyncio.create_task(self._trim())

    async def _trim(self) -> None:
        with suppress(TryLater):
            await self.maintain()

    async def note_refused(self, counts: Mapping[str, int]) -> None:
        pairs = [part for pair in counts.items() for part in pair]
        if pairs:
            await self._server.run(scripts.REFUSE, REASONS_MAX, *pairs)

    async def subscribe(self, subscription: str) -> RedisConsumer:
        self._check_open()
        consumer = RedisConsumer(
            self._server,
            self._incarnation,
            self._partitions,
            subscription,
            self._settings.lease_ttl,
            self._clock,
            self._left,
        )
        await consumer.join()
        self._consumers.add(consumer)
        for member in self._consumers:
            member.nudge()
        return consumer

    async def backlog(self, *, rough: bool = False) -> list[PartitionBacklog]:
        self._check_open()
        rows = []
        for subscription in await self._subscriptions():
            for number, state in enumerate(await self._states(subscription)):
                oldest = await upkeep.first_record(self._server, number, state.cursor)
                rows.append(
                    PartitionBacklog(
                        partition_name(number),
                        subscription,
                        state.next - state.cursor,
                        state.events - state.before,
                        oldest.published_ms if oldest is not None and state.next > state.cursor else None,
                    )
                )
        return rows

    async def totals(self, *, rough: bool = False) -> Totals:
        """Read in one transaction, so that it adds up."""
        self._check_open()
        server = self._server
        with mapped():
            pipeline = server.redis.pipeline(transaction=True)
            pipeline.hgetall(server.key("ledger"))
            pipeline.hgetall(server.key("refused"))
            for number in range(self._partitions):
                pipeline.hget(server.key("n", number), "events")
                pipeline.hget(server.key("sub", SUBSCRIPTION, number), "before")
            ledger, refused, *numbers = await pipeline.execute()
        sums = [int(number or 0) for number in numbers]
        return Totals(
            **{name.decode(): int(events) for name, events in ledger.items()},
            pending=sum(sums[0::2]) - sum(sums[1::2]),
            refused={reason.decode(): int(events) for reason, events in refused.items()},
        )

    async def seek(self, subscription: str, to_ms: int | None) -> int:
        self._check_open()
        await self._server.run(scripts.SUBSCRIBE, subscription, self._partitions)
        again = 0
        for number, state in enumerate(await self._states(subscription)):
            target = await upkeep.first_where(
                self._server, number, state.cursor, lambda record: to_ms is None or record.published_ms >= to_ms
            )
            if target is not None:
                before = target.events_end - target.events
                main = int(subscription == SUBSCRIPTION)
                again += int(await self._server.run(scripts.SEEK, subscription, main, number, target.offset, before))
        for consumer in self._consumers:
            consumer.nudge()
        return again

    async def dead_letters(self, limit: int = 100, after: str = "") -> list[DeadLetter]:
        server = self._server
        with mapped():
            low = f"({after}" if after else "-"
            ids = await server.redis.zrangebylex(server.key("deadids"), low, "+", 0, limit)
            found = await server.redis.hmget(server.key("dead"), ids) if ids else []
        return [_letters.decode(letter) for letter in found if letter is not None]

    async def take_dead_letter(self, id: str, *, replay: Publication | None) -> bool:
        with mapped():
            there = await self._server.redis.hexists(self._server.key("dead"), id)
        if not there:
            return False
        if replay is not None:
            await self.publish(msgspec.structs.replace(replay, replay=True))
        return bool(await self._server.run(scripts.TAKE_LETTER, id)) or replay is not None

    async def maintain(self) -> None:
        """Drop what all subscriptions have passed and what is too old, or too much, each partition having its part."""
        horizon_ms = await self._now_ms() - self._settings.queue_retention * 1000
        bytes_kept = self._settings.queue_retention_bytes // self._partitions
        if not self._settings.queue_retention:
            bytes_kept = 0
        states = [await self._states(subscription) for subscription in await self._subscriptions()]
        for number in range(self._partitions):
            cursor = min(of_one[number].cursor for of_one in states)
            await upkeep.trim(self._server, number, cursor, horizon_ms, bytes_kept)

    async def ping(self) -> None:
        self._check_open()
        if await self._is_full():
            await self.maintain()
            if await self._is_full():
                raise Full("queue", "holds as much as it may", retry_after_s=5.0)

    # --- inside ---
    def _check_open(self) -> None:
        if not self._open:
            raise Unavailable("queue", "is closed")

    def _published(self) -> None:
        for consumer in self._consumers:
            consumer.wake()

    def _left(self, consumer: RedisConsumer) -> None:
        self._consumers.discard(consumer)
        for member in self._consumers:
            member.nudge()

    async def _is_full(self) -> bool:
        with mapped():
            used = await self._server.redis.hget(self._server.key("meta"), "bytes")
        return int(used or 0) >= self._settings.queue_bytes_max

    async def _now_ms(self) -> int:
        with mapped():
            seconds, micros = await self._server.redis.time()
        return int(seconds) * 1000 + int(micros) // 1000

    async def _subscriptions(self) -> list[str]:
        with mapped():
            found = await self._server.redis.smembers(self._server.key("subs"))
        return sorted(name.decode() for name in found)

    async def _states(self, subscription: str) -> list[_State]:
        server = self._server
        with mapped():
            pipeline = server.redis.pipeline(transaction=True)
            for number in range(self._partitions):
                pipeline.hmget(server.key("n", number), ["next", "events"])
                pipeline.hmget(server.key("sub", subscription, number), ["cursor", "before"])
            answers = await pipeline.execute()
        pairs = [[int(number or 0) for number in pair] for pair in answers]
        return [_State(*ends, *cursors) for ends, cursors in zip(pairs[0::2], pairs[1::2], strict=True)]
