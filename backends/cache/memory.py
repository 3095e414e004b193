"""The cache of a single process: least recently used out, and nothing older than its TTL.

Bounded by entries (``settings.directory_cache_size``). An expired entry is dropped when it is met or pushed out;
there is no sweeping, since the bound holds anyway.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Self

from tracardi_lite.clock import Clock, SystemClock
from tracardi_lite.settings import Settings


def open_cache(url: str, settings: Settings, clock: Clock | None = None) -> MemoryCache:
    """``memory:``; nothing in the URL is looked at."""
    return MemoryCache(settings.directory_cache_size, clock or SystemClock())


class MemoryCache:
    """Not shared between event loops; every call finishes without waiting."""

    def __init__(self, entries_max: int, clock: Clock) -> None:
        assert entries_max > 0
        self._entries_max = entries_max
        self._clock = clock
        self._entries: OrderedDict[str, tuple[float, bytes]] = OrderedDict()

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

    async def set(self, values: Mapping[str, bytes], ttl_s: float) -> None:
        if ttl_s <= 0:
            await self.delete(list(values))
            return
        expires = self._clock.monotonic() + ttl_s
        for key, value in values.items():
            self._entries[key] = (expires, value)
            self._entries.move_to_end(key)
        while len(self._entries) > self._entries_max:
            self._entries.popitem(last=False)

    async def delete(self, keys: Sequence[str]) -> None:
        for key in keys:
            self._entries.pop(key, None)

    async def ping(self) -> None:
        """Always there."""
