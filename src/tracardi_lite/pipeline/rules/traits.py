"""What an event says of itself, for searching and mapping: properties into its traits, tags, the journey's state.

A property's value is taken with the same bounds as any other free value of a record (``pipeline.values.free``). Tags
are added to those that the event has; of several journey states the last one holds.
"""

from __future__ import annotations

from typing import Any

from msgspec import Struct

from tracardi_lite.pipeline.event_types import EventType
from tracardi_lite.pipeline.mapping import map_event
from tracardi_lite.pipeline.rules.condition import compiled
from tracardi_lite.pipeline.rules.fault import RuleFault
from tracardi_lite.pipeline.values import TEXT_MAX
from tracardi_lite.ports.registry import Rule

TAGS_MAX = 100


class Spec(Struct, forbid_unknown_fields=True):
    traits: dict[str, str] = {}
    """Properties path → traits path."""
    tags: list[str] = []
    journey: str = ""


class TraitsMapping:
    """A compiled rule. ``tags`` and ``journey`` are added by who asks."""

    def __init__(self, rule: Rule, spec: Spec) -> None:
        self.rule = rule
        self.condition = compiled(rule.condition)
        self.tags = spec.tags
        self.journey = spec.journey
        if len(spec.tags) > TAGS_MAX or any(not tag.strip() or len(tag) > TEXT_MAX for tag in spec.tags):
            raise RuleFault(("spec", "tags"), f"at most {TAGS_MAX} tags of 1 to {TEXT_MAX} characters")
        if len(spec.journey) > TEXT_MAX:
            raise RuleFault(("spec", "journey"), f"at most {TEXT_MAX} characters")
        copies = {}
        for source, to in spec.traits.items():
            copies[source] = to if to.startswith("traits.") else f"traits.{to}"
            try:
                _ = EventType(id=rule.id, copy={source: copies[source]}).copies
            except ValueError as error:
                raise RuleFault(("spec", "traits", source), str(error)) from error
        if not (copies or spec.tags or spec.journey):
            raise RuleFault(("spec",), "nothing to map; expected traits, tags or a journey state")
        self._entry = EventType(id=rule.id, copy=copies)

    def told(self, traits: dict[str, Any]) -> str:
        """What it has done to an event from which it has made these traits; for people."""
        parts = [f"traits {', '.join(sorted(traits))}"] if traits else []
        parts += [f"tags {', '.join(self.tags)}"] if self.tags else []
        parts += [f"journey {self.journey}"] if self.journey else []
        return f"set {'; '.join(parts)}" if parts else "the event has none of its fields"

    def traits(self, properties: dict[str, Any], warnings: list[str]) -> dict[str, Any]:
        mapped: dict[str, Any] = map_event(self._entry, properties, warnings).get("traits", {})
        return mapped


def merged(into: dict[str, Any], more: dict[str, Any]) -> dict[str, Any]:
    """Both, the later one's values holding; objects are united."""
    united = dict(into)
    for key, item in more.items():
        known = united.get(key)
        united[key] = merged(known, item) if type(known) is dict and type(item) is dict else item
    return united
