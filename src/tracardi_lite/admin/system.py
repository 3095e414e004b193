"""What runs here: version and settings."""

from __future__ import annotations

from aiohttp import web

from tracardi_lite.admin.answers import json_answer
from tracardi_lite.admin.auth import installation_state
from tracardi_lite.admin.context import AdminContext, Route
from tracardi_lite.settings.fields import FIELDS, Field
from tracardi_lite.settings.values import plain

DB_VERSION = "09x"
"""Of the original's records, which ours are shaped like."""


async def version(context: AdminContext, request: web.Request) -> web.Response:
    return json_answer(context.version)


async def details(context: AdminContext, request: web.Request) -> web.Response:
    schema, users = await installation_state(context)
    return json_answer(
        {
            "version": context.version,
            "name": "tracardi-lite",
            "db_version": DB_VERSION,
            "production": context.settings.production,
            "instance": context.instance,
            "installed": {"schema": schema, "users": users, "form": True},
            "multi-tenant": False,
            "tenant": context.settings.tenant_name,
            "owner": None,
            "expires": None,
            "licenses": [],
        }
    )


async def settings(context: AdminContext, request: web.Request) -> web.Response:
    """Every setting under its environment name; secrets and passwords in URLs are masked."""
    rows = [
        {"label": field.env_names[0], "value": _value(field, context), "desc": _text(field)}
        for field in FIELDS.values()
    ]
    return json_answer(rows)


def _value(field: Field, context: AdminContext) -> str | int | float | bool:
    value = getattr(context.settings, field.key)
    return plain(field, value, is_default=value == field.default)


def _text(field: Field) -> str:
    return f"{field.option.text} Unit: {field.option.unit}." if field.option.unit else field.option.text


ROUTES = [
    Route("GET", "/info/version", version),
    Route("GET", "/info/version/", details),
    Route("GET", "/info/version/details", details),
    Route("GET", "/system/settings", settings),
]
