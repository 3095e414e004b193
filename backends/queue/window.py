"""What a consumer knows of one partition between its cursor and what it has read: the bookkeeping of delivery.

Pure and in memory, used by every backend whose log is read by offset (memory, SQLite). It holds no bodies: a
message that is put back is read again from the log, so a window is bounded by its entries alone.

Invariants:

* The cursor is the lowest offset that is not done; it never passes one that is out or waits.
* Of one key, nothing is delivered while an earlier message waits, and a message that was tried before is out
  alone among its key: its later ones follow when it is done.
* Outcomes are summed when the cursor passes their message, once each: ``take`` gives what the backend stores
  together with the cursor.
"""

from __future__ import annotations

import enum
from collections import deque

from msgspec import Struct

from tracardi_lite.ports.queue import Tally

MESSAGES_MAX = 20_000
"""Entries beyond the cursor of one partition; a stuck message stalls its partition there (about 4 MB)."""
BYTES_MAX = 256 << 20
"""Bytes delivered and not yet settled, of one partition."""


class Budget:
    """How much one ``receive`` may still take: messages and bytes, but always at least one message."""

    def __init__(self, messages: int, size: int) -> None:
        self.messages = max(messages, 1)
        self._bytes = size
        self._taken = False
        self.spent = False
        """Nothing more fits, or the next one was too large."""

    def takes(self, size: int) -> bool:
        """Whether a message of this size is still in; it counts if so."""
        if self.spent or (self._taken and size > self._bytes):
            self.spent = True
            return False
        self._taken = True
        self._bytes -= size
        self.messages -= 1
        self.spent = self.messages <= 0 or self._bytes <= 0
        return True


class State(enum.Enum):
    OUT = "out"
    WAITS = "waits"
    DONE = "done"


class Entry:
    __slots__ = ("due", "events", "key", "messages", "size", "state", "tally", "tries")

    def __init__(self, key: str, events: int, size: int, tries: int) -> None:
        self.key = key
        self.messages = 1
        self.events = events
        self.size = size
        self.tries = tries
        self.due = 0.0
        self.state = State.OUT
        self.tally: Tally | None = None


class Passed(Struct):
    """What the cursor has passed since the last ``take``, and where it is now."""

    cursor: int
    messages: int = 0
    events: int = 0
    stored: int = 0
    duplicate: int = 0
    rejected: int = 0
    dead: int = 0


