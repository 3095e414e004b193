"""The cache port: what processes share for a while, and word of keys that move. Losing it slows, and never breaks.

**Values.** Small bytes by key, for a time to live. They are added, not set: what is there stays until it is over or
moves, since all who ask the authority at the same time are told the same.

**Moves.** A key of the directory may come to mean something else (``ports.store``: a merge makes an id an alias).
Whoever changes it announces that twice, before the change and after it, and whoever remembers answers listens:

* From the announcement on, a value of the key is a miss for everybody, and for ``HOLD_S`` none is taken: what somebody
  asked the store before the change must not arrive after it and stay.
* A listener trusts nothing that it knows of the key for ``HOLD_S``, but asks. So no answer given after the change is
  visible in the store is from before it, whichever of the two announcements arrives when.

Calls do not raise for a cache that is away: ``get`` answers misses, ``add`` does nothing, an announcement may be lost.
Listeners that may have missed one are told so, as soon as they can be; until then, and where processes share no cache,
the time that a listener remembers anything is the bound.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Protocol, Self

HOLD_S = 6.0
"""Longer than a change takes to become visible after its first announcement, and than any look-up is on its way."""


class Moves(Protocol):
    """What one listener hears."""

    def heard(self) -> Sequence[str] | None:
        """The keys announced since the last call, mostly none; None: some may have been missed, trust nothing.

        Costs a memory read when there is nothing to hear: made to be asked with every request.
        """
        ...


class Cache(Protocol):
    """An open cache. Entered as an async context manager; used from one event loop."""

    shared: bool
    """Whether other processes get what is added here. If not, only announcements are of use to a process that
    remembers by itself."""

    hears_all: bool
    """Whether word of a move reaches every listener of every process, with no server or network between that may lose
    it. If so, a listener may trust for longer what the authority has said."""

    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    async def get(self, keys: Sequence[str]) -> list[bytes | None]: ...

    async def add(self, values: Mapping[str, bytes], ttl_s: float) -> None:
        """Keep each value for ``ttl_s``, unless the key has one, or has just moved. 0: keep nothing."""
        ...

    async def announce(self, keys: Sequence[str]) -> None:
        """These keys are about to mean something else, or do since a moment ago. To be awaited before the change."""
        ...

    def moves(self) -> Moves:
        """Listen from now on, until the cache is closed."""
        ...

    async def ping(self) -> None:
        """Raises ``Unavailable`` when it is away; only health asks."""
        ...
