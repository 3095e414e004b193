"""When is a batch full? A pure answer: times are handed in, nothing is awaited.

A batch is due for the first of these reasons: ``full`` (events), ``bytes``, ``timeout`` (age of its first message) or
``idle`` (nothing new for a while). ``shutdown`` is given by whoever closes it early. A message is never split over two
batches, since it is acknowledged as a whole: the message that reaches a limit is still taken, so a batch holds less
than its limit plus one message.
"""

from __future__ import annotations

from typing import Generic, Literal, TypeVar

from msgspec import Struct

Reason = Literal["full", "bytes", "timeout", "idle", "shutdown"]
REASONS: tuple[Reason, ...] = ("full", "bytes", "timeout", "idle", "shutdown")

T = TypeVar("T")


class Limits(Struct, frozen=True):
    events: int
    bytes: int
    timeout_s: float
    """From the first message in."""
    idle_s: float
    """From the last message in; 0: never flushed for being idle."""


class Batch(Generic[T]):
    """What has been taken since the last flush. Times are monotonic seconds."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self.items: list[T] = []
        self.events = 0
        self.bytes = 0
        self._first_at = 0.0
        self._last_at = 0.0

    def add(self, item: T, events: int, size: int, now: float) -> None:
        if not self.items:
            self._first_at = now
        self._last_at = now
        self.items.append(item)
        # A message without events is work too, and must not let a batch grow without end.
        self.events += max(1, events)
        self.bytes += size

    def due_at(self) -> float:
        """When it is flushed if nothing more comes: now or earlier if it is full. Infinity for an empty one."""
        if not self.items:
            return float("inf")
        if self._over():
            return self._last_at
        due = self._first_at + self._limits.timeout_s
        if self._limits.idle_s:
            due = min(due, self._last_at + self._limits.idle_s)
        return due

    def reason(self, now: float) -> Reason | None:
        """Why it should be flushed at ``now``; None: not yet."""
        if not self.items:
            return None
        over = self._over()
        if over:
            return over
        if now >= self._first_at + self._limits.timeout_s:
            return "timeout"
        if self._limits.idle_s and now >= self._last_at + self._limits.idle_s:
            return "idle"
        return None

    def _over(self) -> Reason | None:
        if self.events >= self._limits.events:
            return "full"
        if self.bytes >= self._limits.bytes:
            return "bytes"
        return None
