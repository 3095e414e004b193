"""Who may: the admin API is on, the token lives, its user is an administrator. In this order, before the handler."""

from __future__ import annotations

from aiohttp import hdrs, web

from tracardi_lite.admin.context import AdminContext, Route
from tracardi_lite.admin.errors import RequestHandler, answers_errors
from tracardi_lite.errors import BadInput
from tracardi_lite.ports.registry import User

ROLE = "admin"


def guarded(context: AdminContext, route: Route) -> RequestHandler:
    """The route's handler as aiohttp takes it."""

    async def handle(request: web.Request) -> web.StreamResponse:
        if not context.settings.expose_gui_api:
            raise BadInput(403, "The admin API is turned off here (EXPOSE_GUI_API).")
        if not route.open:
            await authorize(context, request)
        return await route.handler(context, request)

    return answers_errors(handle)


def for_administrators(context: AdminContext, handler: RequestHandler) -> RequestHandler:
    """The same check around a handler that is none of the admin API's, whether that is turned on or not."""

    async def handle(request: web.Request) -> web.StreamResponse:
        await authorize(context, request)
        return await handler(request)

    return answers_errors(handle)


async def authorize(context: AdminContext, request: web.Request) -> User:
    """The administrator whose token the request carries. Raises ``BadInput`` 401 or 403, ``Unavailable``."""
    token = bearer_token(request)
    if token is None:
        raise BadInput(401, "Not authenticated")
    user = await context.registry.check_token(token, context.settings.token_ttl)
    if user is None:
        raise BadInput(401, "Invalid or expired token")
    if ROLE not in user.roles:
        raise BadInput(403, f"This needs the role {ROLE}.")
    return user


def bearer_token(request: web.Request) -> str | None:
    scheme, _, token = request.headers.get(hdrs.AUTHORIZATION, "").partition(" ")
    return token.strip() or None if scheme.lower() == "bearer" else None
