"""Partitions as indices: made by name before they are written to, never by the way.

Before the first write to a partition in this process its kind's template is brought up to date and its index made; an
index that is there already gets what our mapping adds and its place in the alias. A day before a partition's time is up
the next one is made, so that midnight finds it. Both cost a write one look at a dict.

Templates refuse automatic creation: a write to an index that another process has dropped is told so, and comes here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import msgspec
import structlog
from msgspec import Struct

from tracardi_lite import partitioning
from tracardi_lite.backends.store.elasticsearch import mappings
from tracardi_lite.backends.store.elasticsearch.connection import Connection
from tracardi_lite.backends.store.elasticsearch.names import DIRECTORY, Names
from tracardi_lite.errors import TracardiLiteError, Unavailable
from tracardi_lite.ports.store import KINDS, Kind, PartitionInfo
from tracardi_lite.settings import Settings

log = structlog.get_logger(__name__)

LOOK_AHEAD_MS = 86_400_000
_AGAIN_MS = 300_000
"""After a next partition could not be made."""
_NEVER = 1 << 62
_INDICES_MAX = 10_000
"""Of a kind in one listing; Elasticsearch's own bound of shards is far below."""


class _Health(Struct):
    number_of_data_nodes: int = 0


class _Meta(Struct):
    digest: str = ""


class _Template(Struct):
    meta: _Meta = msgspec.field(name="_meta", default_factory=_Meta)


class _NamedTemplate(Struct):
    index_template: _Template


class _Templates(Struct):
    index_templates: list[_NamedTemplate] = []


class _Mapping(Struct):
    meta: _Meta = msgspec.field(name="_meta", default_factory=_Meta)


class _Mappings(Struct):
    mappings: _Mapping = msgspec.field(default_factory=_Mapping)


class _Row(Struct):
    """A row of ``_cat/indices``, where numbers are texts, and null for an index that is being made or is away."""

    index: str
    store_size: str | None = msgspec.field(name="store.size", default=None)


class _Value(Struct):
    value: float | None = None


class _Bucket(Struct):
    key: str
    doc_count: int
    first: _Value
    last: _Value


class _Buckets(Struct):
    buckets: list[_Bucket] = []


class _Aggregations(Struct):
    indices: _Buckets


class _Found(Struct):
    aggregations: _Aggregations | None = None


