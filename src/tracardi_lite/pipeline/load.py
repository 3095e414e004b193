"""The records that a batch touches: read once, kept with their versions for the next batch.

A lane keeps what it wrote lately, as bytes: a stale copy is harmless, since the write is compare-and-set, and a copy
that nobody can change needs no care when a batch is given up half-way. Bounds: ``ENTRIES_MAX`` records and
``BYTES_MAX`` bytes per lane, least recently used out first.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable

from tracardi_lite.pipeline.identify import Repeat
from tracardi_lite.pipeline.work import Work
from tracardi_lite.ports.store import Kind, Record, Store

ENTRIES_MAX = 2000
BYTES_MAX = 4 << 20


class RecordCache:
    """Least recently used records of both kinds."""

    def __init__(self, entries_max: int = ENTRIES_MAX, bytes_max: int = BYTES_MAX) -> None:
        self._entries_max = entries_max
        self._bytes_max = bytes_max
        self._bytes = 0
        self._records: OrderedDict[tuple[Kind, str], Record] = OrderedDict()

    def __len__(self) -> int:
        return len(self._records)

    def get(self, kind: Kind, id: str, partition: str) -> Record | None:
        """The record as last seen, if it was in that partition."""
        record = self._records.get((kind, id))
        if record is None or record.partition != partition:
            return None
        self._records.move_to_end((kind, id))
        return record

    def keep(self, kind: Kind, record: Record) -> None:
        self.drop(kind, record.id)
        self._records[kind, record.id] = record
        self._bytes += len(record.doc)
        while self._bytes > self._bytes_max or len(self._records) > self._entries_max:
            _, old = self._records.popitem(last=False)
            self._bytes -= len(old.doc)

    def drop(self, kind: Kind, id: str) -> None:
        old = self._records.pop((kind, id), None)
        if old is not None:
            self._bytes -= len(old.doc)


class Records:
    """What one batch works on: (id, partition) → the record, or None for one that is to be made."""

    def __init__(self, store: Store, repeat: Repeat, cache: RecordCache) -> None:
        self._store = store
        self._repeat = repeat
        self._cache = cache
        self.profiles: dict[tuple[str, str], Record | None] = {}
        self.sessions: dict[tuple[str, str], Record | None] = {}

    async def load(self, works: Iterable[Work]) -> None:
        """Read whatever the works touch, one call per kind at most."""
        profiles: dict[tuple[str, str], None] = {}
        sessions: dict[tuple[str, str], None] = {}
        for work in works:
            claimer = work.incoming.head.id
            if work.profile_entry is not None:
                profiles[profile_key(work)] = None
                if work.profile_entry.message == claimer:
                    # New, or new again: what is remembered is of a record that was deleted.
                    self._cache.drop("profile", profile_key(work)[0])
            if work.session_entry is not None:
                sessions[session_key(work)] = None
                if work.session_entry.message == claimer:
                    self._cache.drop("session", session_key(work)[0])
        await self._load("profile", self.profiles, profiles)
        await self._load("session", self.sessions, sessions)

    async def reload(self, kind: Kind, keys: Iterable[tuple[str, str]]) -> None:
        """Read again what turned out to be stale."""
        known = self.profiles if kind == "profile" else self.sessions
        keys = list(keys)
        for key in keys:
            known.pop(key, None)
            self._cache.drop(kind, key[0])
        await self._load(kind, known, keys)

    def stored(self, kind: Kind, record: Record) -> None:
        """A write went through: that is the record now."""
        known = self.profiles if kind == "profile" else self.sessions
        known[record.id, record.partition] = record
        self._cache.keep(kind, record)

    async def _load(
        self, kind: Kind, known: dict[tuple[str, str], Record | None], wanted: Iterable[tuple[str, str]]
    ) -> None:
        missing = []
        for key in wanted:
            if key in known:
                continue
            record = self._cache.get(kind, *key)
            if record is None:
                missing.append(key)
            else:
                known[key] = record
        if missing:
            found = await self._repeat(lambda: self._store.get(kind, missing))
            known.update(zip(missing, found, strict=True))


def profile_key(work: Work) -> tuple[str, str]:
    assert work.profile_id is not None
    assert work.profile_entry is not None
    return work.profile_id, work.profile_entry.partition


def session_key(work: Work) -> tuple[str, str]:
    assert work.session_id is not None
    assert work.session_entry is not None
    return work.session_id, work.session_entry.partition
