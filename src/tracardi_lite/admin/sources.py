"""Event sources and redirects: list, read, save, delete."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime
from typing import Any, TypeVar

import msgspec
from aiohttp import web

from tracardi_lite.admin.answers import json_answer, nothing
from tracardi_lite.admin.context import AdminContext, Route
from tracardi_lite.admin.inputs import invalid, number, object_of, read_json, switch, wrong
from tracardi_lite.ports.registry import SOURCE_TYPES, EventSource, Named, Redirect

T = TypeVar("T")

LIST_MAX = 1000

BRIDGES = {
    "rest": Named(id="778ded05-4ff3-4e08-9a86-72c0195fa95d", name="REST API Bridge"),
    "webhook": Named(id="3d8bb87e-28d1-4a38-b19c-d0c1fbb71e22", name="API Webhook Bridge"),
    "redirect": Named(id="a495159f-91be-476d-a4e5-1b2d7e005403", name="Redirect URL Bridge"),
}
"""The built-in bridges' ids, known to the original's tools."""

TYPE_NAMES = {
    "rest": "REST API",
    "webhook": "API Webhook",
    "redirect": "Redirect URL",
    "javascript": "JavaScript",
    "imap": "IMAP",
    "mqtt": "MQTT",
    "queue": "Queue",
    "kafka": "Kafka",
    "pulsar": "Apache Pulsar",
    "internal": "Internal",
}

TYPE_CONFIG: dict[str, dict[str, Any]] = {
    "rest": {"static_profile_id": False},
    "webhook": {"generate_profile": False, "sticky_session": True, "replace_profile_id": ""},
    "javascript": {"static_profile_id": False},
}
"""What a source of a type can be configured with, and the defaults."""


async def list_sources(context: AdminContext, request: web.Request) -> web.Response:
    limit = number(request, "limit", LIST_MAX, 1, LIST_MAX)
    sources = await context.registry.sources(request.query.get("query", ""), limit)
    grouped = {"Event sources": sources} if sources else None
    return json_answer({"total": len(sources), "grouped": grouped})


async def list_entities(context: AdminContext, request: web.Request) -> web.Response:
    """Ids and names, for a selection: of one type, and with a place-holder for the current source if asked."""
    kind = request.query.get("type")
    sources = await context.registry.sources(limit=LIST_MAX)
    result = [Named(id=source.id, name=source.name) for source in sources if kind is None or kind in source.type]
    if switch(request, "add_current"):
        result.insert(0, Named(id="@current-source", name="@current-source"))
    return json_answer({"total": len(result), "result": result})


async def type_names(context: AdminContext, request: web.Request) -> web.Response:
    return json_answer({"total": len(SOURCE_TYPES), "result": {kind: TYPE_NAMES[kind] for kind in SOURCE_TYPES}})


async def type_configurations(context: AdminContext, request: web.Request) -> web.Response:
    result = {
        kind: {"name": TYPE_NAMES[kind], "bridge": BRIDGES.get(kind), "config": TYPE_CONFIG.get(kind, {})}
        for kind in SOURCE_TYPES
    }
    return json_answer({"total": len(result), "result": result})


async def get_source(context: AdminContext, request: web.Request) -> web.Response:
    source = await context.registry.source(request.match_info["id"])
    return nothing() if source is None else json_answer(source)


async def save_source(context: AdminContext, request: web.Request) -> web.Response:
    """Create or replace; a source without an id gets one. Answers the id."""
    values = object_of(await read_json(request, object))
    if isinstance(values.get("type"), str):
        values["type"] = [values["type"]]
    if not values.get("id") and not values.get("name"):
        raise wrong("body", "id", "An event source needs an id or a name.", "missing")
    values["id"] = values.get("id") or str(uuid.uuid4())
    source = _converted(values, EventSource)
    if source.bridge is None and source.type:
        source.bridge = BRIDGES.get(source.type[0])
    if source.timestamp is None:
        source.timestamp = datetime.fromtimestamp(context.clock.now_ms() / 1000, UTC).isoformat()
    await context.registry.save_source(source)
    context.source_changed(source.id)
    return json_answer(source.id)


async def delete_source(context: AdminContext, request: web.Request) -> web.Response:
    id = request.match_info["id"]
    source = await context.registry.delete_source(id)
    context.source_changed(id)
    return json_answer([source is not None, source])


async def list_redirects(context: AdminContext, request: web.Request) -> web.Response:
    redirects = await context.registry.redirects(number(request, "limit", LIST_MAX, 1, LIST_MAX))
    return json_answer({"total": len(redirects), "result": redirects})


async def get_redirect(context: AdminContext, request: web.Request) -> web.Response:
    redirect = await context.registry.redirect(request.match_info["id"])
    return nothing() if redirect is None else json_answer(redirect)


async def save_redirect(context: AdminContext, request: web.Request) -> web.Response:
    values = object_of(await read_json(request, object))
    values["id"] = values.get("id") or str(uuid.uuid4())
    redirect = _converted(values, Redirect)
    await context.registry.save_redirect(redirect)
    return json_answer(redirect.id)


async def delete_redirect(context: AdminContext, request: web.Request) -> web.Response:
    redirect = await context.registry.redirect(request.match_info["id"])
    deleted = await context.registry.delete_redirect(request.match_info["id"])
    return json_answer([deleted, redirect])


def _converted(values: dict[str, Any], kind: type[T]) -> T:
    try:
        # Nulls stand for "not set" in what the original's tools send.
        return msgspec.convert({name: value for name, value in values.items() if value is not None}, kind)
    except msgspec.ValidationError as error:
        raise invalid(error) from error


ROUTES = [
    Route("GET", "/event-sources", list_sources),
    Route("GET", "/event-sources/by_type", list_sources),
    Route("GET", "/event-sources/entity", list_entities),
    Route("GET", "/event-sources/type/name", type_names),
    Route("GET", "/event-sources/type/configuration", type_configurations),
    Route("GET", "/event-source/{id}", get_source),
    Route("POST", "/event-source", save_source),
    Route("DELETE", "/event-source/{id}", delete_source),
    Route("GET", "/event-redirects", list_redirects),
    Route("GET", "/event-redirect/{id}", get_redirect),
    Route("POST", "/event-redirect", save_redirect),
    Route("DELETE", "/event-redirect/{id}", delete_redirect),
]
