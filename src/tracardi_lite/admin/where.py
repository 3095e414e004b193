"""The where-text of a request."""

from __future__ import annotations

from tracardi_lite.query import Where
from tracardi_lite.query.parse import parse


def parsed(text: str | None) -> Where | None:
    """None for a blank text, which means everything. Raises ``BadInput`` 422 with where it went wrong."""
    return parse(text or "")
