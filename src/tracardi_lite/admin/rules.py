"""Rules: list, read, save, delete, try. One set of routes in our own shape, and five in the original's.

A rule is compiled before it is saved, by the same code that the workers use: what they could not obey is 422, with the
place of the fault.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable
from typing import Any

import msgspec
from aiohttp import web
from msgspec import Struct

from tracardi_lite.admin.answers import json_answer, nothing
from tracardi_lite.admin.context import AdminContext, Handler, Route
from tracardi_lite.admin.inputs import invalid, number, object_of, read_json, wrong
from tracardi_lite.admin.records import find_profile
from tracardi_lite.admin.rule_shapes import rule_of, shape_of
from tracardi_lite.errors import BadInput
from tracardi_lite.pipeline.event_types import EventType, event_name, normalise_type
from tracardi_lite.pipeline.rules.dry_run import Trial
from tracardi_lite.pipeline.rules.ruleset import event_type
from tracardi_lite.ports.registry import RULE_KINDS, RULES_MAX, Rule

# --- our shape ---


async def list_rules(context: AdminContext, request: web.Request) -> web.Response:
    kind = request.query.get("kind", "")
    if kind and kind not in RULE_KINDS:
        raise wrong("query", "kind", f"Expected one of {', '.join(RULE_KINDS)}.")
    limit = number(request, "limit", RULES_MAX, 1, RULES_MAX)
    rules = await context.registry.rules(kind, request.query.get("query", ""), limit)
    return json_answer({"total": len(rules), "result": rules})


async def get_rule(context: AdminContext, request: web.Request) -> web.Response:
    rule = await context.registry.rule(request.match_info["kind"], request.match_info["id"])
    return nothing() if rule is None else json_answer(rule)


async def post_rule(context: AdminContext, request: web.Request) -> web.Response:
    """Create or replace; a rule without an id gets one. Answers the id."""
    return await _save(context, object_of(await read_json(request, object)))


async def delete_rule(context: AdminContext, request: web.Request) -> web.Response:
    rule = await _delete(context, request.match_info["kind"], request.match_info["id"])
    return json_answer([rule is not None, rule])


class TrialBody(Struct, forbid_unknown_fields=True):
    event: dict[str, Any]
    source: str = "default"
    context: dict[str, Any] = {}
    profile: dict[str, Any] = {}
    profile_id: str = ""
    """A stored profile to try it with, in place of ``profile``."""
    rules: list[Rule] = []


async def try_rules(context: AdminContext, request: web.Request) -> web.Response:
    """What would be stored of an event, and what each rule would do; nothing is."""
    body = await read_json(request, TrialBody)
    profile = body.profile
    if body.profile_id:
        record = await find_profile(context.store, body.profile_id)
        if record is None:
            raise wrong("body", "profile_id", "There is no such profile.")
        profile = msgspec.json.decode(record.doc)
    trial = Trial(body.event, body.source, body.context, profile, body.rules)
    result = context.rules.dry_run(await context.registry.rules(), trial, context.clock.now_ms())
    return json_answer(result)


async def _save(context: AdminContext, values: dict[str, Any]) -> web.Response:
    values["id"] = values.get("id") or str(uuid.uuid4())
    try:
        rule = msgspec.convert({name: value for name, value in values.items() if value is not None}, Rule)
    except msgspec.ValidationError as error:
        raise invalid(error) from error
    context.rules.check(rule)
    await context.registry.save_rule(rule)
    context.rules_changed()
    return json_answer(rule.id)


async def _delete(context: AdminContext, kind: str, id: str) -> Rule | None:
    rule = await context.registry.delete_rule(kind, id)
    context.rules_changed()
    return rule


# --- the original's shapes ---


def _lists(kind: str, group: str) -> Handler:
    async def handle(context: AdminContext, request: web.Request) -> web.Response:
        limit = number(request, "limit", RULES_MAX, 1, RULES_MAX)
        rules = await context.registry.rules(kind, request.query.get("query", ""), limit)
        grouped = {group: [shape_of(rule) for rule in rules]} if rules else None
        return json_answer({"total": len(rules), "grouped": grouped})

    return handle


def _gets(kind: str) -> Handler:
    async def handle(context: AdminContext, request: web.Request) -> web.Response:
        rule = await context.registry.rule(kind, request.match_info["id"])
        return nothing() if rule is None else json_answer(shape_of(rule))

    return handle


def _posts(kind: str) -> Handler:
    async def handle(context: AdminContext, request: web.Request) -> web.Response:
        return await _save(context, rule_of(kind, object_of(await read_json(request, object))))

    return handle


def _deletes(kind: str) -> Handler:
    async def handle(context: AdminContext, request: web.Request) -> web.Response:
        rule = await _delete(context, kind, request.match_info["id"])
        return json_answer([rule is not None, None if rule is None else shape_of(rule)])

    return handle


def _of_type(kind: str, built_in: Callable[[EventType], dict[str, Any] | None]) -> Handler:
    """What there is for an event type: what is built in, then the rules."""

    async def handle(context: AdminContext, request: web.Request) -> web.Response:
        type = normalise_type(request.match_info["event_type"])
        entry = context.rules.types.get(type)
        found = built_in(entry) if entry is not None else None
        rules = [rule for rule in await context.registry.rules(kind) if event_type(rule) == type]
        result = [*([found] if found is not None else []), *map(shape_of, rules)]
        if not result:
            raise BadInput(404, f"There is no mapping for events of type {type[:100]}.")
        return json_answer({"total": len(result), "result": result})

    return handle


def _built_in_traits(entry: EventType) -> dict[str, Any] | None:
    if not entry.copy:
        return None
    return _built_in(entry) | {"event_type": entry.id, "index_schema": entry.copy, "tags": entry.tags}


def _built_in_ops(entry: EventType) -> dict[str, Any] | None:
    if not entry.profile:
        return None
    rule = Rule(kind="to-profile", id="", event_type=entry.id, spec={"ops": msgspec.to_builtins(entry.profile)})
    return shape_of(rule) | _built_in(entry)


def _built_in(entry: EventType) -> dict[str, Any]:
    name = entry.name or event_name(entry.id)
    return {"id": entry.id, "name": name, "description": entry.description, "enabled": True, "build_in": True}


def _routes(kind: str, path: str, lists: str, group: str) -> list[Route]:
    return [
        Route("GET", lists, _lists(kind, group)),
        Route("POST", path, _posts(kind)),
        Route("GET", f"{path}/{{id}}", _gets(kind)),
        Route("DELETE", f"{path}/{{id}}", _deletes(kind)),
    ]


_RULE = "/rule/{kind}/{id}"

ROUTES = [
    Route("GET", "/rules", list_rules),
    Route("POST", "/rules/try", try_rules),
    Route("POST", "/rule", post_rule),
    Route("GET", _RULE, get_rule),
    Route("DELETE", _RULE, delete_rule),
    *_routes("validation", "/event-validator", "/event-validators", "Event validators"),
    *_routes("reshaping", "/event-reshape-schema", "/event-reshape-schemas", "Event reshaping"),
    *_routes("mapping", "/event-type/mapping", "/event-type/search/mappings", "Event mappings"),
    Route("GET", "/event-type/mappings/{event_type}", _of_type("mapping", _built_in_traits)),
    *_routes("to-profile", "/event-to-profile", "/events-to-profiles/by_tag", "Mappings"),
    Route("GET", "/event-to-profiles/type/{event_type}", _of_type("to-profile", _built_in_ops)),
    *_routes("compliance", "/consent/compliance/field", "/consent/compliance/fields", "Compliance"),
]
