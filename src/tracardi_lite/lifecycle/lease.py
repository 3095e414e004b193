"""Which worker does what only one should do: a lease in the store's directory, taken by compare-and-set.

It saves work and noise; it is not what keeps records safe. Clocks of machines differ, so for a moment two may think
that they hold it, and every step that is done under it can be done twice.
"""

from __future__ import annotations

from tracardi_lite.clock import Clock
from tracardi_lite.ports.store import Claim, Entry, Store


class Lease:
    def __init__(self, store: Store, clock: Clock, name: str, holder: str, ttl_s: float) -> None:
        """``holder``: unique for ever. ``ttl_s``: how long it holds without being renewed."""
        self._store = store
        self._clock = clock
        self._key = f"l:{name}"
        self._holder = holder
        self._ttl_ms = int(ttl_s * 1000)

    async def take(self) -> bool:
        """Take it or keep it for another ``ttl_s``; False while somebody else has it."""
        now_ms = self._clock.now_ms()
        mine = Entry(target=self._holder, partition="", message=str(now_ms + self._ttl_ms))
        [entry] = await self._store.claim([Claim(self._key, mine)])
        if entry == mine:
            return True
        if entry.target != self._holder and now_ms < _expiry_ms(entry):
            return False
        return await self._store.repoint(self._key, entry, mine)

    async def give_back(self) -> None:
        """So that the next one need not wait for its end."""
        [entry] = await self._store.lookup([self._key])
        if entry is not None and entry.target == self._holder:
            await self._store.repoint(self._key, entry, None)


def _expiry_ms(entry: Entry) -> int:
    return int(entry.message) if entry.message.isdecimal() else 0
