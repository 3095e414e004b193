"""Which typed fields events and profiles have, read from ``data/fields.json``, and how values are made to fit them.

The tree there is the single list of what may stand under an event's ``data``, ``hit`` and ``device.geo`` and in a
profile: mappings into anything else are refused when they are loaded, as a strict index would refuse the record.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any, Literal

import msgspec

from tracardi_lite import data
from tracardi_lite.pipeline.paths import MISSING, Path, join
from tracardi_lite.pipeline.values import KINDS

RecordName = Literal["event", "profile"]
Coerce = Callable[[object], Any]
Tree = dict[str, Any]
"""Kinds by field name; objects with fields of their own are trees."""

# What may stand below a field that is itself an object of free keys.
_BELOW = {"object": "any", "numbers": "number", "consents": "any"}


@cache
def tree(record: RecordName) -> Tree:
    """The typed fields of a record, nested as they are in it. Do not change it."""
    trees: dict[str, Tree] = msgspec.json.decode(data.read("fields.json"))
    return trees[record]


def leaves(record: RecordName) -> Iterator[tuple[str, str]]:
    """Every (dotted path, kind), in the order of the file."""

    def walk(branch: Tree, above: Path) -> Iterator[tuple[str, str]]:
        for key, kind in branch.items():
            if isinstance(kind, dict):
                yield from walk(kind, (*above, key))
            else:
                yield join((*above, key)), kind

    return walk(tree(record), ())


def kind_at(record: RecordName, path: Path) -> str | Tree:
    """The kind of a field, or the tree of an object of fields. Raises ValueError, naming a near one, for neither."""
    here: str | Tree = tree(record)
    for key in path:
        if isinstance(here, str):
            if here not in _BELOW:
                raise ValueError(f"{join(path)!r} is below a {here}")
            here = _BELOW[here]
            if here == "any":
                return here
        elif key in here:
            here = here[key]
        else:
            near = difflib.get_close_matches(join(path), [name for name, _ in leaves(record)], n=1, cutoff=0.5)
            raise ValueError(
                f"no field {join(path)!r} in a {record}" + (f"; did you mean {near[0]!r}?" if near else "")
            )
    return here


def coercion(kind: str | Tree) -> Coerce:
    """What makes a value fit ``kind``; for a tree, an object of which the known fields are kept and fitted."""
    if isinstance(kind, str):
        return KINDS[kind]
    fields = {key: coercion(inner) for key, inner in kind.items()}

    def fit(value: object) -> Any:
        if type(value) is not dict:
            return MISSING
        fitted = {key: fits(value[key]) for key, fits in fields.items() if value.get(key) is not None}
        return {key: item for key, item in fitted.items() if item is not MISSING} or MISSING

    return fit