class Window:
    """One partition's deliveries. Offsets are offered in growing order; times are seconds of one monotonic clock."""

    def __init__(self, cursor: int, messages_max: int = MESSAGES_MAX, bytes_max: int = BYTES_MAX) -> None:
        self.next = cursor
        """The offset to read from."""
        self.out = 0
        """Messages delivered and not settled."""
        self.messages_max = messages_max
        self._bytes_max = bytes_max
        self._out_bytes = 0
        self._entries: dict[int, Entry] = {}
        self._order: deque[int] = deque()
        self._lines: dict[str, list[int]] = {}
        self._troubled: set[str] = set()
        self._dirty = False
        self._next_due = float("inf")
        self._passed = Passed(cursor)
        self._taken_cursor = cursor

    @property
    def has_room(self) -> bool:
        return len(self._entries) < self.messages_max and self._out_bytes < self._bytes_max

    @property
    def next_due(self) -> float:
        """When the earliest waiting message may come again; infinity when none waits for a time."""
        return 0.0 if self._dirty and self._troubled else self._next_due

    def offer(self, offset: int, key: str, events: int, size: int, tries: int = 0, due: float = 0.0) -> bool:
        """Take in the next message of the log. True: deliver it now; False: it is held back, see ``eligible``."""
        assert offset >= self.next, (offset, self.next)
        entry = self._entries[offset] = Entry(key, events, size, tries)
        self._order.append(offset)
        line = self._lines.setdefault(key, [])
        line.append(offset)
        self.next = offset + 1
        if tries or due or key in self._troubled:
            entry.state = State.WAITS
            entry.due = due
            self._troubled.add(key)
            self._dirty = True
            return False
        self.out += 1
        self._out_bytes += size
        return True

    def skip_to(self, offset: int) -> None:
        """Nothing more of this partition stands below ``offset``."""
        if offset > self.next:
            self.next = offset
        if not self._order:
            self._passed.cursor = self.next

    def lose_waiting(self, offset: int) -> int:
        """A waiting message can't be read any more: settle it as dead. Its events."""
        self.redeliver(offset)
        events = self._entries[offset].events
        self.done(offset, Tally(dead=events))
        return events

    def waits(self, offset: int) -> bool:
        entry = self._entries.get(offset)
        return entry is not None and entry.state is State.WAITS

    def lose(self, offset: int, messages: int, events: int) -> None:
        """Step over messages that can't be read any more; their events count as dead."""
        assert offset >= self.next
        entry = self._entries[offset] = Entry("", events, 0, 0)
        entry.messages = messages
        entry.state = State.DONE
        entry.tally = Tally(dead=events)
        self._order.append(offset)
        self.next = offset + 1
        self._advance()

    def done(self, offset: int, tally: Tally) -> bool:
        """Settle a delivered message. False when it was settled before, or is not out."""
        entry = self._entries.get(offset)
        if entry is None or entry.state is not State.OUT:
            return False
        assert tally.stored + tally.duplicate + tally.rejected + tally.dead == entry.events, "a tally must add up"
        entry.state = State.DONE
        entry.tally = tally
        self.out -= 1
        self._out_bytes -= entry.size
        line = self._lines[entry.key]
        line.remove(offset)
        if not line:
            del self._lines[entry.key]
        self._dirty = True
        if self._order[0] == offset:
            self._advance()
        return True

    def put_back(self, offset: int, due: float, *, tried: bool) -> int | None:
        """Let a delivered message wait until ``due``. Its tries from now on; None when it is not out."""
        entry = self._entries.get(offset)
        if entry is None or entry.state is not State.OUT:
            return None
        entry.state = State.WAITS
        entry.due = due
        entry.tries += tried
        self.out -= 1
        self._out_bytes -= entry.size
        self._troubled.add(entry.key)
        self._dirty = True
        return entry.tries

    def eligible(self, now: float, limit: int) -> list[int]:
        """Offsets of waiting messages that may be delivered now, each with ``redeliver``; in order within a key."""
        if not self._troubled or (not self._dirty and now < self._next_due):
            return []
        found: list[int] = []
        self._next_due = float("inf")
        for key in list(self._troubled):
            if len(found) >= limit:
                break
            self._walk(key, now, limit, found)
        # Found is not yet delivered, and delivering or leaving it changes what follows: look again next time.
        self._dirty = bool(found)
        found.sort()
        return found

    def redeliver(self, offset: int) -> int:
        """Mark as delivered what ``eligible`` gave; how often it was tried before."""
        entry = self._entries[offset]
        assert entry.state is State.WAITS
        entry.state = State.OUT
        entry.due = 0.0
        self.out += 1
        self._out_bytes += entry.size
        self._dirty = True
        return entry.tries

    @property
    def cursor(self) -> int:
        return self._passed.cursor

    @property
    def moved(self) -> bool:
        """Whether there is anything to ``take``."""
        return self._passed.cursor != self._taken_cursor or self._passed.messages > 0

    def take(self) -> Passed:
        """What the cursor has passed, to be stored; the next ``take`` begins anew."""
        taken = self._passed
        self._taken_cursor = taken.cursor
        self._passed = Passed(taken.cursor)
        return taken

    def restore(self, taken: Passed) -> None:
        """It could not be stored: it is part of the next ``take``."""
        for name in ("messages", "events", "stored", "duplicate", "rejected", "dead"):
            setattr(self._passed, name, getattr(self._passed, name) + getattr(taken, name))
        self._taken_cursor = -1

    def _advance(self) -> None:
        passed = self._passed
        while self._order:
            entry = self._entries[self._order[0]]
            if entry.state is not State.DONE:
                break
            tally = entry.tally
            assert tally is not None
            passed.messages += entry.messages
            passed.events += entry.events
            passed.stored += tally.stored
            passed.duplicate += tally.duplicate
            passed.rejected += tally.rejected
            passed.dead += tally.dead
            del self._entries[self._order.popleft()]
        passed.cursor = self._order[0] if self._order else self.next

    def _walk(self, key: str, now: float, limit: int, found: list[int]) -> None:
        """Go along a troubled key's line as far as it may be delivered."""
        waiting = False
        for place, offset in enumerate(self._lines.get(key, ())):
            entry = self._entries[offset]
            if entry.state is State.OUT:
                if entry.tries:
                    return
                continue
            waiting = True
            if entry.due > now:
                self._next_due = min(self._next_due, entry.due)
                return
            if entry.tries and place:
                return
            found.append(offset)
            if entry.tries or len(found) >= limit:
                return
        if not waiting:
            self._troubled.discard(key)
