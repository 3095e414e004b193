"""A lane: takes messages in order, fills a batch, has it processed, settles it with the queue; then the next.

A key's messages all go to one lane, so a profile's messages are processed in the order in which they came. Several
lanes are several batches in flight.

Invariant: a message is never applied past an earlier one of its key that was put back, because the records' watermarks
would then take that one for done. So whoever puts a message back puts back, with it, the later ones of its key that the
lane holds; the queue holds back the rest.

Bounds: a lane holds its batch, which is full at ``BULK_SIZE`` events or ``BULK_BYTES``, and an inbox; the inboxes of
all lanes together hold as much as their batches, and one receive over, see ``worker``.
"""

from __future__ import annotations

import asyncio
import traceback
from collections import deque
from collections.abc import Callable, Sequence

import structlog
from msgspec import Struct

from tracardi_lite.clock import Clock
from tracardi_lite.errors import TryLater
from tracardi_lite.flush.batch import Batch, Limits, Reason
from tracardi_lite.flush.brake import Brake
from tracardi_lite.flush.health import WorkerHealth
from tracardi_lite.flush.retry import Backoff, Stopped, pause, wait
from tracardi_lite.metrics import Metrics
from tracardi_lite.pipeline.hold import Hold
from tracardi_lite.pipeline.load import RecordCache
from tracardi_lite.pipeline.process import Processor, Result
from tracardi_lite.ports.queue import Message

log = structlog.get_logger(__name__)

# What a message costs beside its bytes; keeps a flood of tiny ones within the byte bound.
MESSAGE_OVERHEAD = 512


class Floor(Struct):
    """What the lanes of a worker share."""

    hold: Hold
    processor: Processor
    clock: Clock
    metrics: Metrics
    health: WorkerHealth
    brake: Brake
    backoff: Backoff
    max_tries: int
    stop: asyncio.Event
    """Settle what is there, at once, and give back what can't be settled."""
    on_room: Callable[[], None]
    """Called when a lane has taken something out of its inbox."""


