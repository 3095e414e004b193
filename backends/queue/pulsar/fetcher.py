"""A Pulsar consumer in a thread of its own, which hands messages to the loop in bursts.

The client's ``batch_receive`` costs 8 µs per message where its asyncio twin costs 44 to 100. The thread blocks for the
first message and then takes what else is there. It stops taking while the loop holds ``HELD_MAX`` messages or
``HELD_BYTES_MAX`` that nobody asked for yet.

Being away: the thread beats ``BEAT_S`` apart. A gap of more than ``PAUSE_MAX_S`` between beats means that the process
was paused, and a consumer that is not connected means that the broker may give our messages to others: in both cases
everything that is held must be taken as lost, see ``consumer``.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import pulsar
from msgspec import Struct

from tracardi_lite.backends.queue.pulsar.bridge import Bridge
from tracardi_lite.backends.queue.pulsar.client import Blocking, close_quietly, partitions_of
from tracardi_lite.backends.queue.pulsar.ids import EntryId, batch_size, entry_of
from tracardi_lite.backends.queue.pulsar.nudge import Quiet

BEAT_S = 0.2
PAUSE_MAX_S = 4.0
BURST_MESSAGES = 1000
BURST_BYTES = 4 << 20
BURST_WAIT_MS = 2
RECEIVER_QUEUE = 64
"""Prefetched per partition, in messages; all partitions together at most ``RECEIVER_QUEUE_TOTAL``.

The client can't bound it in bytes, and a call of 100 events is 115 KB. More would be no faster, since the broker sends
the next half while we work on this one, and what is here is kept from other workers.
"""
RECEIVER_QUEUE_TOTAL = 2000
HELD_MAX = 4000
HELD_BYTES_MAX = 32 << 20


class Arrival(Struct):
    key: str
    entry: EntryId
    index: int
    size: int
    """Messages in the entry."""
    payload: bytes
    published_ms: int
    message_id: Any


class Fetcher:
    """Runs from ``start`` to ``stop``; calls ``on_burst`` and ``on_away`` on the loop.

    ``idle`` says, in this thread, whether the loop holds nothing of what it has taken in.
    """

    def __init__(
        self,
        blocking: Blocking,
        bridge: Bridge,
        topic: str,
        subscription: str,
        on_burst: Callable[[Fetcher, Sequence[Arrival]], None],
        on_away: Callable[[Fetcher], None],
        idle: Callable[[], bool],
    ) -> None:
        self._blocking = blocking
        self._bridge = bridge
        self._topic = topic
        self._subscription = subscription
        self._on_burst = on_burst
        self._on_away = on_away
        self._idle = idle
        self._consumer: Any = None
        self._quiet = Quiet(0, 0.0)
        self._thread: threading.Thread | None = None
        self._stopping = False
        self._room = threading.Event()
        self._room.set()
        self._beat = time.monotonic()
        self._handed = 0
        self.taken = 0
        """Messages that the loop has taken in, of those that were handed over."""
        self.lost = False
        """What came through it may be with others now."""

    async def start(self) -> None:
        partitions = await self._blocking.run(partitions_of, self._blocking.client, self._topic)
        self._consumer = await self._blocking.run(self._subscribe)
        self._beat = time.monotonic()
        self._quiet = Quiet(len(partitions), self._beat)
        self._thread = threading.Thread(target=self._run, name="pulsar-fetch", daemon=True)
        self._thread.start()

    def set_room(self, room: bool) -> None:
        """Whether the loop wants more."""
        if room:
            self._room.set()
        else:
            self._room.clear()

    def check_pause(self) -> None:
        """Notice a pause before the thread does."""
        if time.monotonic() - self._beat > PAUSE_MAX_S:
            self.lost = True

    async def acknowledge(self, message_ids: Sequence[Any]) -> None:
        """Tell the broker, grouped by the client; what gets lost on the way makes messages come again."""
        await self._blocking.run(self._acknowledge, message_ids)

    async def stop(self) -> None:
        self._stopping = True
        self._room.set()
        await self._blocking.run(self._stop)

    def _subscribe(self) -> Any:
        return self._blocking.client.subscribe(
            self._topic,
            self._subscription,
            consumer_type=pulsar.ConsumerType.KeyShared,
            initial_position=pulsar.InitialPosition.Earliest,
            receiver_queue_size=RECEIVER_QUEUE,
            max_total_receiver_queue_size_across_partitions=RECEIVER_QUEUE_TOTAL,
            batch_receive_policy=pulsar.ConsumerBatchReceivePolicy(BURST_MESSAGES, BURST_BYTES, BURST_WAIT_MS),
        )

    def _stop(self) -> None:
        if self._thread is not None:
            self._thread.join()
        if self._consumer is not None:
            close_quietly(self._consumer)

    def _acknowledge(self, message_ids: Sequence[Any]) -> None:
        for message_id in message_ids:
            try:
                self._consumer.acknowledge(message_id)
            except pulsar.PulsarException:
                return  # away: they come again, and are known to be settled

    def _run(self) -> None:
        while not self._stopping:
            now = time.monotonic()
            paused, self._beat = now - self._beat > PAUSE_MAX_S, now
            if paused or self.lost or not self._consumer.is_connected():
                self.lost = True
                self._bridge.call(self._on_away, self)
                return
            if self._handed - self.taken > HELD_MAX:  # the loop is behind
                time.sleep(BEAT_S / 10)
                continue
            if not self._room.wait(BEAT_S):
                continue
            try:
                self._nudge(now)
                burst = self._receive()
            except pulsar.Timeout:
                continue
            except (pulsar.PulsarException, ValueError):
                self.lost = True
                self._bridge.call(self._on_away, self)
                return
            self._handed += len(burst)
            self._bridge.call(self._on_burst, self, burst)

    def _nudge(self, now: float) -> None:
        """See ``nudge``. What the loop holds can't grow meanwhile: nothing comes to it but through this thread."""
        if self._handed == self.taken and self._idle() and self._quiet.asks(now):
            self._consumer.redeliver_unacknowledged_messages()

    def _receive(self) -> list[Arrival]:
        first = self._consumer.receive(int(BEAT_S * 1000))
        burst = [_arrival(message) for message in (first, *self._consumer.batch_receive())]
        self._quiet.heard({arrival.entry.partition for arrival in burst}, time.monotonic())
        return burst


def _arrival(message: Any) -> Arrival:
    message_id = message.message_id()
    return Arrival(
        key=message.partition_key(),
        entry=entry_of(message_id),
        index=max(0, message_id.batch_index()),
        size=batch_size(message_id),
        payload=message.data(),
        published_ms=message.publish_timestamp(),
        message_id=message_id,
    )
