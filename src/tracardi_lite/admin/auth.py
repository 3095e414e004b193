"""Logging in and out, and installing over HTTP."""

from __future__ import annotations

from ipaddress import IPv6Address, IPv6Network, ip_address
from typing import Any

from aiohttp import web
from msgspec import Struct

from tracardi_lite.admin.answers import json_answer
from tracardi_lite.admin.context import AdminContext, Route
from tracardi_lite.admin.guard import bearer_token
from tracardi_lite.admin.inputs import read_form, read_json, wrong
from tracardi_lite.errors import BadInput, Misconfigured, Unavailable
from tracardi_lite.install import InstallReport, install
from tracardi_lite.intake.headers import client_address


async def log_in(context: AdminContext, request: web.Request) -> web.Response:
    """OAuth2's password flow: a form with ``username`` and ``password``."""
    form = await read_form(request)
    for name in ("username", "password"):
        if name not in form:
            raise wrong("body", name, "Field required", "missing")
    if form.get("grant_type", "password") not in ("password", ""):
        raise wrong("body", "grant_type", "Expected password.")
    try:
        place = _place(client_address(request.headers, request.remote, context.settings.use_x_forwarded_ip))
        user = await context.registry.authenticate(form["username"], form["password"], place)
    except BadInput as error:
        detail = f"Authentication error: {error.detail}"
        raise BadInput(error.status, detail, retry_after_s=error.retry_after_s) from error
    if user is None:
        raise BadInput(400, "Authentication error: Incorrect username or password.")
    token = await context.registry.issue_token(user.id, context.settings.token_ttl)
    return json_answer({"access_token": token, "token_type": "bearer", "roles": user.roles, "preference": {}})


def _place(address: str | None) -> str:
    """Whose attempts count together: those from one address; of IPv6 from one /64, which is what one customer gets."""
    try:
        ip = ip_address(address or "")
    except ValueError:
        return address or ""
    if isinstance(ip, IPv6Address):
        return str(ip.ipv4_mapped or IPv6Network((ip, 64), strict=False))
    return str(ip)


async def log_out(context: AdminContext, request: web.Request) -> web.Response:
    token = bearer_token(request)
    assert token is not None, "the guard has checked it"
    await context.registry.revoke_token(token)
    return json_answer(None)


async def installed(context: AdminContext, request: web.Request) -> web.Response:
    schema, admin = await installation_state(context)
    warning = None if context.settings.installation_token else "INSTALLATION_TOKEN is not set: POST /install is off."
    return json_answer({"schema_ok": schema, "admin_ok": admin, "form_ok": True, "warning": warning})


async def installation_state(context: AdminContext) -> tuple[bool, bool]:
    """Whether the registry has its tables, and whether it has an administrator."""
    try:
        users = await context.registry.users()
    except Unavailable:
        return False, False
    return True, any("admin" in user.roles and user.enabled for user in users)


class InstallBody(Struct):
    token: str = ""
    username: str | None = None
    password: str | None = None
    needs_admin: bool = True


async def install_over_http(context: AdminContext, request: web.Request) -> web.Response:
    body = await read_json(request, InstallBody)
    username, password = (body.username, body.password) if body.needs_admin else (None, None)
    try:
        report = await install(
            context.settings, context.registry, username=username, password=password, token=body.token
        )
    except Misconfigured as error:
        raise BadInput(409, str(error)) from error
    # For the original's two contexts, of which one installation here has one.
    return json_answer([_context_report(report), _context_report(InstallReport())])


def _context_report(report: InstallReport) -> dict[str, Any]:
    # The original lists the index templates that it made; the embedded stores make their partitions when needed.
    return {
        "created": {"templates": [], "indices": [], "aliases": []},
        "admin": report.username,
        "password": report.password,
        "plugins": {"registered": [], "errors": []},
        "report": report.lines,
    }


ROUTES = [
    Route("POST", "/user/token", log_in, open=True),
    Route("POST", "/token", log_in, open=True),
    Route("POST", "/user/logout", log_out),
    Route("GET", "/install", installed, open=True),
    Route("POST", "/install", install_over_http, open=True),
]
