"""Identification points (§4.7): events that tell who somebody is, by a property that need not stand in the profile.

A sign-in with a customer's number makes that number's merge key (docs/merging.md) the profile's own; whoever has the
key already is the same person. ``anonymous``: so are profiles that list it without having been identified by it.
"""

from __future__ import annotations

from typing import Any

from msgspec import Struct

from tracardi_lite.pipeline.merging.keys import normal, prefix_of
from tracardi_lite.pipeline.paths import get, split
from tracardi_lite.pipeline.rules.condition import compiled
from tracardi_lite.pipeline.rules.fault import RuleFault
from tracardi_lite.ports.registry import Rule


class Spec(Struct, forbid_unknown_fields=True):
    fields: dict[str, str]
    """Properties path → merge key, by its prefix (``emm-``) or the profile's field (``data.contact.email.main``)."""
    anonymous: bool = False


class Point(Struct, frozen=True):
    """A key that an event has told."""

    prefix: str
    value: str
    why: str
    """For the history of a merge."""
    anonymous: bool


class Identification:
    """A compiled rule."""

    def __init__(self, rule: Rule, spec: Spec) -> None:
        self.rule = rule
        self.condition = compiled(rule.condition, derived=True)
        if not spec.fields:
            raise RuleFault(("spec", "fields"), "there is no field to identify by")
        self._fields = []
        for source, key in spec.fields.items():
            try:
                self._fields.append((split(source), prefix_of(key)))
            except ValueError as error:
                raise RuleFault(("spec", "fields", source), str(error)) from error
        self._anonymous = spec.anonymous
        self._why = f"identification: {rule.name or rule.id}"

    def points(self, properties: dict[str, Any]) -> list[Point]:
        """What the event's properties tell; [] when nothing identifies anybody."""
        found = ((prefix, normal(get(properties, path))) for path, prefix in self._fields)
        return [Point(prefix, value, self._why, self._anonymous) for prefix, value in found if value]
