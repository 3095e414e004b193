"""A worker's hold on its partitions, shared by its lanes: one consumer, one caller at a time.

Calls that settle messages are repeated while the queue is away, until the worker stops. A partition that has moved is
no error: what was done for it is done again elsewhere, without effect, so it is only said.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager

import structlog

from tracardi_lite.clock import Clock
from tracardi_lite.errors import LeaseLost, TryLater
from tracardi_lite.flush.health import WorkerHealth
from tracardi_lite.flush.retry import Backoff, pause
from tracardi_lite.ports.queue import Consumer, DeadLetter, Done, Message

log = structlog.get_logger(__name__)


class Hold:
    def __init__(
        self, consumer: Consumer, clock: Clock, backoff: Backoff, health: WorkerHealth, stop: asyncio.Event
    ) -> None:
        self._consumer = consumer
        self._clock = clock
        self._backoff = backoff
        self._health = health
        self._stop = stop
        self._turn = asyncio.Lock()
        self._receiving: asyncio.Future[list[Message]] | None = None
        self._others = 0
        """Callers that want to settle something, or do."""

    async def receive(self, max_messages: int, max_bytes: int, timeout_s: float) -> list[Message]:
        """As ``Consumer.receive``. Waits out trouble: raises ``Stopped``.

        Gives way, with nothing, to whoever wants to settle something: a cancelled receive has taken nothing.
        """
        received: list[Message] = []

        async def act() -> None:
            wait_s = 0.0 if self._others else timeout_s
            self._receiving = asyncio.ensure_future(self._consumer.receive(max_messages, max_bytes, wait_s))
            try:
                received.extend(await self._receiving)
            except asyncio.CancelledError:
                task = asyncio.current_task()
                if task is None or task.cancelling():
                    raise
            finally:
                self._receiving = None

        async with self._turn:
            await self._repeat(act)
        return received

    def interrupt(self) -> None:
        """End a receive that waits."""
        if self._receiving is not None:
            self._receiving.cancel()

    @asynccontextmanager
    async def _own_turn(self) -> AsyncIterator[None]:
        self._others += 1
        self.interrupt()
        try:
            async with self._turn:
                yield
        finally:
            self._others -= 1

    async def ack(self, done: Sequence[Done], letters: Sequence[DeadLetter]) -> None:
        """Settle messages with their outcomes. ``letters`` are of these messages."""
        if not done:
            return
        async with self._own_turn():
            try:
                await self._repeat(lambda: self._consumer.ack(done, letters))
            except LeaseLost:
                await self._ack_by_stream(done, letters)

    async def _ack_by_stream(self, done: Sequence[Done], letters: Sequence[DeadLetter]) -> None:
        """One of the partitions has moved: settle the others."""
        streams: dict[str, list[Done]] = {}
        for one in done:
            streams.setdefault(one.message.stream, []).append(one)
        for stream, part in streams.items():
            heads = {id(one.message.head) for one in part}
            theirs = [letter for letter in letters if id(letter.head) in heads]
            try:
                await self._repeat(lambda: self._consumer.ack(part, theirs))  # noqa: B023  (awaited at once)
            except LeaseLost:
                log.info("lease_lost", stream=stream, messages=len(part))

    async def put_back(self, failed: Message, delay_s: float, withdraw: Callable[[], Sequence[Message]]) -> None:
        """Put one message back to be tried again, and whatever ``withdraw`` gives for later.

        ``withdraw`` is asked when nothing can be received any more that the queue does not know to hold back.
        """
        async with self._own_turn():
            later = withdraw()
            try:
                await self._repeat(lambda: self._consumer.nack([failed], delay_s))
                if later:
                    await self._repeat(lambda: self._consumer.release(later))
            except LeaseLost:
                log.info("lease_lost", stream=failed.stream, messages=1 + len(later))

    async def release(self, messages: Sequence[Message]) -> None:
        """Put messages back at once. One try: they come again anyway, when the leases are given back."""
        async with self._own_turn():
            try:
                await self._consumer.release(messages)
            except (LeaseLost, TryLater) as error:
                log.info("not_released", messages=len(messages), reason=str(error))

    async def _repeat(self, act: Callable[[], Awaitable[None]]) -> None:
        failures = 0
        while True:
            try:
                await act()
            except TryLater as error:
                failures += 1
                if self._health.queue_down_since is None:
                    self._health.queue_down_since = self._clock.monotonic()
                    log.warning("queue_not_now", reason=str(error))
                await pause(self._stop, self._clock, self._backoff.pause_s(failures, error.retry_after_s))
            else:
                if self._health.queue_down_since is not None:
                    self._health.queue_down_since = None
                    log.warning("queue_back")
                return
