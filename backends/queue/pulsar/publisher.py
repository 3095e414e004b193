"""Publishing to the partitions: one producer each, so that a key's partition is ours to choose and never moves.

Bounds: ``IN_FLIGHT_MAX`` messages and the setting ``in_flight_max`` in bytes wait for their receipts; more is ``Full``.
"""

from __future__ import annotations

import asyncio
from functools import partial

from tracardi_lite.backends.queue.pulsar import frame
from tracardi_lite.backends.queue.pulsar.counts import Counts, Position, Written
from tracardi_lite.backends.queue.pulsar.ledger import Ledger
from tracardi_lite.backends.queue.pulsar.room import Room
from tracardi_lite.backends.queue.pulsar.sender import Sender
from tracardi_lite.backends.queue.routing import partition_of
from tracardi_lite.errors import Full, TryLater, Unavailable
from tracardi_lite.ports.queue import Posted, Publication

IN_FLIGHT_MAX = 20_000
UNCERTAIN_S = 60.0
"""Longer than any message waits whose fate is then given up."""


class Publisher:
    def __init__(self, senders: list[Sender], ledger: Ledger, bytes_max: int, room: Room) -> None:
        self._senders = senders
        self._ledger = ledger
        self._bytes_max = bytes_max
        self._room = room
        self._known: set[tuple[bytes, int]] = set()
        """Writers, by partition, that the journal knows."""
        self._registering: dict[tuple[bytes, int], asyncio.Task[None]] = {}
        self._items = 0
        self._bytes = 0
        self.uncertain = False
        """The fate of some publication is unknown since this was last set to False."""

    def unsure_s(self) -> float:
        """For how long a message may have been in the log that is not counted yet."""
        return UNCERTAIN_S if self.uncertain else max(sender.waits_s for sender in self._senders)

    def check(self, size: int = 0) -> None:
        """Raise ``Full`` or ``Unavailable`` if a publish would most likely fail now."""
        for sender in self._senders:
            sender.check()
        self._check_bounds(size)

    def post(self, publication: Publication, done: Posted) -> None:
        number = partition_of(publication.key, len(self._senders))
        counts = self._ledger.counts
        payload = frame.encode(
            counts.writer, publication.head, publication.body, publication.events, publication.replay
        )
        size = len(payload)
        self._check_bounds(size)
        if (counts.writer, number) not in self._known:
            self._introduce(counts, number)
        self._items += 1
        self._bytes += size
        try:
            self._senders[number].post(
                payload,
                publication.key,
                partial(self._landed, counts, number, publication.events, publication.replay, size, done),
            )
            self._room.sent(size)
        except BaseException:
            self._items -= 1
            self._bytes -= size
            raise

    def _check_bounds(self, size: int) -> None:
        if self._items >= IN_FLIGHT_MAX or (self._items and self._bytes + size > self._bytes_max):
            raise Full("queue", "too much waits for Pulsar's receipt")
        self._room.check()
        self._ledger.check()

    def _landed(
        self,
        counts: Counts,
        number: int,
        events: int,
        replay: bool,
        size: int,
        done: Posted,
        error: Exception | None,
        place: Position | None,
        late: bool,
    ) -> None:
        """``sender.Told``, of a publication."""
        if place is not None:
            self._ledger.note_published(counts, number, events, replay, place)
        if late:
            return
        self._items -= 1
        self._bytes -= size
        if isinstance(error, TryLater):
            self.uncertain = True
        if error is None and (counts.writer, number) not in self._known:
            self._introduce(counts, number).add_done_callback(partial(_tell, done))
        else:
            done(error)

    def _introduce(self, counts: Counts, number: int) -> asyncio.Task[None]:
        """Let the journal know that this writer writes to this partition."""
        key = counts.writer, number
        task = self._registering.get(key)
        if task is None:
            counts.published.setdefault(number, Written())
            task = self._registering[key] = asyncio.create_task(self._ledger.report())
            task.add_done_callback(partial(self._registered, key))
        return task

    def _registered(self, key: tuple[bytes, int], task: asyncio.Task[None]) -> None:
        del self._registering[key]
        if not task.cancelled() and task.exception() is None:
            self._known.add(key)


def _tell(done: Posted, task: asyncio.Task[None]) -> None:
    error = Unavailable("queue", "is closed") if task.cancelled() else task.exception()
    assert error is None or isinstance(error, Exception), error
    done(error)
