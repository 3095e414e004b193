"""The worker: one consumer of the queue, a reader that hands messages to lanes, and an orderly end.

The reader receives only while the lanes together have room, so fullness is passed back to the queue by not receiving; a
consumer keeps its leases by itself meanwhile. A key goes to one lane, for as long as the worker lives. Not a stream:
queues give hundreds of messages of one partition before the next one's, and the other lanes would have nothing to do.

The end: the reader stops, lanes flush what they hold (reason ``shutdown``) and acknowledge it; what can't be settled,
because the store is away or the time is up, is given back; then the leases. An exception that is a bug ends ``run``.
"""

from __future__ import annotations

import asyncio
import zlib

import structlog

from tracardi_lite.clock import Clock
from tracardi_lite.errors import LeaseLost, TryLater
from tracardi_lite.flush.batch import Limits
from tracardi_lite.flush.brake import Brake
from tracardi_lite.flush.flusher import Flusher
from tracardi_lite.flush.health import WorkerHealth
from tracardi_lite.flush.retry import Backoff, Stopped, pause
from tracardi_lite.metrics import Metrics
from tracardi_lite.pipeline.event_types import EventTypes
from tracardi_lite.pipeline.hold import Hold
from tracardi_lite.pipeline.lanes import Floor, Lane
from tracardi_lite.pipeline.merging.repoint import Repointer
from tracardi_lite.pipeline.process import Processor
from tracardi_lite.pipeline.type_book import TypeBook
from tracardi_lite.ports.cache import Cache
from tracardi_lite.ports.queue import SUBSCRIPTION, Consumer, Queue
from tracardi_lite.ports.store import Store
from tracardi_lite.settings import Settings

log = structlog.get_logger(__name__)

# How long a receive may wait; it gives way to acknowledgements, and to the end.
RECEIVE_S = 1.0
# The share of SHUTDOWN_TIMEOUT for draining; the rest is for giving back and for the other parts.
DRAIN_SHARE = 0.6
CLOSE_S = 2.0


# A batch holds up to a message more than its size, and the server's own events, which should not cost another request.
REQUEST_SHARE = 2


class Worker:
    def __init__(
        self,
        queue: Queue,
        store: Store,
        cache: Cache,
        settings: Settings,
        clock: Clock,
        event_types: EventTypes,
        metrics: Metrics,
        backoff: Backoff | None = None,
    ) -> None:
        self._queue = queue
        self._store = store
        self._cache = cache
        self._settings = settings
        self._clock = clock
        self.book = TypeBook(event_types)
        """What is known of event types, and the rules: ``book.use`` takes other ones, at any time."""
        self._metrics = metrics
        self._backoff = backoff or Backoff(settings.retry_delay, settings.retry_delay_max)
        self._room = asyncio.Event()
        self.repointer = Repointer(store, clock, metrics)
        """To be run beside the worker: moves events and sessions of merged profiles to their survivors."""
        self.stats = WorkerHealth()
        """How it fares; ``stats.problem(now)`` says what keeps it from being ready."""

    async def run(self, stop: asyncio.Event) -> None:
        """Consume until ``stop`` is set, then drain and close, well within ``SHUTDOWN_TIMEOUT``.

        Cancelled, it gives everything back without draining.
        """
        try:
            consumer = await self._subscribe(stop)
        except Stopped:
            return
        hold = Hold(consumer, self._clock, self._backoff, self.stats, stop)
        lanes = self._lanes(hold, stop)
        self.stats.running = True
        try:
            async with asyncio.TaskGroup() as group:
                working = {group.create_task(lane.run(), name="lane") for lane in lanes}
                group.create_task(self._read(hold, lanes, stop), name="reader")
                await stop.wait()
                for lane in lanes:
                    lane.wake()
                self._room.set()
                hold.interrupt()
                await self._drain(working)
        finally:
            self.stats.running = False
            await self._close(consumer, lanes)

    async def _subscribe(self, stop: asyncio.Event) -> Consumer:
        failures = 0
        while True:
            try:
                return await self._queue.subscribe(SUBSCRIPTION)
            except TryLater as error:
                failures += 1
                log.warning("queue_not_now", reason=str(error))
                await pause(stop, self._clock, self._backoff.pause_s(failures, error.retry_after_s))

    def _lanes(self, hold: Hold, stop: asyncio.Event) -> list[Lane]:
        settings = self._settings
        flusher = Flusher(
            self._store,
            self._clock,
            self._backoff,
            self.stats,
            self._metrics,
            stop,
            events=REQUEST_SHARE * settings.bulk_size,
            bytes=REQUEST_SHARE * settings.bulk_bytes,
        )
        floor = Floor(
            hold=hold,
            processor=Processor(
                self._store,
                self._cache,
                flusher,
                settings,
                self._clock,
                self.book,
                self._metrics,
                stop,
                self.repointer.add,
            ),
            clock=self._clock,
            metrics=self._metrics,
            health=self.stats,
            brake=Brake(),
            backoff=self._backoff,
            max_tries=settings.max_tries,
            stop=stop,
            on_room=self._room.set,
        )
        limits = Limits(settings.bulk_size, settings.bulk_bytes, settings.bulk_timeout, settings.bulk_idle)
        return [Lane(number, floor, limits) for number in range(settings.workers)]

    async def _read(self, hold: Hold, lanes: list[Lane], stop: asyncio.Event) -> None:
        """Hand messages to lanes, until the worker stops."""
        settings = self._settings
        while not stop.is_set():
            try:
                if not self._has_room(lanes):
                    self._room.clear()
                    await self._room.wait()
                    continue
                messages = await hold.receive(settings.bulk_size, settings.bulk_bytes, RECEIVE_S)
            except Stopped:
                return
            if stop.is_set():
                # The lanes may be gone already.
                if messages:
                    await hold.release(messages)
                return
            for message in messages:
                lanes[lane_of(message.key, len(lanes))].offer(message)

    def _has_room(self, lanes: list[Lane]) -> bool:
        """All inboxes are one room, so that a lane whose share is larger just now does not hold up the others."""
        events = sum(lane.inbox_events for lane in lanes)
        size = sum(lane.inbox_bytes for lane in lanes)
        return events < len(lanes) * self._settings.bulk_size and size < len(lanes) * self._settings.bulk_bytes

    async def _drain(self, working: set[asyncio.Task[None]]) -> None:
        """Give the lanes their share of the time; what they have not settled by then is given back."""
        timer = asyncio.create_task(self._clock.sleep(self._settings.shutdown_timeout * DRAIN_SHARE))
        try:
            left = set(working)
            while left and not timer.done():
                await asyncio.wait({*left, timer}, return_when=asyncio.FIRST_COMPLETED)
                left = {task for task in left if not task.done()}
            for task in left:
                log.warning("drain_cut_short", fix="raise SHUTDOWN_TIMEOUT; the queue has what is left")
                task.cancel()
        finally:
            timer.cancel()

    async def _close(self, consumer: Consumer, lanes: list[Lane]) -> None:
        try:
            async with asyncio.timeout(CLOSE_S):
                for lane in lanes:
                    await lane.abandon()
                await consumer.close()
        except (TimeoutError, TryLater, LeaseLost) as error:
            # The leases run out by themselves.
            log.warning("not_closed", reason=str(error) or "took too long")


def lane_of(key: str, lanes: int) -> int:
    """Which lane works on a key. Of its hash the upper half: queues choose partitions by the lower, and the keys of a
    partition would share a lane."""
    return (zlib.crc32(key.encode("utf-8", "surrogatepass")) >> 16) % lanes
