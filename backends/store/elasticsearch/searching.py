"""Search, count and histogram over a kind's alias. They see what has been refreshed, see ``mappings``.

A shard that is away fails the whole answer (``Unavailable``): half an answer looks like a whole one. Pages end at
``_WINDOW``, Elasticsearch's bound of what is sorted in one go; a narrower range of time leads further.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from urllib.parse import quote

import msgspec
from msgspec import Raw, Struct

from tracardi_lite.backends.store.elasticsearch import mappings
from tracardi_lite.backends.store.elasticsearch import where as wheres
from tracardi_lite.backends.store.elasticsearch.connection import Connection
from tracardi_lite.backends.store.elasticsearch.names import Names
from tracardi_lite.errors import BadInput
from tracardi_lite.ports.store import Bar, Kind, Page, Query
from tracardi_lite.query import Where
from tracardi_lite.query.histogram import UNGROUPED, bucket_name, fill, steps, top_names

_WINDOW = 10_000
_BUCKETS_MAX = 50_000
"""Of one request; Elasticsearch's default is 65,536."""
_OPTIONS = "ignore_unavailable=true&allow_no_indices=true&allow_partial_search_results=false"

Key = str | int | float


class _Hit(Struct):
    source: Raw = msgspec.field(name="_source", default_factory=Raw)


class _Total(Struct):
    value: int = 0


class _Hits(Struct):
    total: _Total = msgspec.field(default_factory=_Total)
    hits: list[_Hit] = []


class _Bar(Struct):
    key: float
    doc_count: int


class _Bars(Struct):
    buckets: list[_Bar] = []


class _Group(Struct):
    key: Key | bool
    doc_count: int
    key_as_string: str | None = None


class _Groups(Struct):
    buckets: list[_Group] = []


class _NamedGroup(Struct):
    steps: _Bars


class _NamedGroups(Struct):
    buckets: dict[str, _NamedGroup] = {}


class _Aggregations(Struct):
    groups: _Groups | None = None
    named: _NamedGroups | None = None
    steps: _Bars | None = None


class _Found(Struct):
    hits: _Hits = msgspec.field(default_factory=_Hits)
    aggregations: _Aggregations = msgspec.field(default_factory=_Aggregations)


class _Count(Struct):
    count: int = 0


class Searcher:
    def __init__(self, connection: Connection, names: Names) -> None:
        self._connection = connection
        self._names = names

    async def search(self, kind: Kind, query: Query) -> Page:
        """Newest first; those of one moment by id. ``BadInput`` beyond the first 10,000."""
        if query.start + query.limit > _WINDOW:
            raise BadInput(422, f"only the first {_WINDOW} can be paged through: narrow the range of time")
        body = {
            "query": self._filter(kind, query),
            "from": query.start,
            "size": query.limit,
            "track_total_hits": True,
            "sort": [
                {mappings.TIME_FIELD[kind]: {"order": "desc", "unmapped_type": "date"}},
                {"id": {"order": "desc", "unmapped_type": "keyword"}},
            ],
        }
        found = await self._search(kind, body)
        return Page(total=found.hits.total.value, result=[bytes(hit.source) for hit in found.hits.hits])

    async def count(self, kind: Kind, where: Where | None) -> int:
        body = {"query": self._filter(kind, Query(where=where))}
        target = f"{self._base(kind)}/_count?ignore_unavailable=true&allow_no_indices=true"
        return (await self._connection.ask(_Count, "POST", target, body, missing=_Count())).count

    async def histogram(self, kind: Kind, query: Query, step_ms: int, group_by: str | None, top: int) -> list[Bar]:
        first_ms, count = steps(query.from_ms, query.to_ms, step_ms)
        if count == 0:
            return []
        counts: dict[tuple[int, str], int] = {}
        bars = {
            "date_histogram": {
                "field": mappings.TIME_FIELD[kind],
                "fixed_interval": f"{step_ms}ms",
                "offset": f"{first_ms % step_ms}ms",
                "min_doc_count": 1,
            }
        }
        if group_by is None:
            names = [UNGROUPED]
            found = await self._aggregate(kind, query, {"steps": bars})
            _add(counts, UNGROUPED, found.steps, first_ms, step_ms)
        else:
            keys = await self._top(kind, query, group_by, top)
            names = list(keys)
            for some in _chunks(names, max(1, _BUCKETS_MAX // (count + 1))):
                filters = {name: {"term": {group_by: keys[name]}} for name in some}
                named = {"filters": {"filters": filters}, "aggs": {"steps": bars}}
                found = await self._aggregate(kind, query, {"named": named})
                for name, group in found.named.buckets.items() if found.named else ():
                    _add(counts, name, group.steps, first_ms, step_ms)
        return [Bar(at_ms, counted) for at_ms, counted in fill(first_ms, step_ms, count, counts, names)]

    async def _top(self, kind: Kind, query: Query, group_by: str, top: int) -> dict[str, Key]:
        """The biggest groups: name → what stands in the index."""
        if top < 1 or wheres.field_of(kind, group_by).type in ("kept", "object", "unknown"):
            return {}
        terms = {"field": group_by, "size": top, "order": [{"_count": "desc"}, {"_key": "asc"}]}
        found = await self._aggregate(kind, query, {"groups": {"terms": terms}})
        keys: dict[str, Key] = {}
        totals: dict[str, int] = {}
        for group in found.groups.buckets if found.groups else ():
            key = group.key if group.key_as_string is None else group.key_as_string
            name = bucket_name(int(key) if isinstance(key, float) and key.is_integer() else key)
            if name is not None:
                keys[name] = key
                totals[name] = group.doc_count
        return {name: keys[name] for name in top_names(totals, top)}

    async def _aggregate(self, kind: Kind, query: Query, aggs: dict[str, Any]) -> _Aggregations:
        body = {"size": 0, "track_total_hits": False, "query": self._filter(kind, query), "aggs": aggs}
        return (await self._search(kind, body)).aggregations

    async def _search(self, kind: Kind, body: dict[str, Any]) -> _Found:
        target = f"{self._base(kind)}/_search?{_OPTIONS}"
        return await self._connection.ask(_Found, "POST", target, body, missing=_Found())

    def _base(self, kind: Kind) -> str:
        return f"/{quote(self._names.base(kind))}"

    def _filter(self, kind: Kind, query: Query) -> wheres.Dsl:
        terms: list[wheres.Dsl] = []
        if query.where is not None:
            terms.append(wheres.compiled(kind, query.where))
        bounds = {"gte": query.from_ms, "lt": query.to_ms}
        if given := {name: at_ms for name, at_ms in bounds.items() if at_ms is not None}:
            terms.append({"range": {mappings.TIME_FIELD[kind]: {**given, "format": "epoch_millis"}}})
        return {"bool": {"filter": terms}} if terms else wheres.ALL


def _add(counts: dict[tuple[int, str], int], name: str, bars: _Bars | None, first_ms: int, step_ms: int) -> None:
    for bar in bars.buckets if bars else ():
        counts[(int(bar.key) - first_ms) // step_ms, name] = bar.doc_count


def _chunks(names: Sequence[str], size: int) -> list[Sequence[str]]:
    return [names[start : start + size] for start in range(0, len(names), size)]
