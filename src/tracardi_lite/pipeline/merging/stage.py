"""What a batch of the pipeline does about merging, between loading its profiles and writing them.

A merge works on what is stored, and never on what a batch has in memory: when one was done, the batch begins afresh and
finds the survivor. Events that it has stored by then keep their verdicts.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec
from msgspec import Struct

from tracardi_lite.pipeline.apply import Slot
from tracardi_lite.pipeline.entries import Entries
from tracardi_lite.pipeline.identify import Repeat
from tracardi_lite.pipeline.load import RecordCache
from tracardi_lite.pipeline.merging import marks
from tracardi_lite.pipeline.merging.identification import Merging
from tracardi_lite.pipeline.merging.marks import Why
from tracardi_lite.pipeline.merging.merger import Merger, Place, Put
from tracardi_lite.pipeline.work import Work
from tracardi_lite.ports.store import Claim, Entry, Query, Store
from tracardi_lite.query import Compare

CANDIDATES_MAX = 100
"""Profiles with an unverified key that one verification brings together; the rest come with the next."""


class _Named(Struct):
    id: str


_named = msgspec.json.Decoder(_Named).decode


class _Rival(Struct):
    """Somebody else has the key already."""

    slot: Slot
    key: str
    held: Entry
    why: str


class Stage:
    """The merging of one batch's round."""

    def __init__(self, store: Store, entries: Entries, repeat: Repeat, put: Put, merging: Merging, now_ms: int) -> None:
        self._store = store
        self._entries = entries
        self._repeat = repeat
        self._merging = merging
        self._now_ms = now_ms
        self._merger = Merger(store, entries, repeat, put, merging.strategies)

    @property
    def merged(self) -> int:
        return self._merger.merged

    @property
    def losers(self) -> list[str]:
        return self._merger.losers

    def forget(self, cache: RecordCache) -> None:
        """Drop what has changed from what a lane remembers."""
        for id in self._merger.touched:
            cache.drop("profile", id)

    async def see_to(self, slots: Iterable[Slot], works: Iterable[Work]) -> bool:
        """Finish the merges that the loaded records tell of, and begin those that the door has seen: whether the batch
        has to begin afresh."""
        anew = False
        for slot in slots:
            if slot.doc is None or not marks.is_marked(slot.doc):
                continue
            if marks.into(slot.doc) is not None:
                self._merger.touched.add(slot.id)
                # Read again: the lane's copy may be from before its end.
                await self._merger.living(slot.id)
                anew = True
            else:
                await self._merger.tidy(slot.doc)
        if self._merging.identification is not None:
            for work in works:
                passed = work.incoming.head.passed
                if passed is not None and work.profile_id is not None:
                    anew |= await self._pass(passed, work.profile_id, work.incoming.head.received_ms)
        return anew

    async def _pass(self, passed: str, id: str, seen_ms: int) -> bool:
        """A visitor of another domain, whose profile there was handed over."""
        other, own = await self._merger.living(passed), await self._merger.living(id)
        if other is None or own is None or other.id == own.id:
            return False
        await self._merger.unite(own.id, other.id, Why(("pass",), self._now_ms, seen_ms))
        return True

    async def claim(self, slots: Sequence[Slot]) -> bool:
        """Claim the keys that the slots' profiles have got; where another has one, make the two profiles one. Whether
        the batch has to begin afresh."""
        wanted = [(slot, key, found) for slot in slots for key, found in slot.keys.items()]
        if not wanted:
            return False
        claims = [Claim(f"k:{key}", Entry(target=slot.id, partition="")) for slot, key, _ in wanted]
        held = await self._repeat(lambda: self._entries.claim(claims))
        anew = False
        for (slot, key, found), entry in zip(wanted, held, strict=True):
            if entry.target != slot.id:
                anew |= await self._meet(_Rival(slot, f"k:{key}", entry, found.why))
            if found.anonymous:
                anew |= await self._gather(slot, key, found.why)
        return anew

    async def _meet(self, rival: _Rival) -> bool:
        owner = await self._merger.living(rival.held.target)
        if owner is None:
            # Whose key it was is deleted. Should somebody else be quicker to take it, they are met in the next round.
            mine = Entry(target=rival.slot.id, partition="")
            return not await self._repeat(lambda: self._entries.repoint(rival.key, rival.held, mine))
        if owner.id == rival.slot.id:
            return False
        await self._unite(rival.slot, owner, rival.why)
        return True

    async def _gather(self, slot: Slot, key: str, why: str) -> bool:
        """Bring together whoever has the key without having been identified by it."""
        page = await self._repeat(
            lambda: self._store.search("profile", Query(where=Compare("ids", "=", key), limit=CANDIDATES_MAX))
        )
        anew = False
        for doc in page.result:
            found = await self._merger.living(_named(doc).id)
            if found is not None and found.id != slot.id:
                mine = await self._merger.living(slot.id)
                if mine is not None and mine.id != found.id:
                    await self._unite(slot, found, why)
                    anew = True
        return anew

    async def _unite(self, slot: Slot, other: Place, why: str) -> None:
        seen_ms = min(work.incoming.head.received_ms for work in slot.works)
        await self._merger.unite(slot.id, other.id, Why((why,), self._now_ms, seen_ms))
