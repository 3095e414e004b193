"""Searching records: ``select``, by time range, and as a histogram."""

from __future__ import annotations

import re
from typing import cast

from aiohttp import web
from msgspec import Struct

from tracardi_lite.admin.answers import json_answer
from tracardi_lite.admin.context import AdminContext, Route
from tracardi_lite.admin.inputs import read_json, wrong
from tracardi_lite.admin.ranges import Date, Span, label, span, step_of
from tracardi_lite.admin.records import PAGE_MAX, documents
from tracardi_lite.admin.where import asked
from tracardi_lite.ports.store import KINDS, Kind, Query

TOP = 5
"""Groups that get a bar of their own."""
START_MAX = 1_000_000
"""Deepest page: a store has to sort all that comes before it."""

_FIELD = re.compile(r"[A-Za-z0-9_.@-]{1,200}")
_INDEX = f"{{index:{'|'.join(KINDS)}}}"


class Select(Struct):
    where: str | None = ""
    limit: int | None = 20


class Range(Struct, rename={"min_date": "minDate", "max_date": "maxDate", "time_zone": "timeZone"}):
    min_date: Date | None = None
    max_date: Date | None = None
    where: str | None = ""
    time_zone: str | None = None
    start: int | None = 0
    limit: int | None = 25


async def select(context: AdminContext, request: web.Request) -> web.Response:
    body = await read_json(request, Select)
    limit = _within(body.limit, 20, PAGE_MAX, "limit")
    kind = _kind(request)
    page = await context.store.search(kind, Query(where=asked(kind, body.where), limit=limit))
    return json_answer({"total": page.total, "result": documents(page.result)})


async def select_range(context: AdminContext, request: web.Request) -> web.Response:
    """One page of a time range; ``/page/{n}`` counts pages of ``limit`` from 0 and stands before ``start``."""
    body = await read_json(request, Range)
    limit = _within(body.limit, 25, PAGE_MAX, "limit")
    start = _within(body.start, 0, START_MAX, "start")
    if "page" in request.match_info:
        start = _within(int(request.match_info["page"]) * limit, 0, START_MAX, "page")
    period = _span(context, body)
    kind = _kind(request)
    where = asked(kind, body.where)
    query = Query(where=where, start=start, limit=limit, from_ms=period.from_ms, to_ms=period.to_ms)
    page = await context.store.search(kind, query)
    return json_answer({"total": page.total, "result": documents(page.result), "buckets": []})


async def histogram(context: AdminContext, request: web.Request) -> web.Response:
    """Counts over time; with ``group_by`` one count per row for each of the most frequent values."""
    body = await read_json(request, Range)
    group_by = request.query.get("group_by") or None
    if group_by is not None and not _FIELD.fullmatch(group_by):
        raise wrong("query", "group_by", "Expected a field's path, as in `type` or `metadata.status`.")
    interval, step_ms, period = step_of(_span(context, body))
    kind = _kind(request)
    query = Query(where=asked(kind, body.where), limit=0, from_ms=period.from_ms, to_ms=period.to_ms)
    total = (await context.store.search(kind, query)).total
    bars = await context.store.histogram(kind, query, step_ms, group_by, TOP)
    buckets = list(dict.fromkeys(name for bar in bars for name in bar.counts))
    empty = dict.fromkeys(buckets, 0)
    result = [
        # The row's own two keys come last: a group that is called "date" must not hide the date.
        {**empty, **bar.counts, "date": label(bar.at_ms, period.zone), "interval": interval}
        for bar in bars
    ]
    return json_answer({"total": total, "result": result, "buckets": buckets or ([] if group_by else ["count"])})


def _kind(request: web.Request) -> Kind:
    return cast(Kind, request.match_info["index"])


def _span(context: AdminContext, body: Range) -> Span:
    return span(body.min_date, body.max_date, body.time_zone, context.clock.now_ms())


def _within(value: int | None, default: int, most: int, name: str) -> int:
    value = default if value is None else value
    if not 0 <= value <= most:
        raise wrong("body", name, f"Expected a whole number, 0 to {most}.")
    return value


ROUTES = [
    Route("POST", f"/{_INDEX}/select", select),
    Route("POST", f"/{_INDEX}/select/range", select_range),
    Route("POST", f"/{_INDEX}/select/range/page/{{page:\\d{{1,9}}}}", select_range),
    Route("POST", f"/{_INDEX}/select/histogram", histogram),
]
