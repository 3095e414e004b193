"""Dotted paths into JSON documents: ``data.contact.email.main``.

A path is split once, when the rule that holds it is loaded; on the hot path it is a tuple of keys. Only objects are
walked: an array or a scalar on the way is "not there" for reading and a refusal for writing, never an exception.
"""

from __future__ import annotations

from typing import Any, Final

Path = tuple[str, ...]


class _Missing:
    def __repr__(self) -> str:
        return "MISSING"


MISSING: Final[Any] = _Missing()
"""What ``get`` answers when nothing is there, as null is a value of its own."""


def split(path: str) -> Path:
    """The keys of a dotted path. Raises ValueError for an empty path or an empty key."""
    keys = tuple(path.split("."))
    if not all(keys):
        raise ValueError(f"not a dotted path: {path!r}")
    return keys


def join(path: Path) -> str:
    return ".".join(path)


def get(document: object, path: Path) -> Any:
    """What stands at ``path``, or ``MISSING``."""
    for key in path:
        if type(document) is not dict or key not in document:
            return MISSING
        document = document[key]
    return document


def put(document: dict[str, Any], path: Path, value: object) -> bool:
    """Set ``path``, making objects on the way (null gives way to one). False, and no change, if a scalar or an array
    bars it."""
    here = document
    for key in path[:-1]:
        inner = here.get(key)
        if inner is None:
            # Nothing below exists yet, so nothing can bar the rest of the way.
            inner = here[key] = {}
        elif type(inner) is not dict:
            return False
        here = inner
    here[path[-1]] = value
    return True


def remove(document: dict[str, Any], path: Path) -> bool:
    """Take ``path`` away; False if it was not there. Objects left empty stay."""
    parent = get(document, path[:-1])
    if type(parent) is not dict or path[-1] not in parent:
        return False
    del parent[path[-1]]
    return True
