"""What admin handlers are given, and how they are listed."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeAlias

from aiohttp import web
from msgspec import Struct, field

from tracardi_lite.clock import Clock
from tracardi_lite.pipeline.rules.dry_run import Desk
from tracardi_lite.ports.queue import Queue
from tracardi_lite.ports.registry import Registry
from tracardi_lite.ports.store import Store
from tracardi_lite.settings import Settings


def _nobody_listens(source_id: str) -> None:
    pass


def _nobody_asks() -> None:
    pass


def _as_stored(document: bytes) -> bytes:
    return document


class AdminContext(Struct, frozen=True, kw_only=True):
    settings: Settings
    registry: Registry
    store: Store
    queue: Queue
    clock: Clock
    version: str
    instance: str = ""
    """Which process answers, as in ``event.metadata.instance.id``."""
    source_changed: Callable[[str], None] = _nobody_listens
    """Told the id of a source after it was saved or deleted here, so that this process need not wait for its cache."""
    rules: Desk = field(default_factory=Desk)
    """Where rules are checked and tried."""
    rules_changed: Callable[[], None] = _nobody_asks
    """Called after a rule was saved or deleted here, so that this process need not wait for its cache."""
    whole_profile: Callable[[bytes], bytes] = _as_stored
    """A stored profile (JSON) with the fields that are not stored while nothing is known of them."""


Handler: TypeAlias = Callable[[AdminContext, web.Request], Awaitable[web.StreamResponse]]


class Route(Struct, frozen=True):
    method: str
    path: str
    handler: Handler
    open: bool = False
    """Answered without a token."""
