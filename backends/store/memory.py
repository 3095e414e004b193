"""A store in one process's memory: for tests, trials and small demonstrations. What is stored is lost at the end.

All operations are synchronous underneath, so that each call is atomic among the tasks of the loop; that is what makes
``claim`` and compare-and-set correct here. Not for use by two threads. Bound: ``bytes_max`` of documents (URL
parameter, default 1 GiB), then ``Full``; searches decode every record of a kind.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from types import TracebackType
from typing import Self
from urllib.parse import parse_qs, urlsplit

from msgspec import Struct

from tracardi_lite import partitioning
from tracardi_lite.errors import Full, Misconfigured
from tracardi_lite.ports.store import (
    CONFLICT,
    EXISTS,
    KINDS,
    SAME,
    STORED,
    Bar,
    Claim,
    Entry,
    EventWrite,
    Kind,
    Outcome,
    Page,
    PartitionInfo,
    Query,
    Record,
    RecordWrite,
    Verdict,
)
from tracardi_lite.protocol.documents import decode_document
from tracardi_lite.query import Where, matches
from tracardi_lite.query.evaluate import values
from tracardi_lite.query.histogram import UNGROUPED, bucket_name, fill, steps, top_names
from tracardi_lite.settings import Settings

_BYTES_MAX = 1 << 30
_RETRY_AFTER_S = 5.0


def open_store(url: str, settings: Settings) -> MemoryStore:
    """``memory:`` or ``memory:?bytes_max=1000000``."""
    text = parse_qs(urlsplit(url).query, keep_blank_values=True).get("bytes_max", [str(_BYTES_MAX)])[-1]
    if not text.isascii() or not text.isdigit() or int(text) == 0:
        raise Misconfigured("store_url", f"bytes_max is {text!r}.", "Give a whole number of bytes.")
    return MemoryStore(int(text))


class _Row(Struct):
    id: str
    partition: str
    doc: bytes
    at_ms: int
    """``insert`` of events, ``update`` of the others."""
    written: int
    """Counts writes; also the version, so that a record made anew after a deletion never has an old version."""
    message: str = ""


class MemoryStore:
    def __init__(self, bytes_max: int = _BYTES_MAX) -> None:
        self._rows: dict[Kind, dict[str, dict[str, _Row]]] = {kind: {} for kind in KINDS}
        self._entries: dict[str, Entry] = {}
        self._bytes = 0
        self._bytes_max = bytes_max
        self._writes = 0
        self.rewriting = self
        """The optional part of the port (``ports.store.Rewriting``)."""

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    # writing

    async def create_events(self, events: Sequence[EventWrite]) -> list[Verdict]:
        self._make_room(len(event.doc) for event in events)
        return [self._create(event) for event in events]

    def _create(self, event: EventWrite) -> Verdict:
        if not partitioning.is_name(event.partition):
            return Verdict(Outcome.NEVER, f"not a partition's name: {event.partition!r}")
        known = self._rows["event"].get(event.partition, {}).get(event.id)
        if known is None and event.foreign_id:
            before = partitioning.previous(event.partition)
            known = self._rows["event"].get(before, {}).get(event.id)
        if known is not None:
            return SAME if known.message == event.message else EXISTS
        self._keep("event", event.id, event.partition, event.doc, event.insert_ms, event.message)
        return STORED

    async def put(self, writes: Sequence[RecordWrite]) -> list[Verdict]:
        self._make_room(len(write.doc) for write in writes)
        return [self._put(write) for write in writes]

    def _put(self, write: RecordWrite) -> Verdict:
        if not partitioning.is_name(write.partition):
            return Verdict(Outcome.NEVER, f"not a partition's name: {write.partition!r}")
        known = self._rows[write.kind].get(write.partition, {}).get(write.id)
        if write.version != (None if known is None else known.written):
            return CONFLICT
        return Verdict(
            Outcome.STORED, version=self._keep(write.kind, write.id, write.partition, write.doc, write.update_ms)
        )

    def _keep(self, kind: Kind, id: str, partition: str, doc: bytes, at_ms: int, message: str = "") -> int:
        rows = self._rows[kind].setdefault(partition, {})
        old = rows.get(id)
        self._bytes += len(doc) - (len(old.doc) if old else 0)
        self._writes += 1
        rows[id] = _Row(id, partition, doc, at_ms, self._writes, message)
        return self._writes

    def _make_room(self, sizes: Iterable[int]) -> None:
        if self._bytes + sum(sizes) > self._bytes_max:
            raise Full(
                "store", f"the memory store holds {self._bytes} of at most {self._bytes_max} bytes", _RETRY_AFTER_S
            )

    async def rewrite_events(self, events: Sequence[EventWrite]) -> list[Verdict]:
        self._make_room(len(event.doc) for event in events)
        return [self._rewrite(event) for event in events]

    def _rewrite(self, event: EventWrite) -> Verdict:
        known = self._rows["event"].get(event.partition, {}).get(event.id)
        if known is None or known.message != event.message:
            return CONFLICT
        self._keep("event", event.id, event.partition, event.doc, event.insert_ms, event.message)
        return STORED

    # the directory

    async def lookup(self, keys: Sequence[str]) -> list[Entry | None]:
        return [self._entries.get(key) for key in keys]

    async def claim(self, claims: Sequence[Claim]) -> list[Entry]:
        return [self._entries.setdefault(claim.key, claim.entry) for claim in claims]

    async def repoint(self, key: str, expected: Entry, entry: Entry | None) -> bool:
        if self._entries.get(key) != expected:
            return False
        if entry is None:
            del self._entries[key]
        else:
            self._entries[key] = entry
        return True

    # reading

    async def get(self, kind: Kind, keys: Sequence[tuple[str, str]]) -> list[Record | None]:
        return [_record(self._rows[kind].get(partition, {}).get(id)) for id, partition in keys]

    async def find(self, kind: Kind, id: str) -> Record | None:
        return _record(self._find(kind, id))

    def _find(self, kind: Kind, id: str) -> _Row | None:
        for name in partitioning.newest_first(self._rows[kind]):
            if row := self._rows[kind][name].get(id):
                return row
        return None

    async def delete(self, kind: Kind, id: str) -> bool:
        row = self._find(kind, id)
        if row is not None:
            del self._rows[kind][row.partition][id]
            self._bytes -= len(row.doc)
        entry = self._entries.get(f"{kind[0]}:{id}") if kind != "event" else None
        # An alias has no record of its own and stays: it must resolve for ever.
        own = entry is not None and entry.partition != ""
        if own:
            del self._entries[f"{kind[0]}:{id}"]
        return row is not None or own

    async def search(self, kind: Kind, query: Query) -> Page:
        found = sorted(self._found(kind, query), key=lambda row: (row.at_ms, row.written), reverse=True)
        page = found[query.start : query.start + query.limit]
        return Page(total=len(found), result=[row.doc for row in page])

    async def count(self, kind: Kind, where: Where | None = None) -> int:
        return sum(1 for _ in self._found(kind, Query(where=where)))

    async def histogram(
        self, kind: Kind, query: Query, step_ms: int, group_by: str | None = None, top: int = 5
    ) -> list[Bar]:
        first, count = steps(query.from_ms, query.to_ms, step_ms)
        counts: Counter[tuple[int, str]] = Counter()
        totals: Counter[str] = Counter()
        for row in self._found(kind, query):
            for name in _names(row.doc, group_by):
                counts[(row.at_ms - first) // step_ms, name] += 1
                totals[name] += 1
        names = [UNGROUPED] if group_by is None else top_names(totals, top)
        return [Bar(at_ms, counted) for at_ms, counted in fill(first, step_ms, count, counts, names)]

    def _found(self, kind: Kind, query: Query) -> Iterator[_Row]:
        for rows in self._rows[kind].values():
            for row in rows.values():
                if query.from_ms is not None and row.at_ms < query.from_ms:
                    continue
                if query.to_ms is not None and row.at_ms >= query.to_ms:
                    continue
                if query.where is None or matches(query.where, decode_document(row.doc)):
                    yield row

    async def refresh(self) -> None:
        return None

    # partitions

    async def partitions(self) -> list[PartitionInfo]:
        return [
            _info(kind, name, self._rows[kind][name])
            for kind in KINDS
            for name in partitioning.newest_first(self._rows[kind])
        ]

    async def create_partition(self, kind: Kind, name: str) -> bool:
        partitioning.starts_ms(name)
        if name in self._rows[kind]:
            return False
        self._rows[kind][name] = {}
        return True

    async def drop_partition(self, kind: Kind, name: str) -> bool:
        rows = self._rows[kind].pop(name, None)
        if rows is None:
            return False
        self._bytes -= sum(len(row.doc) for row in rows.values())
        for key in [key for key, entry in self._entries.items() if _leads_to(key, entry, kind, name)]:
            del self._entries[key]
        return True

    async def ping(self) -> None:
        self._make_room(())


def _leads_to(key: str, entry: Entry, kind: Kind, partition: str) -> bool:
    return kind != "event" and key.startswith(f"{kind[0]}:") and entry.partition == partition


def _record(row: _Row | None) -> Record | None:
    return None if row is None else Record(row.id, row.partition, row.doc, row.written)


def _info(kind: Kind, name: str, rows: dict[str, _Row]) -> PartitionInfo:
    times = [row.at_ms for row in rows.values()]
    return PartitionInfo(
        kind=kind,
        name=name,
        records=len(rows),
        bytes=sum(len(row.doc) for row in rows.values()),
        first_ms=min(times, default=None),
        last_ms=max(times, default=None),
    )


def _names(doc: bytes, group_by: str | None) -> set[str]:
    if group_by is None:
        return {UNGROUPED}
    names = (bucket_name(value) for value in values(decode_document(doc), group_by))
    return {name for name in names if name is not None}
