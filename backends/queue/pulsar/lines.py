"""Which message may be delivered next, key by key. Pure; the caller passes the time in.

A consumer under Key_Shared gets whole keys, in order, but out of many positions: when another consumer goes, older
messages of its keys come after younger ones of ours. So order is kept per key alone.

Invariants: of a key, nothing is delivered while an earlier message waits; a message that was tried before is out alone
among its key, and later ones follow when it is done.
"""

from __future__ import annotations

import enum
from collections import deque
from operator import attrgetter
from typing import Any

from tracardi_lite.backends.queue.window import Budget
from tracardi_lite.ports.queue import Tally


class State(enum.Enum):
    READY = "ready"
    OUT = "out"
    WAITS = "waits"
    DONE = "done"


class Item:
    """A message between its arrival and its settlement."""

    __slots__ = ("due", "entry", "key", "message", "position", "size", "state", "tally", "tries")

    def __init__(self, key: str, position: tuple[int, int, int], size: int, tries: int = 0) -> None:
        self.key = key
        self.position = position
        self.size = size
        self.tries = tries
        self.state = State.READY
        self.due = 0.0
        self.tally = Tally()
        self.message: Any = None
        self.entry: Any = None


_position = attrgetter("position")


class Lines:
    def __init__(self) -> None:
        self._lines: dict[str, list[Item]] = {}
        self._ready: deque[Item] = deque()
        self._troubled: set[str] = set()
        self._dirty = False
        self._next_due = float("inf")
        self.waiting = 0
        """Messages that are here and not out."""
        self.waiting_bytes = 0

    def __len__(self) -> int:
        return sum(map(len, self._lines.values()))

    @property
    def ready(self) -> int:
        """Messages in the line of those that nothing holds back, about."""
        return len(self._ready)

    @property
    def has_trouble(self) -> bool:
        """Whether any message waits for a time, or for another."""
        return bool(self._troubled)

    def offer(self, item: Item) -> None:
        """Take in a message that arrived."""
        line = self._lines.setdefault(item.key, [])
        late = bool(line) and line[-1].position > item.position
        line.append(item)
        if late:
            line.sort(key=_position)
        self.waiting += 1
        self.waiting_bytes += item.size
        if item.tries or late or item.key in self._troubled:
            item.state = State.WAITS
            self._trouble(item.key)
        else:
            self._ready.append(item)

    def take(self, now: float, budget: Budget) -> list[Item]:
        """The messages to deliver now, as many as the budget takes, in order within a key."""
        found: list[Item] = []
        if self._troubled and (self._dirty or now >= self._next_due):
            self._take_troubled(now, budget, found)
        while self._ready and not budget.spent:
            item = self._ready[0]
            if item.state is State.READY:
                if not budget.takes(item.size):
                    break
                self._deliver(item, found)
            self._ready.popleft()
        return found

    def done(self, item: Item) -> None:
        assert item.state is State.OUT
        item.state = State.DONE
        line = self._lines[item.key]
        line.remove(item)
        if not line:
            del self._lines[item.key]
            self._troubled.discard(item.key)
        self._dirty = True

    def put_back(self, item: Item, due: float, *, tried: bool) -> None:
        """Let a delivered message wait until ``due``, and the later ones of its key behind it."""
        assert item.state is State.OUT
        item.tries += tried
        item.state = State.WAITS
        item.due = due
        self.waiting += 1
        self.waiting_bytes += item.size
        for later in self._lines[item.key]:
            if later.state is State.READY:
                later.state = State.WAITS
        self._trouble(item.key)

    def _trouble(self, key: str) -> None:
        self._troubled.add(key)
        self._dirty = True

    def _deliver(self, item: Item, found: list[Item]) -> None:
        item.state = State.OUT
        item.due = 0.0
        self.waiting -= 1
        self.waiting_bytes -= item.size
        found.append(item)

    def _take_troubled(self, now: float, budget: Budget, found: list[Item]) -> None:
        self._next_due = float("inf")
        self._dirty = False
        for key in sorted(self._troubled, key=lambda key: self._lines[key][0].position):
            if budget.spent:
                self._dirty = True
                return
            self._walk(key, now, budget, found)

    def _walk(self, key: str, now: float, budget: Budget, found: list[Item]) -> None:
        """Along a troubled key's line as far as it may be delivered."""
        waiting = False
        for place, item in enumerate(self._lines[key]):
            if item.state is State.OUT:
                if item.tries:
                    return
                continue
            waiting = True
            if item.due > now:
                self._next_due = min(self._next_due, item.due)
                return
            if item.tries and place:
                return
            if not budget.takes(item.size):
                self._dirty = True
                return
            self._deliver(item, found)
            if item.tries or budget.spent:
                self._dirty = True
                return
        if not waiting:
            self._troubled.discard(key)
