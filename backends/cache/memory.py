"""The cache of a single process: least recently used out, and nothing older than its TTL.

Bounded by entries (``settings.directory_cache_size``). An expired entry is dropped when it is met or pushed out;
there is no sweeping, since the bound holds anyway. A key that moves leaves a mark in its place, an entry like any
other: pushed out early, it holds the key no longer.

Listeners get what they have not heard yet from a list that all share, so that one that never asks costs nothing.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from types import TracebackType
from typing import Self

from tracardi_lite.clock import Clock, SystemClock
from tracardi_lite.ports.cache import HOLD_S, Moves
from tracardi_lite.settings import Settings

HEARD_MAX = 10_000
"""Announcements that wait for a listener; one that is further behind has missed some."""


def open_cache(url: str, settings: Settings, clock: Clock | None = None) -> MemoryCache:
    """``memory:``; nothing in the URL is looked at."""
    return MemoryCache(settings.directory_cache_size, clock or SystemClock())


class MemoryCache:
    """Not shared between event loops; every call finishes without waiting."""

    def __init__(self, entries_max: int, clock: Clock, *, shared: bool = False) -> None:
        """``shared``: what it is to say of itself, where several parts of a test stand for as many processes."""
        assert entries_max > 0
        self.shared = shared
        self._entries_max = entries_max
        self._clock = clock
        self._entries: OrderedDict[str, tuple[float, bytes | None]] = OrderedDict()
        """When each ends, and its value; None: a mark, the key has moved."""
        self._words = Words()

    def __len__(self) -> int:
        return len(self._entries)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._entries.clear()

    async def get(self, keys: Sequence[str]) -> list[bytes | None]:
        now = self._clock.monotonic()
        return [self._get(key, now) for key in keys]

    def _get(self, key: str, now: float) -> bytes | None:
        entry = self._entries.get(key)
        if entry is None:
            return None
        expires, value = entry
        if expires <= now:
            del self._entries[key]
            return None
        self._entries.move_to_end(key)
        return value

    async def add(self, values: Mapping[str, bytes], ttl_s: float) -> None:
        if ttl_s <= 0:
            return
        now = self._clock.monotonic()
        for key, value in values.items():
            held = self._entries.get(key)
            if held is None or held[0] <= now:
                self._put(key, value, now + ttl_s)

    async def announce(self, keys: Sequence[str]) -> None:
        self._mark(keys)
        self._words.say(keys)

    def moves(self) -> Moves:
        return _Ear(self._words)

    async def ping(self) -> None:
        """Always there."""

    def _mark(self, keys: Iterable[str]) -> None:
        until = self._clock.monotonic() + HOLD_S
        for key in keys:
            self._put(key, None, until)

    def _put(self, key: str, value: bytes | None, until: float) -> None:
        self._entries[key] = (until, value)
        self._entries.move_to_end(key)
        if len(self._entries) > self._entries_max:
            self._entries.popitem(last=False)


class Words:
    """What was said last, and how much ever."""

    def __init__(self) -> None:
        self.count = 0
        self._last: deque[str] = deque(maxlen=HEARD_MAX)

    def say(self, keys: Sequence[str]) -> None:
        self._last.extend(keys)
        self.count += len(keys)

    def since(self, count: int) -> list[str] | None:
        """What was said after the first ``count``; None: some of it is forgotten."""
        behind = self.count - count
        if behind > len(self._last):
            return None
        return list(islice(self._last, len(self._last) - behind, None))


class _Ear:
    def __init__(self, words: Words) -> None:
        self._words = words
        self._heard = words.count

    def heard(self) -> Sequence[str] | None:
        if self._words.count == self._heard:
            return ()
        news = self._words.since(self._heard)
        self._heard = self._words.count
        return news
