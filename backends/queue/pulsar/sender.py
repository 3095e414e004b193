"""One topic's producer on the event loop: ``post`` tells a callback of the broker's receipt, ``send`` gives a future.

The client calls back once per message from its own thread. Receipts are put in a deque and the loop is woken once per
burst (``Bridge``), which costs half of what a wake-up per message does.

The circuit: a producer that is not connected refuses at once, as does one whose oldest message has no receipt for
``STALLED_S``; what waits then is failed after ``PATIENCE_S`` of no connection. A producer that stays away is made anew
every ``REBUILD_S``, for ever, since the client's own pauses between attempts grow to a minute.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Any

import pulsar
import structlog

from tracardi_lite.backends.queue.pulsar.client import Blocking, close_quietly, send_error
from tracardi_lite.errors import TryLater, Unavailable

log = structlog.get_logger(__name__)

SEND_TIMEOUT_S = 10
"""The client's own: after it the message is given up, its fate unknown."""
PATIENCE_S = 2.0
STALLED_S = 4.0
REBUILD_S = 5.0
BATCH_DELAY_MS = 1
BATCH_MESSAGES = 1000
BATCH_BYTES = 128 << 10


class Bridge:
    """From the client's threads to the loop, one wake-up per burst."""

    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._calls: deque[tuple[Callable[..., None], tuple[Any, ...]]] = deque()
        self._woken = False

    def call(self, function: Callable[..., None], *arguments: Any) -> None:
        """Run ``function`` on the loop, after those that were handed over before. From any thread."""
        self._calls.append((function, arguments))
        if not self._woken:
            self._woken = True
            try:
                self._loop.call_soon_threadsafe(self._run)
            except RuntimeError:
                return  # the loop is closed: nobody waits any more

    def _run(self) -> None:
        self._woken = False  # before the deque is emptied, so that a late one wakes us again
        while self._calls:
            function, arguments = self._calls.popleft()
            function(*arguments)


Told = Callable[[Exception | None, Any, bool], None]
"""What became of a message: (error, the message's id, whether this is late). Without an error there is an id.

Called once, or, for a message that was given up without its fate being known, a second time, late, if a receipt comes
after all: then it only remains to be counted.
"""


class Flight:
    """A message that was sent and has no receipt yet."""

    __slots__ = ("at", "done", "size", "told")

    def __init__(self, told: Told, size: int, at: float) -> None:
        self.told = told
        self.size = size
        self.at = at
        self.done = False


class Sender:
    def __init__(self, blocking: Blocking, bridge: Bridge, topic: str, *, batching: bool) -> None:
        self._blocking = blocking
        self._bridge = bridge
        self._topic = topic
        self._batching = batching
        self._producer: Any = None
        self._flights: deque[Flight] = deque()
        self._away_since: float | None = None
        self._rebuilding: asyncio.Task[None] | None = None
        self.items = 0
        """In flight: sent, without a receipt."""
        self.bytes = 0

    async def open(self) -> None:
        self._producer = await self._blocking.run(self._create)

    def _create(self) -> Any:
        return self._blocking.client.create_producer(
            self._topic,
            send_timeout_millis=SEND_TIMEOUT_S * 1000,
            max_pending_messages=0,  # unlimited: ours are bounded by the publisher, in bytes as well
            max_pending_messages_across_partitions=0,
            block_if_queue_full=False,
            batching_enabled=self._batching,
            batching_type=pulsar.BatchingType.KeyBased,
            batching_max_publish_delay_ms=BATCH_DELAY_MS,
            batching_max_messages=BATCH_MESSAGES,
            batching_max_allowed_size_in_bytes=BATCH_BYTES,
        )

    def check(self) -> None:
        """Raise ``Unavailable`` if a message would most likely not get its receipt now."""
        if self._producer is None or self._away_since is not None or not self._producer.is_connected():
            raise Unavailable("queue", "no connection to Pulsar")
        if self.items and time.monotonic() - self._flights[0].at > STALLED_S:
            raise Unavailable("queue", "Pulsar does not answer")

    def send(self, payload: bytes | None, key: str) -> asyncio.Future[Any]:
        """Raises ``Unavailable`` at once, or gives the future of the message's id. None makes a tombstone."""
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()

        def told(error: Exception | None, message_id: Any, late: bool) -> None:
            if future.done():
                return  # late, or nobody waits any more
            if error is None:
                future.set_result(message_id)
            else:
                future.set_exception(error)

        self.post(payload, key, told)
        return future

    def post(self, payload: bytes | None, key: str, told: Told) -> None:
        """Raises ``Unavailable`` at once, or calls ``told``, which must not raise, after it has returned."""
        self.check()
        flight = Flight(told, len(payload or b""), time.monotonic())
        self._flights.append(flight)
        self.items += 1
        self.bytes += flight.size
        try:
            self._producer.send_async(payload, partial(self._bridge.call, self._receipt, flight), partition_key=key)
        except pulsar.PulsarException as error:
            self._end(flight)
            raise Unavailable("queue", f"Pulsar: {type(error).__name__}") from error

    def watch(self) -> None:
        """Look after the connection; called a few times a second."""
        now = time.monotonic()
        connected = self._producer is not None and self._producer.is_connected()
        if connected:
            if self._away_since is not None:
                log.warning("pulsar_back", topic=self._topic, away_s=round(now - self._away_since, 1))
            self._away_since = None
            return
        if self._away_since is None:
            self._away_since = now
            log.warning("pulsar_away", topic=self._topic)
        away_s = now - self._away_since
        if away_s >= PATIENCE_S:
            self._fail_all(Unavailable("queue", "no connection to Pulsar"))
        if away_s >= REBUILD_S and (self._rebuilding is None or self._rebuilding.done()):
            self._rebuilding = asyncio.create_task(self._rebuild())

    async def close(self) -> None:
        if self._rebuilding is not None:
            self._rebuilding.cancel()
            await asyncio.gather(self._rebuilding, return_exceptions=True)
        if self._producer is not None:
            await self._blocking.run(close_quietly, self._producer)
        self._fail_all(Unavailable("queue", "is closed"))

    async def _rebuild(self) -> None:
        old = self._producer
        try:
            if old is not None:
                await self._blocking.run(close_quietly, old)
            self._producer = None
            await self.open()
        except TryLater as error:
            log.info("pulsar_still_away", topic=self._topic, reason=error.reason)
            await asyncio.sleep(REBUILD_S)

    def _receipt(self, flight: Flight, result: Any, message_id: Any) -> None:
        late = flight.done
        self._end(flight)
        if result == pulsar.Result.Ok:
            flight.told(None, message_id, late)
        elif not late:
            flight.told(send_error(result), None, late)

    def _end(self, flight: Flight) -> None:
        if flight.done:
            return
        flight.done = True
        self.items -= 1
        self.bytes -= flight.size
        while self._flights and self._flights[0].done:
            self._flights.popleft()

    def _fail_all(self, error: Unavailable) -> None:
        """Their fate is unknown."""
        for flight in [flight for flight in self._flights if not flight.done]:
            self._end(flight)
            flight.told(error, None, False)
