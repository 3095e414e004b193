"""The store port on Elasticsearch: each call goes to the part that does it.

Opening does not need the server: what is missing in the cluster is made by the first write, and until then reads find
nothing. So a process starts while Elasticsearch is away, and waits with its work instead of with its start.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import TracebackType
from typing import Self
from urllib.parse import quote

from tracardi_lite.backends.store.elasticsearch import health
from tracardi_lite.backends.store.elasticsearch.bulk import Bulk
from tracardi_lite.backends.store.elasticsearch.connection import Connection
from tracardi_lite.backends.store.elasticsearch.directory import Directory
from tracardi_lite.backends.store.elasticsearch.events import Events
from tracardi_lite.backends.store.elasticsearch.flight import Flight
from tracardi_lite.backends.store.elasticsearch.indices import Indices
from tracardi_lite.backends.store.elasticsearch.lifecycle import IndexLifecycle
from tracardi_lite.backends.store.elasticsearch.names import Names
from tracardi_lite.backends.store.elasticsearch.provision import Provision
from tracardi_lite.backends.store.elasticsearch.reading import Reader
from tracardi_lite.backends.store.elasticsearch.records import Records
from tracardi_lite.backends.store.elasticsearch.searching import Searcher
from tracardi_lite.backends.store.elasticsearch.writing import Writer
from tracardi_lite.clock import Clock, SystemClock
from tracardi_lite.ports.store import (
    CONFLICT,
    KINDS,
    Bar,
    Claim,
    Entry,
    EventWrite,
    Kind,
    Page,
    PartitionInfo,
    Query,
    Record,
    RecordWrite,
    Verdict,
)
from tracardi_lite.query import Where
from tracardi_lite.settings import Settings


def open_store(url: str, settings: Settings) -> ElasticsearchStore:
    """``elasticsearch:`` (nodes from the settings) or ``elasticsearch://host:9200``, ``elasticsearch+https://host``."""
    return ElasticsearchStore(url, settings)


class ElasticsearchStore:
    def __init__(self, url: str, settings: Settings, clock: Clock | None = None) -> None:
        clock = clock or SystemClock()
        self._connection = Connection(url, settings)
        self._names = Names(settings)
        self.flight = Flight(min(settings.elastic_bulks_max, settings.elastic_max_conn))
        self._indices = Indices(self._connection, self._names, settings, clock.now_ms)
        reader = Reader(self._connection)
        writer = Writer(Bulk(self._connection, self.flight), self._indices)
        self._events = Events(writer, reader, self._names)
        self._records = Records(self._connection, writer, reader, self._indices, self._names)
        self._directory = Directory(writer, reader, self._names)
        self._searcher = Searcher(self._connection, self._names)
        self.lifecycle = IndexLifecycle(self._connection, self._names, self._indices, settings, clock)
        """The optional part of the port (``ports.store.Lifecycle``)."""
        self.rewriting = self
        """Another one (``ports.store.Rewriting``)."""
        self._provision = Provision(self._connection, self._names, self._indices, self.lifecycle, settings, clock)
        self._is_entered = False

    async def __aenter__(self) -> Self:
        self._is_entered = True
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._connection.close()

    async def create_events(self, events: Sequence[EventWrite]) -> list[Verdict]:
        return await self._events.create(events)

    async def rewrite_events(self, events: Sequence[EventWrite]) -> list[Verdict]:
        # Read once more for the versions, which a search doesn't tell.
        found = await self._records.get("event", [(event.id, event.partition) for event in events])
        writes = {
            at: RecordWrite("event", event.id, event.partition, event.doc, record.version, event.insert_ms)
            for at, (event, record) in enumerate(zip(events, found, strict=True))
            if record is not None
        }
        verdicts = dict(zip(writes, await self._records.put(list(writes.values())), strict=True)) if writes else {}
        return [verdicts.get(at, CONFLICT) for at in range(len(events))]

    async def put(self, writes: Sequence[RecordWrite]) -> list[Verdict]:
        return await self._records.put(writes)

    async def get(self, kind: Kind, keys: Sequence[tuple[str, str]]) -> list[Record | None]:
        return await self._records.get(kind, keys)

    async def lookup(self, keys: Sequence[str]) -> list[Entry | None]:
        return await self._directory.lookup(keys)

    async def claim(self, claims: Sequence[Claim]) -> list[Entry]:
        return await self._directory.claim(claims)

    async def repoint(self, key: str, expected: Entry, entry: Entry | None) -> bool:
        return await self._directory.repoint(key, expected, entry)

    async def find(self, kind: Kind, id: str) -> Record | None:
        return await self._records.find(kind, id)

    async def delete(self, kind: Kind, id: str) -> bool:
        deleted = await self._records.delete(kind, id)
        # Looked at in any case: a call that was cut off between the two is finished by its repetition.
        forgotten = kind != "event" and await self._directory.forget(f"{kind[0]}:{id}")
        return deleted or forgotten

    async def search(self, kind: Kind, query: Query) -> Page:
        return await self._searcher.search(kind, query)

    async def count(self, kind: Kind, where: Where | None = None) -> int:
        return await self._searcher.count(kind, where)

    async def histogram(
        self, kind: Kind, query: Query, step_ms: int, group_by: str | None = None, top: int = 5
    ) -> list[Bar]:
        return await self._searcher.histogram(kind, query, step_ms, group_by, top)

    async def refresh(self) -> None:
        bases = ",".join(quote(self._names.base(kind)) for kind in KINDS)
        await self._connection.do(
            "POST", f"/{bases}/_refresh?ignore_unavailable=true&allow_no_indices=true", fine=(404,)
        )

    async def partitions(self) -> list[PartitionInfo]:
        return await self._indices.infos()

    async def create_partition(self, kind: Kind, name: str) -> bool:
        return await self._indices.create(kind, name)

    async def drop_partition(self, kind: Kind, name: str) -> bool:
        return await self._indices.drop(kind, name)

    async def provision(self, *, dry_run: bool = False) -> list[str]:
        """Templates, the first partitions, the snapshot repository; see ``ports.provision``."""
        try:
            return await self._provision.run(dry_run)
        finally:
            if not self._is_entered:
                await self._connection.close()

    async def ping(self) -> None:
        await health.check(self._connection, self._names)
