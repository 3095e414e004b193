"""Profiles, sessions and events by id; how many there are; a customer's events.

A profile id may be an alias: after a merge, or when two doors answered before a worker had decided, the directory says
which profile survived, and that one is answered. Events carry the id they were stored with, so a profile's events are
looked for under all of its ids.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec
from aiohttp import web
from msgspec import Struct

from tracardi_lite.admin.answers import json_answer, nothing, raw, with_field
from tracardi_lite.admin.context import AdminContext, Handler, Route
from tracardi_lite.admin.inputs import number
from tracardi_lite.admin.where import asked
from tracardi_lite.ports.store import KINDS, Kind, Query, Record, Store
from tracardi_lite.query import And, Compare, Or, Where
from tracardi_lite.settings import Settings

ALIASES_MAX = 16
"""Longest chain of aliases that is followed; merging keeps them flat."""
IDS_MAX = 100
"""Most ids of a profile that its events are looked for under."""
PAGE_MAX = 1000


class Meta(Struct):
    """Where a record is stored, by the names of §4.1."""

    id: str
    index: str
    version: object


def meta(settings: Settings, kind: Kind, record: Record) -> Meta:
    return Meta(id=record.id, index=index_name(settings, kind, record.partition), version=record.version)


def index_name(settings: Settings, kind: str, partition: str) -> str:
    prefix = "prod-" if settings.production else ""
    return f"{prefix}09x.{settings.tenant_name}.tracardi-{kind}-{partition}"


# --- finding ---


async def survivor_of(store: Store, profile_id: str) -> tuple[str, str]:
    """The profile id that this one means now, and the partition of its record ("" when the directory can't tell)."""
    id = profile_id
    for _ in range(ALIASES_MAX):
        (entry,) = await store.lookup([f"p:{id}"])
        if entry is None or not entry.target:
            return id, ""
        if entry.target == id:
            return id, entry.partition
        id = entry.target
    return id, ""


async def find_profile(store: Store, profile_id: str) -> Record | None:
    id, partition = await survivor_of(store, profile_id)
    return await _at("profile", store, id, partition)


async def find_session(store: Store, session_id: str) -> Record | None:
    (entry,) = await store.lookup([f"s:{session_id}"])
    return await _at("session", store, session_id, entry.partition if entry else "")


async def _at(kind: Kind, store: Store, id: str, partition: str) -> Record | None:
    """By the directory's word if it has one; else, and if that is out of date, wherever it is."""
    if partition:
        (record,) = await store.get(kind, [(id, partition)])
        if record is not None:
            return record
    return await store.find(kind, id)


class _Ids(Struct):
    id: str
    ids: list[str] | None = None


async def ids_of(store: Store, profile_id: str) -> list[str]:
    """Every id that the profile is or was known by, the survivor's first; at most ``IDS_MAX``."""
    record = await find_profile(store, profile_id)
    if record is None:
        return [profile_id]
    known = msgspec.json.decode(record.doc, type=_Ids)
    return list(dict.fromkeys((record.id, profile_id, *(known.ids or []))))[:IDS_MAX]


def any_of(field: str, values: Sequence[str]) -> Where:
    terms = tuple(Compare(field, "=", value) for value in values)
    return terms[0] if len(terms) == 1 else Or(terms)


def documents(result: Iterable[bytes]) -> list[msgspec.Raw]:
    return [raw(document) for document in result]


# --- profiles ---


async def get_profile(context: AdminContext, request: web.Request) -> web.Response:
    record = await find_profile(context.store, request.match_info["id"])
    return _record(context, "profile", record)


async def delete_profile(context: AdminContext, request: web.Request) -> web.Response:
    """Removes the profile that the id means, so that deleting by an old id deletes the customer too."""
    record = await find_profile(context.store, request.match_info["id"])
    return await _delete(context, "profile", record)


# --- sessions ---


async def get_session(context: AdminContext, request: web.Request) -> web.Response:
    record = await find_session(context.store, request.match_info["id"])
    return _record(context, "session", record)


async def delete_session(context: AdminContext, request: web.Request) -> web.Response:
    record = await find_session(context.store, request.match_info["id"])
    return await _delete(context, "session", record)


async def nth_last_session(context: AdminContext, request: web.Request) -> web.Response:
    """The profile's last session, or the ``n``-th before it."""
    back = number(request, "n", 0, 0, PAGE_MAX)
    ids = await ids_of(context.store, request.match_info["profile_id"])
    page = await context.store.search("session", Query(where=any_of("profile.id", ids), start=back, limit=1))
    return json_answer(raw(page.result[0])) if page.result else nothing()


# --- events ---


async def get_event(context: AdminContext, request: web.Request) -> web.Response:
    record = await context.store.find("event", request.match_info["id"])
    if record is None:
        return nothing()
    return json_answer({"event": raw(record.doc), "_metadata": meta(context.settings, "event", record)})


async def delete_event(context: AdminContext, request: web.Request) -> web.Response:
    record = await context.store.find("event", request.match_info["id"])
    return await _delete(context, "event", record)


async def events_of_profile(context: AdminContext, request: web.Request) -> web.Response:
    """Newest first, under all ids of the profile."""
    limit = number(request, "limit", 24, 0, PAGE_MAX)
    ids = await ids_of(context.store, request.match_info["profile_id"])
    page = await context.store.search("event", Query(where=any_of("profile.id", ids), limit=limit))
    return json_answer({"total": page.total, "result": documents(page.result)})


async def events_of_session(context: AdminContext, request: web.Request) -> web.Response:
    limit = number(request, "limit", 20, 0, PAGE_MAX)
    ids = await ids_of(context.store, request.match_info["profile_id"])
    where = And((Compare("session.id", "=", request.match_info["session_id"]), any_of("profile.id", ids)))
    page = await context.store.search("event", Query(where=where, limit=limit))
    return json_answer({"result": documents(page.result), "more_to_load": page.total > len(page.result)})


# --- what the three kinds share ---


def _record(context: AdminContext, kind: Kind, record: Record | None) -> web.Response:
    if record is None:
        return nothing()
    document = context.whole_profile(record.doc) if kind == "profile" else record.doc
    return json_answer(with_field(document, "_meta", meta(context.settings, kind, record)))


async def _delete(context: AdminContext, kind: Kind, record: Record | None) -> web.Response:
    if record is None or not await context.store.delete(kind, record.id):
        return nothing()
    index = index_name(context.settings, kind, record.partition)
    return json_answer({"_index": index, "_id": record.id, "result": "deleted"})


def _counter(kind: Kind) -> Handler:
    async def count(context: AdminContext, request: web.Request) -> web.Response:
        where = asked(kind, request.query.get("where", ""))
        return json_answer({"count": await context.store.count(kind, where)})

    return count


async def refresh(context: AdminContext, request: web.Request) -> web.Response:
    """Makes what is stored visible to searches at once."""
    await context.store.refresh()
    return json_answer(True)


ROUTES = [
    # Before the routes by id, which would take "count" for one.
    *(Route("GET", f"/{kind}/count", _counter(kind)) for kind in KINDS),
    Route("GET", "/profile/{id}", get_profile),
    Route("DELETE", "/profile/{id}", delete_profile),
    Route("GET", "/session/{id}", get_session),
    Route("DELETE", "/session/{id}", delete_session),
    Route("GET", "/session/profile/{profile_id}", nth_last_session),
    Route("GET", "/event/{id}", get_event),
    Route("DELETE", "/event/{id}", delete_event),
    Route("GET", "/events/profile/{profile_id}", events_of_profile),
    Route("GET", "/events/session/{session_id}/profile/{profile_id}", events_of_session),
    *(Route("GET", f"/{kind}s/{verb}", refresh) for kind in KINDS for verb in ("refresh", "flush")),
    Route("GET", "/profiles/flash", refresh),
]
