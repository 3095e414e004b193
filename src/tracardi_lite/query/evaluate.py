"""The meaning of a where-clause, as a function over one record: the memory store's filter, every other store's oracle.

Values are compared within their JSON type: text with text (by code point), numbers with numbers, booleans with
booleans; anything else is simply not equal and not ordered. A list stands for its elements. ``!=`` is the negation of
``=``, so it holds where the field is missing. Dates: see ``tracardi_lite.query.dates``.
"""

from __future__ import annotations

import operator
from collections.abc import Mapping
from typing import Any

from tracardi_lite.query import dates
from tracardi_lite.query.ast import And, Compare, Exists, Not, Or, Where

_ORDER = {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge}


def matches(where: Where, doc: Mapping[str, Any]) -> bool:
    """Whether a decoded record satisfies the clause."""
    match where:
        case And(terms):
            return all(matches(term, doc) for term in terms)
        case Or(terms):
            return any(matches(term, doc) for term in terms)
        case Not(term):
            return not matches(term, doc)
        case Exists(field):
            return any(value is not None for value in values(doc, field))
        case Compare(field, op, value):
            if op == "!=":
                return not matches(Compare(field, "=", value), doc)
            if value is None:
                return op == "=" and not matches(Exists(field), doc)
            return any(_holds(op, each, value) for each in values(doc, field))


def values(doc: Mapping[str, Any], field: str) -> list[Any]:
    """What stands at a dot path: nothing, one value, or a list's elements."""
    at: Any = doc
    for name in field.split("."):
        if not isinstance(at, Mapping) or name not in at:
            return []
        at = at[name]
    return at if isinstance(at, list) else [at]


def _holds(op: str, found: Any, value: str | int | float | bool) -> bool:
    if isinstance(value, bool):
        return op == "=" and found is value
    if isinstance(value, str):
        return isinstance(found, str) and _text_holds(op, found, value)
    if not isinstance(found, int | float) or isinstance(found, bool):
        return False
    if op == "=":
        return found == value
    return op in _ORDER and bool(_ORDER[op](found, value))


def _text_holds(op: str, found: str, value: str) -> bool:
    if op == "=":
        return found == value
    if op == "prefix":
        return found.startswith(value)
    date = dates.normal(value)
    if date is not None:
        found, value = dates.comparable(found), dates.comparable(date)
    return bool(_ORDER[op](found, value))
