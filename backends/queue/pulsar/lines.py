"""Which message may be delivered next, key by key. Pure; the caller passes the time in.

A consumer under Key_Shared gets whole keys, in order, but out of many positions: when another consumer goes, older
messages of its keys come after younger ones of ours. So order is kept per key alone.

Invariants: of a key, nothing is delivered while an earlier message waits; a message that was tried before is out alone
among its key, and later ones follow when it is done.
"""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Iterator
from operator import attrgetter
from typing import Any

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
        self.tally: Tally | None = None
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

    def take(self, now: float) -> Iterator[Item]:
        """The messages that may be delivered, in order within a key. What is not wanted is given back by ``untake``
        before anything else is asked."""
        if self._troubled and (self._dirty or now >= self._next_due):
            yield from self._of_troubled(now)
        while self._ready:
            item = self._ready.popleft()
            if item.state is State.READY:
                self._deliver(item)
                yield item

    def untake(self, item: Item) -> None:
        """It did not fit after all: it stays the next of its key."""
        self._wait(item, 0.0)

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
        assert item.state is State.OUT
        item.tries += tried
        self._wait(item, due)
        for later in self._lines[item.key]:
            if later.state is State.READY:
                later.state = State.WAITS

    def clear(self) -> None:
        self.__init__()  # type: ignore[misc]

    def _wait(self, item: Item, due: float) -> None:
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

    def _deliver(self, item: Item) -> None:
        item.state = State.OUT
        item.due = 0.0
        self.waiting -= 1
        self.waiting_bytes -= item.size

    def _of_troubled(self, now: float) -> Iterator[Item]:
        self._next_due = float("inf")
        self._dirty = False
        keys = sorted(self._troubled, key=lambda key: self._lines[key][0].position)
        for place, key in enumerate(keys):
            for item in self._walk(key, now):
                self._dirty = True
                yield item
                if item.state is not State.OUT:  # it was given back: the rest of the line stays behind it
                    break
            else:
                continue
            if place < len(keys):
                self._dirty = True

    def _walk(self, key: str, now: float) -> Iterator[Item]:
        """Along a troubled key's line as far as it may be delivered."""
        waiting = False
        for place, item in enumerate(list(self._lines[key])):
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
            self._deliver(item)
            yield item
            if item.tries:
                return
        if not waiting:
            self._troubled.discard(key)
