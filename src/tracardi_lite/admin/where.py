"""The where-text of a request, and what it is asked of: profiles that were merged into others are none any more."""

from __future__ import annotations

from tracardi_lite.pipeline.merging.marks import MERGED, MOVED
from tracardi_lite.ports.store import Kind
from tracardi_lite.query import And, Compare, Not, Or, Where
from tracardi_lite.query.parse import parse

_LIVING = Not(Or((Compare("metadata.status", "=", MERGED), Compare("metadata.status", "=", MOVED))))


def parsed(text: str | None) -> Where | None:
    """None for a blank text, which means everything. Raises ``BadInput`` 422 with where it went wrong."""
    return parse(text or "")


def asked(kind: Kind, text: str | None) -> Where | None:
    """The same, of what is left of a kind: the stubs of merged profiles are no answer to anything."""
    where = parsed(text)
    if kind != "profile":
        return where
    return _LIVING if where is None else And((where, _LIVING))
