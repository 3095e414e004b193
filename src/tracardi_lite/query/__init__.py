"""The small where-language of ``select``: parsed here, compiled by each store."""

from tracardi_lite.query.ast import And, Compare, Exists, Not, Or, Where

__all__ = ["And", "Compare", "Exists", "Not", "Or", "Where"]
