"""The admin API: event sources, records, search, queue and system, for people and their tools.

``routes.add_admin_routes`` adds it to an application. Handlers are functions of (context, request), one module per
area, each with its list of ``Route``; ``guard`` puts the token check and the errors' JSON around them. Nothing here
is on the collector's path. Every route: docs/admin-api.md.
"""

from tracardi_lite.admin.context import AdminContext, Route
from tracardi_lite.admin.guard import authorize, for_administrators
from tracardi_lite.admin.routes import add_admin_routes

__all__ = ["AdminContext", "Route", "add_admin_routes", "authorize", "for_administrators"]
