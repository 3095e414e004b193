"""All routes of the admin API."""

from __future__ import annotations

from aiohttp import web

from tracardi_lite.admin import auth, queue, records, rules, search, sources, system
from tracardi_lite.admin.context import AdminContext, Route
from tracardi_lite.admin.guard import guarded

ROUTES: tuple[Route, ...] = (
    *auth.ROUTES,
    *sources.ROUTES,
    *rules.ROUTES,
    *records.ROUTES,
    *search.ROUTES,
    *queue.ROUTES,
    *system.ROUTES,
)


def add_admin_routes(app: web.Application, context: AdminContext) -> None:
    """Add them to an application that is not frozen yet. What ``context`` holds is not opened or closed here."""
    for route in ROUTES:
        app.router.add_route(route.method, route.path, guarded(context, route))
