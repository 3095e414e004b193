"""One topic's producer: ``post`` tells a callback of the broker's receipt, ``send`` gives a future.

What is posted in one turn of the event loop goes out at its end, in one piece; messages of the same key are one batch,
and so one entry of the log. Sent entries wait in order for their receipts. When the connection is lost they are sent
again on the next, under the same name and numbers, by which a broker that deduplicates knows them; connecting is tried
for ever.

The circuit: a producer that is not connected refuses at once, as does one whose oldest entry has no receipt for
``STALLED_S``; what waits then is failed after ``PATIENCE_S`` of no connection. What has no receipt for
``SEND_TIMEOUT_S`` is given up, its fate unknown.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence

import structlog

from tracardi_lite.backends.queue.pulsar.counts import Position
from tracardi_lite.backends.queue.pulsar.wire import protobuf
from tracardi_lite.backends.queue.pulsar.wire.brokers import Brokers
from tracardi_lite.backends.queue.pulsar.wire.commands import Fault
from tracardi_lite.backends.queue.pulsar.wire.connection import Connection, first_line
from tracardi_lite.backends.queue.pulsar.wire.messages import Writer
from tracardi_lite.errors import BadInput, TryLater, Unavailable

log = structlog.get_logger(__name__)

SEND_TIMEOUT_S = 10.0
PATIENCE_S = 2.0
STALLED_S = 4.0
AGAIN_S = 0.1
AGAIN_MAX_S = 2.0
"""The pause between two attempts to connect: doubled from the one to the next, and varied by half."""
STEADY_S = 5.0
"""After so long a connection counts as a good one, and the next attempt is made at once."""
BATCH_MESSAGES = 1000
BATCH_BYTES = 128 << 10

_FINAL = frozenset({Fault.CHECKSUM, Fault.TOPIC_TERMINATED, Fault.NOT_ALLOWED})
"""Sent again, an entry would be refused again."""

_ids = itertools.count(1)
"""Producers' numbers: no two on a connection may have the same, and all share connections."""

Told = Callable[[Exception | None, Position | None, bool], None]
"""What became of a message: (error, where it stands in the log, whether this is late). Without an error it has a place.

Called once, or, for a message that was failed without its fate being known, a second time, late, if a receipt comes
after all: then it only remains to be counted. Must not raise.
"""


class Flight:
    """A message that was posted and has no receipt yet."""

    __slots__ = ("done", "key", "payload", "size", "told")

    def __init__(self, key: str, payload: bytes | None, told: Told) -> None:
        self.key = key
        self.payload = payload
        self.size = len(payload or b"")
        self.told = told
        self.done = False


class Entry:
    """What the broker gives one receipt for: a message, or a batch of one key's."""

    __slots__ = ("at", "flights", "frame", "sequence")

    def __init__(self, sequence: int, frame: bytes, flights: Sequence[Flight], at: float) -> None:
        self.sequence = sequence
        self.frame = frame
        self.flights = flights
        self.at = at


