"""The small where-language of ``select``: parsed (``query.parse``) and given a meaning here, compiled by each store."""

from tracardi_lite.query.ast import And, Compare, Exists, Not, Or, Where
from tracardi_lite.query.evaluate import matches

__all__ = ["And", "Compare", "Exists", "Not", "Or", "Where", "matches"]
