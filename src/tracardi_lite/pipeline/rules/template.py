"""Templates: objects in which strings such as ``event@properties.price`` stand for what is there in the event.

Other strings stand for themselves. What is not there becomes null. Values are taken whole, so a template can't change
what it reads.

Bound: what a template takes from an event is at most ``TAKEN_MAX`` bytes of JSON, however often it names a large thing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec

from tracardi_lite.pipeline import paths
from tracardi_lite.pipeline.rules.fault import RuleFault
from tracardi_lite.pipeline.rules.view import PARTS, View

TAKEN_MAX = 1 << 20
DEPTH_MAX = 32
_KNOWN = ("event", "payload", "session", "profile", "source")
# What the original's notation may name and what is not known, or not certain, when an event is reshaped.
_UNKNOWN = ("flow", "memory")

_encode = msgspec.json.Encoder().encode

Read = Callable[[View], Any]


class Filling:
    """One filling of one template: what it may still take, and what did not fit."""

    def __init__(self, view: View) -> None:
        self.view = view
        self.left = TAKEN_MAX
        self.warnings: list[str] = []

    def take(self, name: str, read: Read) -> Any:
        value = read(self.view)
        if value is paths.MISSING:
            return None
        if type(value) in (dict, list, str):
            try:
                size = len(value) if type(value) is str else len(_encode(value))
            except (OverflowError, ValueError, RecursionError):
                self.warnings.append(f"{name} can't be written again; left out")
                return None
            if size > self.left:
                self.warnings.append(f"{name} makes the event too large; left out")
                return None
            self.left -= size
        return value


Fill = Callable[[Filling], Any]


def compiled(where: tuple[str | int, ...], template: Any, depth: int = 0) -> Fill:
    """What fills the template. ``RuleFault`` for a reference to what there is not."""
    if depth > DEPTH_MAX:
        raise RuleFault(where, f"deeper than {DEPTH_MAX} levels")
    if type(template) is dict:
        fields = [(key, compiled((*where, key), item, depth + 1)) for key, item in template.items()]
        return lambda filling: {key: fill(filling) for key, fill in fields}
    if type(template) is list:
        items = [compiled((*where, index), item, depth + 1) for index, item in enumerate(template)]
        return lambda filling: [fill(filling) for fill in items]
    if type(template) is str:
        root, at, path = template.partition("@")
        if at and root in (*_KNOWN, *_UNKNOWN):
            read = reader(where, root, path)
            return lambda filling: filling.take(template, read)
    return lambda filling: template


def reader(where: tuple[str | int, ...], root: str, path: str) -> Read:
    """What reads ``root@path``."""
    first, _, below = path.partition(".")
    try:
        keys = paths.split(below) if below or path.endswith(".") else ()
    except ValueError as error:
        raise RuleFault(where, str(error)) from error
    if root == "event" and path == "type":
        return lambda view: view.type
    if root == "event" and first in PARTS:
        return lambda view: paths.get(view.part(first), keys)
    if root == "payload" and first in ("context", "properties"):
        return lambda view: paths.get(view.of_payload(first), keys)
    if root in ("session", "profile", "source") and path == "id":
        return lambda view: view.id(root)
    known = "event@type, event@properties…, event@context…, event@config…, payload@context…, payload@properties…"
    raise RuleFault(where, f"{root}@{path} is not known here; expected {known}, or the id of session, profile, source")
