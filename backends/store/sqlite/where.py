"""A where-clause as SQL over one file's ``record`` table. Values are always parameters, and so are paths.

The meaning is ``tracardi_lite.query.matches``, which a property test compares this with. Every term is true or false
and never NULL, so that NOT means what it says. Fields with a column of their own use it; the others go through SQLite's
JSON functions, some 5 µs per document. Two differences that those functions have are accepted: a text ends at a NUL
character, and an object's name that was sent with escapes (``"gr\\u00f6ße"``) is not found by its letters.
"""

from __future__ import annotations

from tracardi_lite.backends.store.sqlite.schema import Layout
from tracardi_lite.query import And, Compare, Exists, Not, Or, Where, dates

Sql = tuple[str, list[object]]

# json_each on a list gives its elements (their key is a number), on a single value that value (no key), on an object
# its members (their key is text), which are not what is compared.
_EACH = "EXISTS (SELECT 1 FROM json_each({doc}, ?) AS item WHERE typeof(item.key) <> 'text' AND {test})"

_COMPARABLE = "item.value"
for _old, _new in dates.REPLACEMENTS:
    _COMPARABLE = f"replace({_COMPARABLE}, '{_old}', '{_new}')"
_COMPARABLE = f"rtrim({_COMPARABLE}, '{dates.TRIMMED}')"


DOC = "CAST(record.doc AS TEXT)"
VALID_DOC = f"CASE WHEN json_valid({DOC}) THEN {DOC} END"
"""For a file in which a document is no JSON, which the JSON functions fail at: such a one has no fields then."""


def compiled(where: Where, layout: Layout, doc: str = DOC) -> Sql:
    match where:
        case And(terms):
            return _joined(" AND ", terms, layout, doc)
        case Or(terms):
            return _joined(" OR ", terms, layout, doc)
        case Not(term):
            sql, values = compiled(term, layout, doc)
            return f"NOT ({sql})", values
        case Exists(field):
            if field in layout.columns:
                return f"record.{layout.columns[field]} IS NOT NULL", []
            path = json_path(field)
            some = _EACH.format(doc=doc, test="item.type <> 'null'")
            return f"({some} OR coalesce(json_type({doc}, ?), 'null') = 'object')", [path, path]
        case Compare(field, "!=", value):
            return compiled(Not(Compare(field, "=", value)), layout, doc)
        case Compare(field, "=", None):
            return compiled(Not(Exists(field)), layout, doc)
        case Compare(field, "=" | "prefix", str()) if field in layout.columns:
            return _column(where, f"record.{layout.columns[field]}")
        case Compare(field) if field == layout.time and (at_ms := _whole_ms(where)) is not None:
            return f"record.at_ms {where.op} ?", [at_ms]
        case Compare(field):
            test, values = _item(where)
            return _EACH.format(doc=doc, test=test), [json_path(field), *values]


def json_path(field: str) -> str:
    """SQLite's path to a field. The parser lets no quotes into names, and a name with one has no path at all."""
    return "$" + "".join(f'."{name}"' for name in field.replace('"', "").split("."))


def _joined(word: str, terms: tuple[Where, ...], layout: Layout, doc: str) -> Sql:
    parts = [compiled(term, layout, doc) for term in terms]
    return "(" + word.join(sql for sql, _ in parts) + ")", [value for _, values in parts for value in values]


def _column(where: Compare, column: str) -> Sql:
    # IS is = that is false, not NULL, for NULL; it uses an index in the same way.
    if where.op == "=":
        return f"{column} IS ?", [where.value]
    return f"coalesce(substr({column}, 1, ?) = ?, 0)", [len(str(where.value)), where.value]


def _item(where: Compare) -> Sql:
    """The condition on one value of a field. Ordering of booleans, and of anything with null, holds for nothing."""
    match where.value:
        case bool():
            return ("item.type = ?", ["true" if where.value else "false"]) if where.op == "=" else ("0", [])
        case int() | float():
            if where.op == "prefix":
                return "0", []
            return f"(item.type IN ('integer', 'real') AND item.value {where.op} ?)", [where.value]
        case str() as text:
            if where.op == "prefix":
                return "(item.type = 'text' AND substr(item.value, 1, ?) = ?)", [len(text), text]
            date = dates.normal(text) if where.op != "=" else None
            if date is not None:
                return f"(item.type = 'text' AND {_COMPARABLE} {where.op} ?)", [dates.comparable(date)]
            return f"(item.type = 'text' AND item.value {where.op} ?)", [text]
    return "0", []


def _whole_ms(where: Compare) -> int | None:
    """The time that ``at_ms`` is compared with; None where milliseconds are too coarse, or no times are ordered."""
    if where.op in ("=", "prefix") or not isinstance(where.value, str):
        return None
    date = dates.normal(where.value)
    return None if date is None or len(date.partition(".")[2]) > 3 else dates.floor_ms(date)