class Sender:
    def __init__(self, brokers: Brokers, topic: str, *, batching: bool) -> None:
        self._brokers = brokers
        self._topic = topic
        self._batching = batching
        self._id = next(_ids)
        self._name = ""
        self._epoch = 0
        self._writer: Writer
        self._bytes_max = 0
        """Of a message, as the broker said last."""
        self._connection: Connection | None = None
        self._detached = asyncio.Event()
        self._upkeep: asyncio.Task[None] | None = None
        self._sequence = 0
        self._fresh: list[Flight] = []
        """Posted in this turn."""
        self._sent: deque[Entry] = deque()
        """Without a receipt, in order."""
        self._attached_at = 0.0
        self._away_since: float | None = None
        self.items = 0
        """Messages that somebody waits for."""
        self.bytes = 0

    async def open(self) -> None:
        """Raises ``Unavailable``."""
        await self._attach()
        self._upkeep = asyncio.create_task(self._stay_attached())

    @property
    def waits_s(self) -> float:
        """For how long the oldest of what was sent has waited for its receipt."""
        return time.monotonic() - self._sent[0].at if self._sent else 0.0

    def check(self) -> None:
        """Raise ``Unavailable`` if a message would most likely not get its receipt now."""
        if self._connection is None or self._away_since is not None:
            raise Unavailable("queue", "no connection to Pulsar")
        if self._sent and time.monotonic() - self._sent[0].at > STALLED_S:
            raise Unavailable("queue", "Pulsar does not answer")

    def send(self, payload: bytes | None, key: str) -> asyncio.Future[Position]:
        """Raises ``Unavailable`` at once, or gives the future of the message's place. None makes a tombstone."""
        future: asyncio.Future[Position] = asyncio.get_running_loop().create_future()

        def told(error: Exception | None, place: Position | None, late: bool) -> None:
            if future.done():
                return  # late, or nobody waits any more
            if place is not None:
                future.set_result(place)
            else:
                assert error is not None
                future.set_exception(error)

        self.post(payload, key, told)
        return future

    def post(self, payload: bytes | None, key: str, told: Told) -> None:
        """Raises ``Unavailable`` at once, or calls ``told`` after it has returned."""
        self.check()
        flight = Flight(key, payload, told)
        self.items += 1
        self.bytes += flight.size
        self._fresh.append(flight)
        if len(self._fresh) == 1:
            asyncio.get_running_loop().call_soon(self._flush)

    def watch(self) -> None:
        """Look after what waits; called a few times a second."""
        now = time.monotonic()
        if self._sent and now - self._sent[0].at > SEND_TIMEOUT_S:
            self._give_up()
        if self._connection is not None:
            if self._away_since is not None:
                log.warning("pulsar_back", topic=self._topic, away_s=round(now - self._away_since, 1))
            self._away_since = None
            return
        if self._away_since is None:
            self._away_since = now
            log.warning("pulsar_away", topic=self._topic)
        if now - self._away_since >= PATIENCE_S:
            self._fail_all("no connection to Pulsar")

    async def close(self) -> None:
        if self._upkeep is not None:
            self._upkeep.cancel()
            await asyncio.gather(self._upkeep, return_exceptions=True)
        self._flush()
        if self._connection is not None:
            self._connection.close_producer(self._id)
            self._connection = None
        self._fail_all("is closed")

    # --- what the connection tells ---
    def received(self, sequence: int, ledger: int, entry: int) -> None:
        if not self._sent or sequence < self._sent[0].sequence:
            return  # given up, or sent twice
        if sequence != self._sent[0].sequence:
            self._lose("Pulsar has given a receipt out of order")
            return
        # A broker that deduplicates says -1 of what it had already: it is in the log, and we can't know where.
        ledger, entry = protobuf.signed(ledger), protobuf.signed(entry)
        for index, flight in enumerate(self._sent.popleft().flights):
            late = flight.done
            self._end(flight)
            flight.told(None, (ledger, entry, index), late)

    def refused(self, sequence: int, code: int, text: str) -> None:
        if not self._sent or sequence != self._sent[0].sequence or code not in _FINAL:
            # Sent again on another connection, in order: it may be the broker's trouble, and over soon.
            self._lose(f"Pulsar does not keep what was sent: {first_line(text)}")
            return
        log.warning("pulsar_refuses", topic=self._topic, code=code, reason=text)
        self._fail(self._sent.popleft().flights, f"Pulsar: {first_line(text)}")

    def detached(self, reason: str) -> None:
        log.info("pulsar_detached", topic=self._topic, reason=reason)
        self._connection = None
        self._detached.set()

    # --- inside ---
    async def _attach(self) -> None:
        """Open the producer where its topic is, and send again what has no receipt."""
        connection = await self._brokers.serving(self._topic)
        self._detached.clear()
        self._epoch += 1
        name = await connection.open_producer(self, self._topic, self._id, self._name, self._epoch)
        if self._detached.is_set():
            raise Unavailable("queue", "the connection to Pulsar was lost at once")
        if name != self._name:
            self._name, self._writer = name, Writer(self._id, name)
        self._connection, self._bytes_max = connection, connection.message_bytes_max
        self._attached_at = time.monotonic()
        for entry in self._sent:
            connection.write(entry.frame)

    async def _stay_attached(self) -> None:
        pause = 0.0
        while True:
            await self._detached.wait()
            said = ""
            if time.monotonic() - self._attached_at > STEADY_S:
                pause = 0.0
            while self._connection is None:
                await asyncio.sleep(pause * random.uniform(0.5, 1.5))
                pause = min(max(2 * pause, AGAIN_S), AGAIN_MAX_S)
                try:
                    await self._attach()
                except TryLater as error:
                    if error.reason != said:
                        log.info("pulsar_still_away", topic=self._topic, reason=error.reason)
                    said = error.reason
                except Exception:
                    # A bug. It shows, and does not keep us away from the broker for ever.
                    log.exception("pulsar_attach_failed", topic=self._topic)

    def _flush(self) -> None:
        fresh, self._fresh = self._fresh, []
        at, now_ms = time.monotonic(), time.time_ns() // 1_000_000
        for flights in self._entries(fresh):
            sequence, key = self._sequence, flights[0].key
            if len(flights) == 1:
                frame = self._writer.single(sequence, key, flights[0].payload, now_ms)
            else:
                frame = self._writer.batch(sequence, key, [flight.payload for flight in flights], now_ms)
            self._sequence += len(flights)
            self._sent.append(Entry(sequence, frame, flights, at))
            if self._connection is not None:
                self._connection.write(frame)

    def _entries(self, fresh: Sequence[Flight]) -> Iterator[list[Flight]]:
        """Each key's messages together, in their order; those that the broker does not take are failed."""
        bytes_max = min(BATCH_BYTES, self._bytes_max)
        batches: dict[str, list[Flight]] = {}
        sizes: dict[str, int] = {}
        for flight in fresh:
            if flight.size > self._bytes_max:
                self._end(flight)
                flight.told(BadInput(413, "larger than the broker takes (its maxMessageSize)"), None, False)
                continue
            batch = batches.setdefault(flight.key, [])
            size = sizes.get(flight.key, 0) + flight.size
            if batch and (not self._batching or size > bytes_max or len(batch) == BATCH_MESSAGES):
                yield batch
                batch = batches[flight.key] = []
                size = flight.size
            batch.append(flight)
            sizes[flight.key] = size
        yield from batches.values()

    def _lose(self, reason: str) -> None:
        if self._connection is not None:
            self._connection.abort(reason)  # tells us, and all others on it, that we are detached

    def _give_up(self) -> None:
        """Forget what was sent: it may be in the log or not."""
        self._fail_all("Pulsar has not answered")
        self._sent.clear()
        self._lose(f"no receipt for {SEND_TIMEOUT_S:g} s")

    def _fail_all(self, reason: str) -> None:
        """Their fate is unknown."""
        for entry in self._sent:
            self._fail(entry.flights, reason)

    def _fail(self, flights: Sequence[Flight], reason: str) -> None:
        for flight in flights:
            if not flight.done:
                self._end(flight)
                flight.told(Unavailable("queue", reason), None, False)

    def _end(self, flight: Flight) -> None:
        if flight.done:
            return
        flight.done = True
        self.items -= 1
        self.bytes -= flight.size
