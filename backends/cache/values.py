"""What a process keeps by itself: least recently used out, and nothing older than its time to live.

Bounded by entries. An expired entry is dropped when it is met or pushed out; there is no sweeping, since the bound
holds anyway. A key that moves leaves a mark in its place, an entry like any other: pushed out early, it holds the key
no longer.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence

from tracardi_lite.clock import Clock
from tracardi_lite.ports.cache import HOLD_S


class Values:
    """Calls as in ``Cache``, without waiting."""

    def __init__(self, entries_max: int, clock: Clock) -> None:
        assert entries_max > 0
        self._entries_max = entries_max
        self._clock = clock
        self._entries: OrderedDict[str, tuple[float, bytes | None]] = OrderedDict()
        """When each ends, and its value; None: a mark, the key has moved."""

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, keys: Sequence[str]) -> list[bytes | None]:
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

    def add(self, values: Mapping[str, bytes], ttl_s: float) -> None:
        if ttl_s <= 0:
            return
        now = self._clock.monotonic()
        for key, value in values.items():
            held = self._entries.get(key)
            if held is None or held[0] <= now:
                self._put(key, value, now + ttl_s)

    def mark(self, keys: Iterable[str]) -> None:
        """These keys move."""
        until = self._clock.monotonic() + HOLD_S
        for key in keys:
            self._put(key, None, until)

    def clear(self) -> None:
        self._entries.clear()

    def _put(self, key: str, value: bytes | None, until: float) -> None:
        self._entries[key] = (until, value)
        self._entries.move_to_end(key)
        if len(self._entries) > self._entries_max:
            self._entries.popitem(last=False)
