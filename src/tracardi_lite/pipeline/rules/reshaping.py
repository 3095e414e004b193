"""Events in another shape: the first rule that fits makes the properties, the event's context or the session's anew.

``"-": ["a", "b.c"]`` among the properties takes these away: from what the template makes, or, if it makes nothing else,
from what was sent.
"""

from __future__ import annotations

from typing import Any

from msgspec import Struct

from tracardi_lite.pipeline import paths
from tracardi_lite.pipeline.rules import template
from tracardi_lite.pipeline.rules.condition import compiled
from tracardi_lite.pipeline.rules.fault import RuleFault
from tracardi_lite.pipeline.rules.view import View
from tracardi_lite.ports.registry import Rule

_REMOVE = "-"


class Spec(Struct, forbid_unknown_fields=True):
    properties: dict[str, Any] | None = None
    context: dict[str, Any] | None = None
    """The event's."""
    session: dict[str, Any] | None = None
    """The session's context: the call's, as it is taken into a new session."""


class Reshaped(Struct):
    session: dict[str, Any] | None
    warnings: list[str]


class Reshaping:
    """A compiled rule."""

    def __init__(self, rule: Rule, spec: Spec) -> None:
        self.rule = rule
        self.condition = compiled(rule.condition)
        properties = dict(spec.properties or {})
        self._removed = _removed(properties.pop(_REMOVE, []))
        self._properties = _filler("properties", properties)
        self._context = _filler("context", spec.context)
        self._session = _filler("session", spec.session)
        if not (self._removed or self._properties or self._context or self._session):
            raise RuleFault(("spec",), "nothing to reshape; expected templates for properties, context or session")
        made = {"properties": self._properties, "context": self._context, "the session's context": self._session}
        anew = [name for name, filler in made.items() if filler is not None]
        self.does = f"made {', '.join(anew)} anew" if anew else "took properties away"

    def reshape(self, view: View) -> Reshaped:
        """Changes the view; the session's new context, if the rule makes one."""
        filling = template.Filling(view)
        # All of them are read from the event as it came, so no part is replaced before the last one is filled.
        properties = self._properties(filling) if self._properties else None
        context = self._context(filling) if self._context else None
        session = self._session(filling) if self._session else None
        if properties is None and self._removed:
            if view.readable("properties"):
                properties = view.part("properties")
            else:
                filling.warnings.append("event@properties can't be read; nothing was removed")
        if properties is not None:
            for path in self._removed:
                properties = without(properties, path)
            view.replace("properties", properties)
        if context is not None:
            view.replace("context", context)
        return Reshaped(session, filling.warnings)


def _filler(name: str, made: dict[str, Any] | None) -> template.Fill | None:
    return template.compiled(("spec", name), made) if made else None


def _removed(names: object) -> list[paths.Path]:
    where = ("spec", "properties", _REMOVE)
    if type(names) is not list:
        raise RuleFault(where, "expected a list of properties to take away")
    found = []
    for index, name in enumerate(names):
        try:
            found.append(paths.split(name))
        except (ValueError, AttributeError) as error:
            raise RuleFault((*where, index), "expected a property's dotted path") from error
    return found


def without(document: dict[str, Any], path: paths.Path) -> dict[str, Any]:
    """A copy that lacks ``path``, sharing the rest; the document itself if it was not there."""
    key = path[0]
    if key not in document:
        return document
    if len(path) == 1:
        return {name: item for name, item in document.items() if name != key}
    inner = document[key]
    return {**document, key: without(inner, path[1:])} if type(inner) is dict else document
