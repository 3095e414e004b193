"""When is a batch full? Pure: no clock, no I/O; a caller passes the time.

Events of one key (a session and a profile: the protocol takes one of each per call) are batched together. A batch
closes when it has ``events_max`` events, would pass ``bytes_max``, or is ``age_max_s`` old. Invariants:

* every event added is taken exactly once, unless ``drain`` takes it;
* the batches of a key are taken in order, one at a time: the next one only after ``settle``;
* what is held (waiting or taken and not settled) never passes ``hold_events`` and ``hold_bytes``, if callers
  ask ``fits`` first.

All operations take constant time, apart from the size of what they return.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from typing import NamedTuple

from msgspec import Struct


class Key(NamedTuple):
    """Whose events these are, as they were when the events were tracked."""

    session_id: str
    profile_id: str | None


class Batch(Struct, eq=False):
    """Encoded events of one key, in the order of their ``add``."""

    number: int
    """Counts up in the order in which batches were begun."""
    key: Key
    begun_s: float
    ids: list[str]
    items: list[bytes]
    size: int = 0
    """Bytes of all items."""


class Batcher:
    def __init__(self, *, events_max: int, bytes_max: int, age_max_s: float, hold_events: int, hold_bytes: int) -> None:
        self.events_max = events_max
        self.bytes_max = bytes_max
        self.age_max_s = age_max_s
        self.hold_events = hold_events
        self.hold_bytes = hold_bytes
        self.held_events = 0
        self.held_bytes = 0
        self._begun = 0
        # Insertion order is the order of age, since each key has at most one open batch and it enters when it begins.
        self._open: dict[Key, Batch] = {}
        self._closed: dict[Key, deque[Batch]] = {}
        self._ready: dict[Key, None] = {}
        """Keys with a closed batch and none in flight, in the order in which they became so."""
        self._in_flight: set[Key] = set()
        self._unsettled: dict[int, Batch] = {}

    def fits(self, size: int) -> bool:
        """Whether an event of ``size`` bytes has room now."""
        return self.held_events < self.hold_events and self.held_bytes + size <= self.hold_bytes

    def add(self, key: Key, id: str, item: bytes, now_s: float) -> bool:
        """Take one encoded event and its id. An event over ``bytes_max`` is alone in its batch.

        True: ``due_in_s`` may be sooner than it was, so whoever waits for it should look again.
        """
        sooner = not self._open
        batch = self._open.get(key)
        if batch is not None and batch.size + len(item) > self.bytes_max:
            self._close(key)
            sooner, batch = True, None
        if batch is None:
            self._begun += 1
            batch = Batch(number=self._begun, key=key, begun_s=now_s, ids=[], items=[])
            self._open[key] = self._unsettled[batch.number] = batch
        batch.ids.append(id)
        batch.items.append(item)
        batch.size += len(item)
        self.held_events += 1
        self.held_bytes += len(item)
        if len(batch.items) >= self.events_max or batch.size >= self.bytes_max:
            self._close(key)
            sooner = True
        return sooner

    def take(self, now_s: float, limit: int) -> Iterator[Batch]:
        """Up to ``limit`` batches that are due; their keys are in flight until ``settle``."""
        while self._open:
            key, oldest = next(iter(self._open.items()))
            if now_s - oldest.begun_s < self.age_max_s:
                break
            self._close(key)
        while limit > 0 and self._ready:
            key = next(iter(self._ready))
            del self._ready[key]
            waiting = self._closed[key]
            batch = waiting.popleft()
            if not waiting:
                del self._closed[key]
            self._in_flight.add(key)
            limit -= 1
            yield batch

    def due_in_s(self, now_s: float) -> float | None:
        """Seconds until ``take`` may give a batch; None: not before an ``add`` or a ``settle``."""
        if self._ready:
            return 0.0
        if self._open:
            return max(0.0, next(iter(self._open.values())).begun_s + self.age_max_s - now_s)
        return None

    def settle(self, batch: Batch) -> None:
        """The batch's fate is known: its room is free, and its key's next batch may go."""
        del self._unsettled[batch.number]
        self.held_events -= len(batch.items)
        self.held_bytes -= batch.size
        self._in_flight.discard(batch.key)
        if batch.key in self._closed:
            self._ready[batch.key] = None

    def close_open(self) -> int:
        """Close every open batch, full or not. The number that ``settled`` takes, to wait for all before it."""
        for key in list(self._open):
            self._close(key)
        return self._begun

    def settled(self, number: int) -> bool:
        """Whether every batch up to this number is settled."""
        return next(iter(self._unsettled), number + 1) > number

    def drain(self) -> list[Batch]:
        """Take out everything that is not settled, batches in flight included."""
        left = list(self._unsettled.values())
        for state in (self._open, self._closed, self._ready, self._in_flight, self._unsettled):
            state.clear()
        self.held_events = self.held_bytes = 0
        return left

    def _close(self, key: Key) -> None:
        self._closed.setdefault(key, deque()).append(self._open.pop(key))
        if key not in self._in_flight:
            self._ready[key] = None