class Lane:
    def __init__(self, number: int, floor: Floor, limits: Limits) -> None:
        self._number = str(number)
        self._floor = floor
        self._limits = limits
        self._cache = RecordCache()
        self._inbox: deque[Message] = deque()
        self.inbox_events = 0
        self.inbox_bytes = 0
        self._arrived = asyncio.Event()
        self._held: list[Message] = []
        """The batch: taken out of the inbox and not yet settled, in order."""

    def offer(self, message: Message) -> None:
        """Put a message at the end of the line; whether there is room, the caller has seen before it received."""
        self._inbox.append(message)
        self.inbox_events += max(1, message.events)
        self.inbox_bytes += size_of(message)
        self._note_held(message, 1)
        self._arrived.set()

    def wake(self) -> None:
        """Look at ``stop``."""
        self._arrived.set()

    async def run(self) -> None:
        """Work until ``stop`` is set, then flush what is there; returns with the lane empty."""
        try:
            while (filled := await self._fill()) is not None:
                await self._flush(*filled)
        except Stopped:
            await self.abandon()

    async def abandon(self) -> None:
        """Give back everything that the lane holds."""
        messages = [*self._held, *self._inbox]
        self._held = []
        self._inbox.clear()
        self.inbox_events = self.inbox_bytes = 0
        for message in messages:
            self._note_held(message, -1)
        if messages:
            log.info("given_back", lane=self._number, messages=len(messages))
            await self._floor.hold.release(messages)

    async def _fill(self) -> tuple[Batch[Message], Reason] | None:
        """The next batch, when it is due. None: the worker stops, and nothing is left."""
        clock, stop = self._floor.clock, self._floor.stop
        batch: Batch[Message] = Batch(self._limits)
        while True:
            now = clock.monotonic()
            while self._inbox and batch.reason(now) is None:
                message = self._inbox.popleft()
                self.inbox_events -= max(1, message.events)
                self.inbox_bytes -= size_of(message)
                self._held.append(message)
                batch.add(message, message.events, size_of(message), now)
            self._floor.on_room()
            if reason := batch.reason(now):
                return batch, reason
            if stop.is_set():
                return (batch, "shutdown") if batch.items else None
            self._arrived.clear()
            if batch.items:
                await wait(self._arrived, clock, batch.due_at() - now)
            else:
                await self._arrived.wait()

    async def _flush(self, batch: Batch[Message], reason: Reason) -> None:
        floor = self._floor
        while (seconds := floor.brake.permit(floor.clock.monotonic())) > 0:
            await pause(floor.stop, floor.clock, seconds)
        began = floor.clock.monotonic()
        await self._process(batch.items)
        seconds = floor.clock.monotonic() - began
        floor.metrics.flushes.add(reason)
        floor.metrics.flush_events.observe(batch.events)
        floor.metrics.flush_seconds.observe(seconds)
        log.debug("flushed", reason=reason, messages=len(batch.items), events=batch.events, seconds=round(seconds, 4))

    async def _process(self, messages: Sequence[Message]) -> None:
        """Have messages processed and settled. A batch that fails is halved until the faulty message is alone."""
        # An earlier half may have put back a message and, with it, later ones of its key.
        held = {id(message) for message in self._held}
        messages = [message for message in messages if id(message) in held]
        messages = await self._bury_killers(messages)
        if not messages:
            return
        try:
            result = await self._try(messages)
        except Stopped:
            raise
        except Exception as error:
            if len(messages) == 1:
                await self._fail(messages[0], error)
                return
            log.warning("batch_halved", messages=len(messages), reason=summary(error))
            middle = len(messages) // 2
            await self._process(messages[:middle])
            await self._process(messages[middle:])
            return
        await self._settle(result)

    async def _bury_killers(self, messages: Sequence[Message]) -> Sequence[Message]:
        """Dead-letter what arrives with all its tries used up: it ended the processes that tried it, since a failure
        that a process survives is counted in ``_fail``. The others are returned, in order."""
        floor = self._floor
        killers = [message for message in messages if message.tries >= floor.max_tries]
        if not killers:
            return messages
        result = Result()
        for message in killers:
            floor.processor.bury(result, message, f"ended {message.tries} workers that tried it")
        await self._settle(result)
        return [message for message in messages if message.tries < floor.max_tries]

    async def _try(self, messages: Sequence[Message]) -> Result:
        floor = self._floor
        failures = 0
        while True:
            try:
                return await floor.processor.process(messages, self._cache)
            except TryLater as error:
                failures += 1
                floor.metrics.retries.add()
                log.warning("batch_put_off", reason=str(error), failures=failures)
                await pause(floor.stop, floor.clock, floor.backoff.pause_s(failures, error.retry_after_s))

    async def _settle(self, result: Result) -> None:
        floor = self._floor
        await floor.hold.ack(result.done, result.letters)
        self._forget([one.message for one in result.done])
        if floor.brake.note(result.events, result.dead, floor.clock.monotonic()):
            log.error("braked", fix="most events can't be stored: see the reasons in the dead letters")
        floor.health.braked_since = floor.brake.engaged_since

    async def _fail(self, message: Message, error: Exception) -> None:
        """A message that fails by itself is put back to be tried again and, after ``MAX_TRIES``, buried."""
        floor = self._floor
        tries = message.tries + 1
        if tries >= floor.max_tries:
            result = Result()
            floor.processor.bury(result, message, f"failed {tries} times: {summary(error)}")
            await self._settle(result)
            return
        log.warning("put_back", stream=message.stream, position=message.position, tries=tries, exc_info=error)
        await floor.hold.put_back(message, floor.backoff.ceiling_s(tries), lambda: self._withdraw(message))

    def _withdraw(self, failed: Message) -> list[Message]:
        """Take a message and the later ones of its key out of the lane. The later ones, in order."""
        place = next(index for index, message in enumerate(self._held) if message is failed)
        later = [message for message in self._held[place + 1 :] if message.key == failed.key]
        self._forget([failed, *later])
        waiting = [message for message in self._inbox if message.key == failed.key]
        if waiting:
            self._inbox = deque(message for message in self._inbox if message.key != failed.key)
            for message in waiting:
                self.inbox_events -= max(1, message.events)
                self.inbox_bytes -= size_of(message)
                self._note_held(message, -1)
            self._floor.on_room()
        return later + waiting

    def _forget(self, messages: Sequence[Message]) -> None:
        """Settled, one way or another."""
        gone = {id(message) for message in messages}
        self._held = [message for message in self._held if id(message) not in gone]
        for message in messages:
            self._note_held(message, -1)

    def _note_held(self, message: Message, sign: int) -> None:
        health = self._floor.health
        health.waiting_messages += sign
        health.waiting_events += sign * message.events
        health.waiting_bytes += sign * size_of(message)
        self._floor.metrics.lane_backlog.set(self._number, value=len(self._inbox) + len(self._held))


def size_of(message: Message) -> int:
    return len(message.head) + len(message.body) + MESSAGE_OVERHEAD


def summary(error: BaseException) -> str:
    """What went wrong and where, in a line: for logs and dead letters."""
    frames = traceback.extract_tb(error.__traceback__)
    where = f" at {frames[-1].name}:{frames[-1].lineno}" if frames else ""
    return f"{type(error).__name__}: {error}{where}"
