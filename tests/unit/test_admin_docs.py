"""docs/event-sources.md and docs/admin-api.md name what there is."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from tracardi_lite.admin.context import Route
from tracardi_lite.admin.routes import ROUTES
from tracardi_lite.ports.registry import SOURCE_TYPES, EventSource, Redirect

DOCS = Path(__file__).parents[2] / "docs"


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: f"{route.method} {route.path}")
def test_every_route_of_the_admin_api_is_documented_with_its_method(route: Route) -> None:
    path = route.path.replace("{index:event|profile|session}", "{index}").replace(r"{page:\d{1,9}}", "{page}")
    lines = [line for line in (DOCS / "admin-api.md").read_text().splitlines() if f"{path}`" in line]
    assert any(f"`{route.method} " in line for line in lines)


def test_every_field_and_type_of_a_source_is_documented() -> None:
    page = (DOCS / "event-sources.md").read_text()
    names = {field.name for struct in (EventSource, Redirect) for field in msgspec.structs.fields(struct)}
    assert not [name for name in sorted(names | set(SOURCE_TYPES)) if f"`{name}`" not in page]