class Indices:
    def __init__(self, connection: Connection, names: Names, settings: Settings, now_ms: Callable[[], int]) -> None:
        self._connection = connection
        self._names = names
        self._settings = settings
        self._now_ms = now_ms
        self._next_due_ms: dict[str, int] = {}
        """By index that is known to be there: when to see to the partition after it."""
        self._templates: set[str] = set()
        self._lock = asyncio.Lock()

    # making

    async def ensure(self, kind: str, partition: str) -> None:
        """See that the partition's index is there, and in time the next one's. ``partition``: "" for the directory."""
        index = self._index(kind, partition)
        due_ms = self._next_due_ms.get(index)
        if due_ms is None:
            async with self._lock:
                if index not in self._next_due_ms:
                    await self._make(kind, index)
                    self._next_due_ms[index] = self._due_ms(partition)
            due_ms = self._next_due_ms.get(index, _NEVER)
        if self._now_ms() >= due_ms:
            await self._look_ahead(kind, partition, index)

    async def guard(self, kind: str) -> None:
        """See that a write can't make an index of this kind, which is what the template is for, too."""
        if kind not in self._templates:
            async with self._lock:
                await self._bring_template(kind)

    def forget(self, index: str) -> None:
        """It turned out to be gone."""
        self._next_due_ms.pop(index, None)

    async def create(self, kind: Kind, partition: str) -> bool:
        """False if it was there. Raises ValueError for what is not a partition's name."""
        partitioning.starts_ms(partition)
        index = self._index(kind, partition)
        async with self._lock:
            is_new = await self._make(kind, index)
            self._next_due_ms[index] = self._due_ms(partition)
        return is_new

    async def drop(self, kind: Kind, partition: str) -> bool:
        """False if there is none."""
        if not partitioning.is_name(partition):
            return False
        index = self._index(kind, partition)
        self.forget(index)
        answer = await self._connection.do("DELETE", f"/{quote(index)}", fine=(404,))
        return answer.status != 404

    def _index(self, kind: str, partition: str) -> str:
        return self._names.directory if kind == DIRECTORY else self._names.index(kind, partition)

    def _due_ms(self, partition: str) -> int:
        if not partition:
            return _NEVER
        end_ms = partitioning.starts_ms(partitioning.following(partition))
        return end_ms - LOOK_AHEAD_MS if self._now_ms() < end_ms else _NEVER

    async def _look_ahead(self, kind: str, partition: str, index: str) -> None:
        self._next_due_ms[index] = _NEVER
        following = partitioning.following(partition)
        if self._now_ms() >= partitioning.starts_ms(following):
            return  # its own first write makes it
        try:
            async with self._lock:
                await self._make(kind, self._index(kind, following))
        except TracardiLiteError as error:
            # This write does not need it; the next partition's first write is the latest try.
            log.warning("could not make the next partition yet", kind=kind, partition=following, error=str(error))
            self._next_due_ms[index] = self._now_ms() + _AGAIN_MS

    async def _make(self, kind: str, index: str) -> bool:
        await self._bring_template(kind)
        answer = await self._connection.do("PUT", f"/{quote(index)}", {}, fine=(400,))
        if answer.status != 400:
            log.info("made a partition", index=index)
            return True
        if answer.cause.type != "resource_already_exists_exception":
            # For instance more shards than the cluster may hold: an operator's to change, not the record's fault.
            raise Unavailable("store", f"Elasticsearch does not make {index}: {answer.cause}")
        await self._adopt(kind, index)
        return False

    async def _adopt(self, kind: str, index: str) -> None:
        """Bring an index that was there to what a new one would be, as far as it takes it."""
        target = f"/{quote(index)}"
        there = await self._connection.ask(
            dict[str, _Mappings], "GET", f"{target}/_mapping?filter_path=*.mappings._meta", missing={}
        )
        ours = mappings.mapping(kind)
        if all(each.mappings.meta.digest != ours["_meta"]["digest"] for each in there.values()):
            answer = await self._connection.do("PUT", f"{target}/_mapping", ours, fine=(400, 404))
            if answer.status == 400:
                log.warning("a partition keeps its older mapping", index=index, error=str(answer.cause))
        if kind != DIRECTORY:
            await self._connection.do("PUT", f"{target}/_alias/{quote(self._names.base(kind))}", fine=(404,))

    async def _bring_template(self, kind: str) -> None:
        if kind in self._templates:
            return
        if (ours := await self.outdated_template(kind)) is not None:
            answer = await self._connection.do("PUT", self._template_target(kind), ours, fine=(400,))
            if answer.status == 400:
                raise Unavailable("store", f"Elasticsearch does not take the template of {kind}: {answer.cause}")
            log.info("put an index template", name=self._names.template(kind))
        self._templates.add(kind)

    async def outdated_template(self, kind: str) -> dict[str, Any] | None:
        """The template as it should be, if the cluster has none or another."""
        ask = self._connection.ask
        health = await ask(_Health, "GET", "/_cluster/health?filter_path=number_of_data_nodes")
        ours = mappings.template(
            kind,
            self._names,
            shards=self._settings.elastic_index_shards,
            replicas=self._settings.elastic_index_replicas if health.number_of_data_nodes > 1 else 0,
        )
        there = await ask(_Templates, "GET", self._template_target(kind), missing=_Templates())
        digests = [each.index_template.meta.digest for each in there.index_templates]
        return None if ours["_meta"]["digest"] in digests else ours

    def _template_target(self, kind: str) -> str:
        return f"/_index_template/{quote(self._names.template(kind))}"

    # listing

    async def names(self, kind: Kind) -> list[str]:
        """The kind's indices, the newest partition first."""
        return [row.index for row in await self._rows(kind)]

    async def infos(self) -> list[PartitionInfo]:
        """What each partition holds: as far as searches see it by now."""
        found: list[PartitionInfo] = []
        for kind in KINDS:
            rows = await self._rows(kind)
            held = await self._held(kind) if rows else {}
            for row in rows:
                bucket = held.get(row.index)
                partition = self._names.partition(kind, row.index)
                assert partition is not None
                found.append(
                    PartitionInfo(
                        kind=kind,
                        name=partition,
                        records=bucket.doc_count if bucket else 0,
                        bytes=int(row.store_size or 0),
                        first_ms=_ms(bucket.first) if bucket else None,
                        last_ms=_ms(bucket.last) if bucket else None,
                    )
                )
        return found

    async def _rows(self, kind: Kind) -> list[_Row]:
        target = f"/_cat/indices/{quote(self._names.base(kind))}-*?format=json&bytes=b&h=index,store.size"
        rows = {row.index: row for row in await self._connection.ask(list[_Row], "GET", target, missing=[])}
        ours = {self._names.partition(kind, index): row for index, row in rows.items()}
        return [ours[name] for name in partitioning.newest_first(name for name in ours if name is not None)]

    async def _held(self, kind: Kind) -> dict[str, _Bucket]:
        field = mappings.TIME_FIELD[kind]
        body = {
            "size": 0,
            "aggs": {
                "indices": {
                    "terms": {"field": "_index", "size": _INDICES_MAX},
                    "aggs": {"first": {"min": {"field": field}}, "last": {"max": {"field": field}}},
                }
            },
        }
        target = f"/{quote(self._names.base(kind))}/_search?ignore_unavailable=true"
        found = await self._connection.ask(_Found, "POST", target, body)
        return {bucket.key: bucket for bucket in found.aggregations.indices.buckets} if found.aggregations else {}


def _ms(value: _Value) -> int | None:
    return None if value.value is None else int(value.value)
