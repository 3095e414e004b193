"""Whatever can be set, counted, asked or chosen stands in the docs."""

from __future__ import annotations

import re
from pathlib import Path
from unittest.mock import Mock

import pytest
from aiohttp import web

from tracardi_lite import metrics, wiring
from tracardi_lite.admin.routes import add_admin_routes
from tracardi_lite.cli import cli
from tracardi_lite.intake import server
from tracardi_lite.intake.collector import Collector
from tracardi_lite.settings import Settings
from tracardi_lite.settings.fields import FIELDS

DOCS = Path(__file__).parents[2] / "docs"
TEXT = "\n".join(page.read_text() for page in sorted(DOCS.glob("**/*.md")))


def test_every_setting_is_documented_by_each_of_its_environment_names() -> None:
    names = [name for field in FIELDS.values() for name in field.option.env or (field.key.upper(),)]
    assert names
    assert not [name for name in names if f"`{name}`" not in TEXT]


def test_every_metric_is_documented() -> None:
    page = metrics.Metrics().render().decode()
    names = set(re.findall(r"^# TYPE (\S+)", page, re.MULTILINE))
    assert names
    assert not [name for name in sorted(names) if name not in TEXT]


def routes() -> set[str]:
    """Every path that the program answers, as it is registered."""
    settings = Settings()
    app = web.Application()
    collector = Collector(settings, Mock(), Mock(), Mock(), Mock(), Mock(), Mock(), Mock(), find_key=Mock())
    app.add_routes(collector.routes())
    add_admin_routes(app, Mock(settings=settings))
    server.add_tracker_routes(app, Mock(), "")
    server.add_health_routes(app, Mock(), Mock())
    return {resource.canonical for resource in app.router.resources()}


@pytest.mark.parametrize("route", sorted(routes()))
def test_every_route_is_documented(route: str) -> None:
    without_patterns = re.sub(r"\{(\w+):[^}]*\}", r"{\1}", route).rstrip("/") or "/"
    assert without_patterns in TEXT


@pytest.mark.parametrize("port", sorted(wiring.BUILT_IN))
def test_every_backend_is_documented_beside_the_setting_that_chooses_it(port: str) -> None:
    assert f"`{port.upper()}_URL`" in TEXT
    assert not [scheme for scheme in wiring.BUILT_IN[port] if f"`{scheme}:" not in TEXT]


def test_every_command_is_documented() -> None:
    assert not [name for name in sorted(cli.commands) if f"tracardi-lite {name}" not in TEXT]
