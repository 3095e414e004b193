"""The where-language as Elasticsearch's query DSL. Pure.

It means what ``query.evaluate`` says, as far as the mapping can: the field's type decides. Values of another type than
a typed field's match nothing; unknown fields hold nothing. What can't be answered is refused (``BadInput`` 422) rather
than answered wrongly:

* fields that are kept and not indexed (``request``, ``config``);
* numbers in order within flattened fields (properties, context …), which hold everything as text;
* beginnings of dates (``"2026-09*"``): ``>=`` and ``<`` say it better.

Differences that remain: a date is equal to the same moment however it is spelled; a trait's type is that of the
partition, so that a number is found by its text, too; text beyond the index's length (1,024 characters) is not found.
"""

from __future__ import annotations

from typing import Any, Literal

from msgspec import Struct

from tracardi_lite.backends.store.elasticsearch import mappings
from tracardi_lite.errors import BadInput
from tracardi_lite.ports.store import Kind
from tracardi_lite.query import And, Compare, Exists, Not, Or, Where, dates
from tracardi_lite.query.ast import Value

Dsl = dict[str, Any]

NONE: Dsl = {"match_none": {}}
ALL: Dsl = {"match_all": {}}

_RANGES = {"<": "lt", "<=": "lte", ">": "gt", ">=": "gte"}
_DIGITS_MAX = 17
"""Of a number's text: what is larger has more than one spelling."""


class Field(Struct, frozen=True):
    """What a path leads to. ``trait``: the partitions know its type. ``object``: has fields below it, and no value."""

    type: Literal["keyword", "date", "double", "boolean", "flattened", "trait", "object", "kept", "unknown"]


def field_of(kind: Kind, path: str) -> Field:
    """The type that the mapping gives to a path."""
    fields: Any = mappings.fields(kind)
    names = path.split(".")
    for at, name in enumerate(names):
        here = fields.get(name)
        if here is None:
            return Field("unknown")
        if here is mappings.DYNAMIC:
            return Field("trait" if at + 1 < len(names) else "object")
        if here is mappings.KEPT:
            return Field("kept")
        if here.get("type") == "flattened":
            return Field("flattened")
        if "properties" not in here:
            known = here["type"] in ("keyword", "date", "double", "boolean") and at + 1 == len(names)
            return Field(here["type"] if known else "unknown")
        fields = here["properties"]
    return Field("object")


def compiled(kind: Kind, where: Where) -> Dsl:
    """Raises ``BadInput`` 422 for what this store can't answer."""
    match where:
        case And(terms):
            return {"bool": {"filter": [compiled(kind, term) for term in terms]}}
        case Or(terms):
            return {"bool": {"should": [compiled(kind, term) for term in terms], "minimum_should_match": 1}}
        case Not(term):
            return _not(compiled(kind, term))
        case Exists(path):
            return _exists(path, _searchable(kind, path))
        case Compare(path, op, value):
            return _compare(path, _searchable(kind, path), op, value)


def _compare(path: str, field: Field, op: str, value: Value) -> Dsl:
    if op == "!=":
        return _not(_compare(path, field, "=", value))
    if value is None:
        return _not(_exists(path, field)) if op == "=" else NONE
    if isinstance(value, bool) and op != "=":
        return NONE
    match field.type:
        case "keyword":
            return _text(path, op, value) if isinstance(value, str) else NONE
        case "date":
            return _date(path, op, value) if isinstance(value, str) else NONE
        case "double":
            return NONE if isinstance(value, bool | str) else _number(path, op, value)
        case "boolean":
            return {"term": {path: value}} if isinstance(value, bool) else NONE
        case "flattened":
            return _flattened(path, op, value)
        case "trait":
            return _trait(path, op, value)
    return NONE


def _text(path: str, op: str, value: str) -> Dsl:
    if op == "=":
        return {"term": {path: value}}
    if op == "prefix":
        return {"prefix": {path: value}}
    return {"range": {path: {_RANGES[op]: value}}}


def _number(path: str, op: str, value: int | float) -> Dsl:
    if op == "=":
        return {"term": {path: value}}
    return {"range": {path: {_RANGES[op]: value}}} if op in _RANGES else NONE


def _date(path: str, op: str, value: str) -> Dsl:
    if op == "prefix":
        raise BadInput(422, f"{path} is a date: compare it with >= and <, not by its beginning")
    normal = dates.normal(value)
    if normal is None:
        if op == "=":
            return NONE
        raise BadInput(422, f"{path} is a date, and {value[:40]!r} is not one")
    at_ms = dates.floor_ms(normal)
    bounds = {"gte": at_ms, "lte": at_ms} if op == "=" else {_RANGES[op]: at_ms}
    return {"range": {path: {**bounds, "format": "epoch_millis"}}}


def _flattened(path: str, op: str, value: str | int | float) -> Dsl:
    if isinstance(value, str):
        return _text(path, op, value)
    if op != "=":
        raise BadInput(422, f"{path} can be compared as text only here; numbers in order need a typed field or a trait")
    if isinstance(value, bool):
        return {"term": {path: "true" if value else "false"}}
    return {"terms": {path: sorted(_spellings(value))}}


def _spellings(value: int | float) -> set[str]:
    """How a document may have written the number."""
    found = {repr(value)}
    if value == int(value) and len(str(int(value))) <= _DIGITS_MAX:
        found |= {str(int(value)), f"{int(value)}.0"}
    return found


def _trait(path: str, op: str, value: str | int | float) -> Dsl:
    if op == "=":
        # lenient: a text is equal to no number, where a term query would be an error.
        return {"match": {path: {"query": value, "lenient": True}}}
    return _text(path, op, value) if isinstance(value, str) else _number(path, op, value)


def _exists(path: str, field: Field) -> Dsl:
    return NONE if field.type == "unknown" else {"exists": {"field": path}}


def _not(query: Dsl) -> Dsl:
    return {"bool": {"must_not": [query]}}


def _searchable(kind: Kind, path: str) -> Field:
    field = field_of(kind, path)
    if field.type == "kept":
        raise BadInput(422, f"{path} is kept, and can't be searched")
    return field
