"""The event into the profile: the operations of event types (§4.6), as rules, by the same code.

A condition may ask for the profile as well, since it is judged in the order in which events are applied.
"""

from __future__ import annotations

from typing import Any

from msgspec import Struct

from tracardi_lite.pipeline.event_types import EventType, ProfileOp
from tracardi_lite.pipeline.mapping import apply_to_profile, unfit_operands
from tracardi_lite.pipeline.rules.condition import compiled
from tracardi_lite.pipeline.rules.consents import of_consents
from tracardi_lite.pipeline.rules.fault import RuleFault
from tracardi_lite.ports.registry import Rule


class Spec(Struct, forbid_unknown_fields=True):
    ops: list[str | ProfileOp]
    """As in an event type's ``profile``: docs/event-types.md."""


class ToProfile:
    """A compiled rule."""

    def __init__(self, rule: Rule, spec: Spec) -> None:
        self.rule = rule
        self.condition = compiled(rule.condition, derived=True, profile=True)
        if not spec.ops:
            raise RuleFault(("spec", "ops"), "there is no operation")
        for index, op in enumerate(spec.ops):
            try:
                _ = EventType(id=rule.id, profile=[op]).ops
            except ValueError as error:
                raise RuleFault(("spec", "ops", index), str(error)) from error
        self.entry = EventType(id=rule.id, profile=spec.ops)
        self.consents = of_consents(self.entry)
        """The part of it that changes what the customer has consented to; None if there is none."""

    def warn(self, event: dict[str, Any], warnings: list[str]) -> None:
        """Say what of the event will not fit the profile, while the event can still be told of it."""
        if self.condition is None or (not self.condition.asks_profile and self.condition.holds(event)):
            unfit_operands(self.entry, event, warnings)

    def apply(self, profile: dict[str, Any], event: dict[str, Any], at: float, event_id: str) -> tuple[bool, list[str]]:
        """Whether the rule applies, and the profile's paths that it has changed."""
        if self.condition is not None and not self.condition.holds({**event, "profile": profile}):
            return False, []
        return True, apply_to_profile(profile, self.entry, event, at, event_id)
