"""The cache of a single process, see ``values`` (``settings.directory_cache_size``), and word of moves within it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Self

from tracardi_lite.backends.cache.values import Values
from tracardi_lite.backends.cache.words import Words
from tracardi_lite.clock import Clock, SystemClock
from tracardi_lite.ports.cache import Moves
from tracardi_lite.settings import Settings


def open_cache(url: str, settings: Settings, clock: Clock | None = None) -> MemoryCache:
    """``memory:``; nothing in the URL is looked at."""
    return MemoryCache(settings.directory_cache_size, clock or SystemClock())


class MemoryCache:
    """Not shared between event loops; every call finishes without waiting."""

    hears_all = False

    def __init__(self, entries_max: int, clock: Clock, *, shared: bool = False) -> None:
        """``shared``: what it is to say of itself, where several parts of a test stand for as many processes."""
        self.shared = shared
        self._values = Values(entries_max, clock)
        self._words = Words()

    def __len__(self) -> int:
        return len(self._values)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._values.clear()

    async def get(self, keys: Sequence[str]) -> list[bytes | None]:
        return self._values.get(keys)

    async def add(self, values: Mapping[str, bytes], ttl_s: float) -> None:
        self._values.add(values, ttl_s)

    async def announce(self, keys: Sequence[str]) -> None:
        self._values.mark(keys)
        self._words.say(keys)

    def moves(self) -> Moves:
        return self._words.ear()

    async def ping(self) -> None:
        """Always there."""
