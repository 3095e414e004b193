"""Making two profiles one, in the store: a small transaction of steps that can each be done again, by anybody.

1. *Freeze* the younger profile: its record names the survivor (compare-and-set). A profile that has no record yet gets
   an empty one.
2. *Fold* the frozen content into the survivor (compare-and-set), whose record notes the loser in the same write.
3. *Lead*: aliases and keys that meant the loser mean the survivor.
4. *Stub*: the loser's record keeps nothing but where it went.
5. *Alias*: the loser's own entry in the directory means the survivor, for ever.

Whoever meets a record in the middle of this finishes it: a worker that loads one, and the message that caused it when
it is redelivered. Why it comes out right, in whatever order workers take the steps:

* Nobody changes a frozen record but by step 4, and nobody applies messages to it. The way from a loser to its survivor,
  and on to that one's survivor, only grows, and is written in the records; so the living profile at its end is found,
  and it is the same for all.
* A fold happens once. Before it, each record on the way is asked for the note, which moves on with the content; then
  the loser is read again, and if it is a stub by now, its fold was done. Only then comes the compare-and-set on the
  record at the end, read before. The note is taken back only when the loser is a stub and an alias.
* No circles: the older profile survives, and how old a record is never changes (``marks.age``).

Bounds: ``TRIES_MAX`` rounds while others work on the same profiles, then ``Unavailable``; chains of ``HOPS_MAX``. A
merge of two stored profiles takes some twelve calls of the store; different lanes merge different customers at once.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import msgspec
import structlog
from msgspec import Struct

from tracardi_lite.errors import Unavailable
from tracardi_lite.pipeline.entries import Entries
from tracardi_lite.pipeline.identify import Repeat
from tracardi_lite.pipeline.merging import marks
from tracardi_lite.pipeline.merging.marks import Into, Why
from tracardi_lite.pipeline.merging.merge import fold, set_traits_aside
from tracardi_lite.pipeline.merging.strategies import Strategies
from tracardi_lite.pipeline.profile import new_profile
from tracardi_lite.pipeline.values import parse_time
from tracardi_lite.ports.store import Claim, Entry, Outcome, Record, RecordWrite, Store, Verdict

log = structlog.get_logger(__name__)

TRIES_MAX = 10
HOPS_MAX = 16

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(dict[str, Any]).decode

Put = Callable[[Sequence[RecordWrite]], Awaitable[list[Verdict]]]
"""Writes profiles and gives final verdicts: STORED, CONFLICT or NEVER."""


class Place(Struct):
    """A profile, where its record is or will be, and what it says."""

    id: str
    partition: str
    record: Record | None
    doc: dict[str, Any] | None

    @property
    def age(self) -> tuple[int, str]:
        return marks.age(self.doc, self.id)


class Merger:
    """``touched``: ids of the profiles whose records it has changed."""

    def __init__(self, store: Store, entries: Entries, repeat: Repeat, put: Put, strategies: Strategies) -> None:
        self._store = store
        self._entries = entries
        self._repeat = repeat
        self._put = put
        self._strategies = strategies
        self.touched: set[str] = set()
        self.merged = 0
        self.losers: list[str] = []
        """Whose records may be moved to their survivors'."""

    async def unite(self, first: str, second: str, why: Why) -> None:
        """Make one profile of the two that these ids mean now. Nothing is done if one of them means none."""
        for _ in range(TRIES_MAX):
            one, other = await self.living(first), await self.living(second)
            if one is None or other is None or one.id == other.id:
                return
            survivor, loser = (one, other) if one.age < other.age else (other, one)
            if await self._begin(loser, survivor, why):
                return
        raise Unavailable("store", "profiles change faster than they can be merged")

    async def living(self, id: str) -> Place | None:
        """The living profile that an id means; a merge that is met on the way is finished. None: it means none."""
        for _ in range(HOPS_MAX + TRIES_MAX):
            entry = await self._entry(id)
            if entry is None:
                return None
            if entry.target != id:
                id = entry.target
                continue
            place = await self._read(id, entry.partition)
            if place.doc is None or marks.into(place.doc) is None:
                return place
            await self.finish(place)
        raise Unavailable("store", "a profile moves on faster than it can be followed")

    async def finish(self, loser: Place) -> None:
        """Bring a merge that was begun to its end, from the record of its loser, frozen or a stub."""
        assert loser.doc is not None
        into = marks.into(loser.doc)
        assert into is not None
        if not into.stub:
            await self._fold(loser, into)
            await self._end(loser, into)
        await self._alias(loser.id, into.id)
        self.losers.append(loser.id)

    async def tidy(self, doc: dict[str, Any]) -> None:
        """Take back, in place, the notes of losers whose merging has come to its end; of the others, bring it there."""
        noted = marks.folded(doc)
        if not noted:
            return
        for id, partition in noted.items():
            place = await self._read(id, partition)
            if place.doc is not None and marks.into(place.doc) is not None:
                # Also of a stub: it may not be an alias yet, and nobody else may ever meet it.
                await self.finish(place)
        # Each is a stub and an alias now, or was deleted.
        del marks.own_aux(doc)["folded"]

    # the steps

    async def _begin(self, loser: Place, survivor: Place, why: Why) -> bool:
        """Freeze, and all the rest. False when somebody else has changed the loser meanwhile."""
        self.touched |= {loser.id, survivor.id}
        # Events may be stored under the id of a profile without a record, so it is folded like any other.
        doc = loser.doc or new_profile(loser.id, why.seen_ms)
        frozen = marks.freeze(doc, survivor.id, survivor.partition, why)
        if not await self._write(loser, frozen):
            return False
        self._tell(loser, survivor, why)
        assert loser.doc is not None
        into = marks.into(loser.doc)
        assert into is not None
        # Both were read before the freeze. Had anybody folded this loser since, the survivor would have changed.
        if not await self._fold_into(survivor, loser):
            await self._fold(loser, into)
        await self._end(loser, into)
        await self._alias(loser.id, into.id)
        self.losers.append(loser.id)
        return True

    async def _fold(self, loser: Place, into: Into) -> None:
        """Fold the frozen loser into the profile at the end of its way, unless that was done."""
        for _ in range(TRIES_MAX):
            end = await self._follow(loser, into)
            if end is None:
                return
            # Not before the end was read: see above.
            now = await self._read(loser.id, loser.partition)
            mark = marks.into(now.doc) if now.doc is not None else None
            if mark is None or mark.stub:
                return
            if await self._fold_into(end, loser):
                return
        raise Unavailable("store", "a survivor changes faster than it can be written")

    async def _fold_into(self, survivor: Place, loser: Place) -> bool:
        assert loser.doc is not None
        self.touched |= {survivor.id, loser.id}
        inserted_ms = parse_time(loser.doc["metadata"]["time"].get("insert")) or 0
        ours = survivor.doc or new_profile(survivor.id, inserted_ms)
        made = fold(ours, loser.doc, loser.partition, self._strategies)
        verdict = await self._try(survivor, made)
        if verdict.outcome is Outcome.NEVER:
            log.warning("merged_fields_set_aside", survivor=survivor.id, loser=loser.id, reason=verdict.reason)
            made = fold(ours, set_traits_aside(loser.doc), loser.partition, self._strategies)
            verdict = await self._try(survivor, made)
        if verdict.outcome is Outcome.NEVER:
            raise ValueError(f"profile {survivor.id} with {loser.id} merged into it can't be stored: {verdict.reason}")
        return verdict.outcome is Outcome.STORED

    async def _follow(self, loser: Place, into: Into) -> Place | None:
        """The living end of the loser's way; None when the loser's content is found in a record on it."""
        id, partition = into.id, into.partition
        for _ in range(HOPS_MAX):
            entry = await self._entry(id)
            if entry is not None and entry.target == id:
                partition = entry.partition
            place = await self._read(id, partition)
            if place.doc is None:
                if entry is None:
                    # The survivor was deleted meanwhile: what comes after the deletion begins it anew.
                    entry = await self._claim(id, Entry(target=id, partition=loser.partition))
                if entry.target == id:
                    return Place(id, entry.partition, None, None)
                id, partition = entry.target, ""
                continue
            if loser.id in marks.folded(place.doc):
                return None
            mark = marks.into(place.doc)
            if mark is None:
                return place
            id, partition = mark.id, mark.partition
        raise ValueError(f"a chain of merges is longer than {HOPS_MAX}")

    async def _end(self, loser: Place, into: Into) -> None:
        """Lead what meant the loser to the survivor, then leave a stub."""
        assert loser.doc is not None
        survivor = await self._target(into.id)
        keys = [key for id in loser.doc.get("ids", ()) if id != loser.id for key in (f"p:{id}", f"k:{id}")]
        found = await self._repeat(lambda: self._entries.lookup(keys)) if keys else []
        for key, entry in zip(keys, found, strict=True):
            if entry is not None and entry.target == loser.id:
                await self._repoint(key, entry, Entry(target=survivor, partition=""))
        left = marks.stub(
            loser.id, into.id, into.partition, Why(into.why, into.at_ms), loser.doc["metadata"].get("time")
        )
        # On a conflict it is a stub already, or was deleted.
        await self._write(loser, left)

    async def _alias(self, id: str, into: str) -> None:
        """The loser's entry means the survivor: its chain is as short as it can be now."""
        survivor = await self._target(into)
        for _ in range(TRIES_MAX):
            alias = Entry(target=survivor, partition="")
            entry = await self._entry(id)
            if entry is None:
                # Deleted in the middle of its merge.
                await self._claim(id, alias)
                return
            if entry.target != id or await self._repoint(f"p:{id}", entry, alias):
                return
        raise Unavailable("store", "a key changes all the time")

    # the store

    async def _target(self, id: str) -> str:
        """Where aliases lead from an id."""
        for _ in range(HOPS_MAX):
            entry = await self._entry(id)
            if entry is None or entry.target == id:
                return id
            id = entry.target
        raise ValueError("aliases form a circle")

    async def _entry(self, id: str) -> Entry | None:
        [entry] = await self._repeat(lambda: self._entries.lookup([f"p:{id}"]))
        return entry

    async def _claim(self, id: str, entry: Entry) -> Entry:
        [held] = await self._repeat(lambda: self._entries.claim([Claim(f"p:{id}", entry)]))
        return held

    async def _repoint(self, key: str, expected: Entry, entry: Entry) -> bool:
        return await self._repeat(lambda: self._entries.repoint(key, expected, entry))

    async def _read(self, id: str, partition: str) -> Place:
        record = None
        if partition:
            [record] = await self._repeat(lambda: self._store.get("profile", [(id, partition)]))
        return Place(id, partition, record, None if record is None else _decode(record.doc))

    async def _try(self, place: Place, doc: dict[str, Any]) -> Verdict:
        write = RecordWrite(
            kind="profile",
            id=place.id,
            partition=place.partition,
            doc=_encode(doc),
            version=None if place.record is None else place.record.version,
            update_ms=parse_time(doc["metadata"]["time"]["update"]) or 0,
        )
        [verdict] = await self._put([write])
        if verdict.outcome is Outcome.STORED:
            place.record, place.doc = Record(place.id, place.partition, write.doc, verdict.version), doc
        return verdict

    async def _write(self, place: Place, doc: dict[str, Any]) -> bool:
        verdict = await self._try(place, doc)
        if verdict.outcome is Outcome.NEVER:
            raise ValueError(f"profile {place.id} can't be written: {verdict.reason}")
        return verdict.outcome is Outcome.STORED

    def _tell(self, loser: Place, survivor: Place, why: Why) -> None:
        self.merged += 1
        log.debug("profiles_merged", survivor=survivor.id, loser=loser.id, why=why.keys)
