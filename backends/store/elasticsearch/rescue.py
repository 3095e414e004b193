"""Documents that do not fit the mapping: what is to blame is moved into ``trash``, so that the record is kept. Pure.

A text where earlier events had a number, an object where there was a text, more trait names than an index takes,
nesting without end: Elasticsearch refuses the whole document for any of it. Step by step, trying after each, we move

1. the field that Elasticsearch names, e.g. ``traits.size``;
2. the whole part it is in, e.g. ``traits``;
3. every part that a client shapes, as text: what then remains is ours.

What was moved stands under ``trash`` at its old path and can be searched for there. An event says so by
``metadata.warning`` and a line in ``aux.warnings``. Duplicate keys, which JSON allows and Elasticsearch does not, go
away with the first step.
"""

from __future__ import annotations

import json
import re
from collections.abc import Container
from typing import Any

import msgspec
from msgspec import Raw

STEPS = 3

_OURS = frozenset(
    {"id", "name", "type", "metadata", "source", "session", "profile", "primary_id", "ids", "stats", "active", "trash"}
)
"""Parts that are never moved: the record would not be found, or not be itself, without them."""

_WARNINGS_MAX = 20
_DEPTH_MAX = 200
"""Deeper values are moved as text."""

_FIELD = re.compile(
    r"""(?:object\ mapping\ for|failed\ to\ parse\ field|failed\ to\ parse|object\ field|due\ to\ object\ field
    |for\ field|[Ff]lattened\ field|field\ name|object\ mapping|[Ff]ield)\ \[(?P<named>[^\]]+)\]
    |dynamic\ introduction\ of\ \[(?P<new>[^\]]+)\]\ within\ \[(?P<within>[^\]]+)\]""",
    re.VERBOSE,
)

_EMPTY = {b"{": Raw(b"{}"), b"[": Raw(b"[]")}

Fields = dict[str, Raw]
_decode_fields = msgspec.json.Decoder(Fields).decode
_encode = msgspec.json.Encoder().encode


def blamed(reason: str) -> str | None:
    """The path that Elasticsearch's reason names; None if it names none that a document could have."""
    for match in _FIELD.finditer(reason):
        if match["new"] is not None:
            return match["new"] if match["within"] == "_doc" else f"{match['within']}.{match['new']}"
        if match["named"] != "_doc" and not match["named"].startswith("_"):
            return match["named"]
    return None


def rescued(doc: bytes, reason: str, step: int, known: Container[str]) -> bytes | None:
    """The document with something moved aside; None when there is nothing left to move. ``step``: 1 … ``STEPS``.

    ``known`` are the parts that the index has: of one that is moved, an empty object or list stays, since whoever reads
    the record expects it.
    """
    try:
        fields = _decode_fields(doc)
    except msgspec.DecodeError:
        return None
    path = blamed(reason)
    top = path.split(".", 1)[0] if path else ""
    if step == 1 and path and "." in path and top in fields and top not in _OURS:
        moved = _move_leaf(fields, top, path.split(".")[1:], known)
    elif step <= 2:
        names = [top] if top in fields and top not in _OURS else ["traits"] if "traits" in fields else []
        moved = _move_whole(fields, names, known)
    else:
        moved = _move_as_text(fields, known)
    if not moved:
        return rescued(doc, reason, step + 1, known) if step < STEPS else None
    _warn(fields, moved)
    return _encode(fields)


def _move_leaf(fields: Fields, top: str, below: list[str], known: Container[str]) -> list[str]:
    value = _loads(fields[top])
    at = value
    for name in below[:-1]:
        at = at.get(name) if isinstance(at, dict) else None
    if not isinstance(at, dict) or below[-1] not in at:
        return _move_whole(fields, [top], known)
    leaf = at.pop(below[-1])
    for name in reversed(below):
        leaf = {name: leaf}
    _put_aside(fields, top, leaf)
    fields[top] = _dumps(value)
    return [".".join((top, *below))]


def _move_whole(fields: Fields, names: list[str], known: Container[str]) -> list[str]:
    for name in names:
        raw = fields.pop(name)
        _put_aside(fields, name, _loads(raw))
        _leave_empty(fields, name, raw, known)
    return names


def _move_as_text(fields: Fields, known: Container[str]) -> list[str]:
    names = [name for name in fields if name not in _OURS]
    parts = {name: fields.pop(name) for name in names}
    for name, raw in parts.items():
        _leave_empty(fields, name, raw, known)
    if "trash" in fields:
        # What earlier steps have put aside goes along: it may be what does not fit now.
        parts["trash"] = fields["trash"]
    texts = {name: bytes(raw).decode() for name, raw in parts.items()}
    fields["trash"] = _dumps({name: text for name, text in texts.items() if text not in ("{}", "[]", "null")})
    return names


def _leave_empty(fields: Fields, name: str, raw: Raw, known: Container[str]) -> None:
    if name in known and (empty := _EMPTY.get(bytes(raw)[:1])) is not None:
        fields[name] = empty


def _put_aside(fields: Fields, name: str, value: object) -> None:
    trash = _loads(fields["trash"]) if "trash" in fields else {}
    if not isinstance(trash, dict):
        trash = {"trash": trash}
    _merge(trash, {name: value})
    fields["trash"] = _dumps(trash)


def _merge(into: dict[str, Any], more: dict[str, Any]) -> None:
    for key, value in more.items():
        there = into.get(key)
        if isinstance(there, dict) and isinstance(value, dict):
            _merge(there, value)
        else:
            into[key] = value


def _warn(fields: Fields, moved: list[str]) -> None:
    """Only events have the flag and the list; other records say it by having a ``trash``."""
    metadata = _loads(fields.get("metadata", Raw(b"{}")))
    if not isinstance(metadata, dict) or "warning" not in metadata:
        return
    metadata["warning"] = True
    fields["metadata"] = _dumps(metadata)
    aux = _loads(fields.get("aux", Raw(b"{}")))
    if isinstance(aux, dict):
        warnings = aux.get("warnings")
        lines = list(warnings) if isinstance(warnings, list) else []
        lines += [f"{path} does not fit the index and was moved to trash" for path in moved]
        aux["warnings"] = lines[:_WARNINGS_MAX]
        fields["aux"] = _dumps(aux)


def _loads(raw: Raw) -> Any:
    """A value; as text where it can't be one (numbers of thousands of digits, nesting without end)."""
    text = bytes(raw).decode()
    try:
        value = json.loads(text)
        return value if _depth(value, _DEPTH_MAX) else text
    except (ValueError, RecursionError):
        return text


def _depth(value: object, left: int) -> bool:
    """Whether a value is at most ``left`` levels deep."""
    if isinstance(value, dict):
        return left > 0 and all(_depth(each, left - 1) for each in value.values())
    if isinstance(value, list):
        return left > 0 and all(_depth(each, left - 1) for each in value)
    return True


def _dumps(value: object) -> Raw:
    # Not msgspec's: it refuses whole numbers beyond 64 bits, which are fine here.
    return Raw(json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode())
