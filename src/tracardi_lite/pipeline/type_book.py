"""What is known of each event type: its entry, its rules, and the parts that all its events have, encoded once.

Bound: ``TYPES_MAX`` spellings are kept; further ones are made each time, so that made-up types can't fill the memory.
"""

from __future__ import annotations

import msgspec
from msgspec import Struct

from tracardi_lite.pipeline.event_types import EventType, EventTypes, event_name, normalise_type
from tracardi_lite.pipeline.rules.ruleset import NO_RULES, RuleSet, TypeRules

TYPES_MAX = 4096

encode = msgspec.json.Encoder().encode


class Facts(Struct, frozen=True):
    """What is the same for every event of a type."""

    type: str
    entry: EventType | None
    name: bytes
    """``,"name":…,"type":…``"""
    tags: bytes | None
    """None: the event's own."""
    maps: bool
    """Whether its properties have to be decoded."""
    rules: TypeRules | None
    """None when no rule touches the type."""


class TypeBook:
    """Facts by type as it was sent, kept for ``TYPES_MAX`` spellings."""

    def __init__(self, types: EventTypes, rules: RuleSet = NO_RULES) -> None:
        self._types = types
        self._facts: dict[str, Facts] = {}
        self.rules = rules

    def use(self, rules: RuleSet) -> None:
        """From now on these. Messages that were looked at keep the rules that they were looked at with."""
        self.rules, self._facts = rules, {}

    def __getitem__(self, sent: str) -> Facts:
        facts = self._facts.get(sent)
        if facts is None:
            facts = self._make(normalise_type(sent))
            if len(self._facts) < TYPES_MAX:
                self._facts[sent] = facts
        return facts

    def _make(self, type: str) -> Facts:
        entry = self._types.get(type)
        name = (entry.name if entry is not None else "") or event_name(type)
        return Facts(
            type=type,
            entry=entry,
            name=b',"name":%b,"type":%b' % (encode(name), encode(type)),
            tags=tags_part(entry.tags) if entry is not None and entry.tags else None,
            maps=entry is not None and entry.needs_properties,
            rules=self.rules.of(type),
        )


def tags_part(values: list[str]) -> bytes:
    return b',"tags":' + encode({"values": values, "count": len(values)})
