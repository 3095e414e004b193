"""Changing the directory so that whoever remembers what it said learns of it (``ports.cache``, moves).

Doors remember what sessions and profile ids mean. So a change of such an entry is announced before, when nobody may see
it yet, and after; again with each try of a store that is away, since it may have been done though nobody was told.
Merge keys are only asked for by workers, which remember none.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from tracardi_lite.ports.cache import Cache
from tracardi_lite.ports.store import Claim, Entry, Store


class Entries(Protocol):
    """The directory: the part of a store that is read and changed here."""

    async def lookup(self, keys: Sequence[str]) -> list[Entry | None]: ...

    async def claim(self, claims: Sequence[Claim]) -> list[Entry]: ...

    async def repoint(self, key: str, expected: Entry, entry: Entry | None) -> bool: ...


class Announced:
    """The directory, with every change of it announced."""

    def __init__(self, store: Store, cache: Cache) -> None:
        self._store = store
        self._cache = cache

    async def lookup(self, keys: Sequence[str]) -> list[Entry | None]:
        return await self._store.lookup(keys)

    async def claim(self, claims: Sequence[Claim]) -> list[Entry]:
        """A door may have answered with an id that becomes an alias here; of what is new otherwise it knows as much."""
        aliases = [claim.key for claim in claims if _is_alias(claim)]
        if not aliases:
            return await self._store.claim(claims)
        await self._cache.announce(aliases)
        try:
            return await self._store.claim(claims)
        finally:
            await self._cache.announce(aliases)

    async def repoint(self, key: str, expected: Entry, entry: Entry | None) -> bool:
        if key.startswith("k:"):
            return await self._store.repoint(key, expected, entry)
        await self._cache.announce([key])
        try:
            return await self._store.repoint(key, expected, entry)
        finally:
            await self._cache.announce([key])


def _is_alias(claim: Claim) -> bool:
    return claim.key.startswith("p:") and claim.entry.target != claim.key[2:]
