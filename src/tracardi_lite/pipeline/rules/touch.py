"""One event led through the rules that touch it: what is to be stored of it, and what it means for its profile.

``touched`` looks at the event as it was sent (validation, reshaping); it comes before anything is looked up.
``complete`` needs the customer's consents and makes the record's parts; ``fold`` and ``comply`` are what the event then
does to its profile. All are total: a rule that fails over an event leaves a warning on it, and one that guards data
fails by taking the data away.

``Trace`` is for the dry run; on the hot path it is None.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ParamSpec, TypeVar

import msgspec
import structlog
from msgspec import Raw, Struct, field

from tracardi_lite.pipeline.event_types import EventType
from tracardi_lite.pipeline.mapping import apply_to_profile, map_event
from tracardi_lite.pipeline.paths import join
from tracardi_lite.pipeline.rules.compliance import Compliance
from tracardi_lite.pipeline.rules.condition import Condition
from tracardi_lite.pipeline.rules.consents import Standing, given_consents, of_consents
from tracardi_lite.pipeline.rules.identification import Point
from tracardi_lite.pipeline.rules.ruleset import Chosen, Compiled
from tracardi_lite.pipeline.rules.traits import merged
from tracardi_lite.pipeline.rules.view import View, decoded, encoded
from tracardi_lite.ports.registry import Rule

T = TypeVar("T")
U = TypeVar("U")
P = ParamSpec("P")
log = structlog.get_logger(__name__)

_encode = msgspec.json.Encoder().encode
_decode_parts = msgspec.json.Decoder(dict[str, Raw]).decode

_NOT_HELD = "its condition does not hold"
_NOT_THERE = "found nothing to act on in properties and context"
_IS_INVALID = "the event is invalid, so it is mapped nowhere"


class Invalid(Struct, frozen=True):
    """Why an event is invalid; stands in its ``metadata.aux.invalid``."""

    rule: str
    message: str


class Step(Struct, frozen=True):
    """What one rule did, or why it did nothing."""

    rule: Rule
    matched: bool
    why: str = ""


class Trace:
    """What the rules did to one event, in order."""

    def __init__(self) -> None:
        self.steps: list[Step] = []

    def say(self, each: Compiled, matched: bool, why: str = "") -> None:
        self.steps.append(Step(each.rule, matched, why))


class Touch(Struct):
    """An event under its rules."""

    rules: Chosen
    view: View
    trace: Trace | None = None
    invalid: Invalid | None = None
    session: dict[str, Any] | None = None
    """The context that a new session gets in place of the call's; None: as it was sent."""
    warnings: list[str] = field(default_factory=list)
    # After ``complete``.
    parts: dict[str, Any] = field(default_factory=dict)
    """``traits``, ``data``, ``hit``, ``device``, ``aux``: whichever mapping has filled."""
    tags: list[str] = field(default_factory=list)
    """To be added to the event's own, or its type's."""
    journey: str = ""
    points: list[Point] = field(default_factory=list)
    """Whom it tells that its customer is, after ``fold``."""
    late: list[Compliance] = field(default_factory=list)
    """Whose fields of the record remain to be looked at, when it is whole."""
    given: frozenset[str] = frozenset()
    """The consents that the event was judged by."""

    @property
    def valid(self) -> bool:
        return self.invalid is None


def touched(rules: Chosen, view: View, trace: Trace | None = None) -> Touch:
    """Validate what was sent, then reshape it. An invalid event is reshaped too: it is stored like any other."""
    touch = Touch(rules, view, trace)
    if rules.validations:
        document = view.document()
        for validation in rules.validations:
            if not _applies(touch, validation, validation.condition, document):
                continue
            if touch.invalid is not None:
                _note(touch, validation, False, "an earlier rule has found the event invalid")
                continue
            message = _guarded(touch, validation, None, validation.fault, view)
            if message is not None:
                touch.invalid = Invalid(validation.rule.id, message)
            _note(touch, validation, True, message or "valid")
    if rules.reshapings:
        document, done = view.document(), False
        for reshaping in rules.reshapings:
            if done:
                _note(touch, reshaping, False, "an earlier rule has reshaped the event")
            elif _applies(touch, reshaping, reshaping.condition, document):
                made = _guarded(touch, reshaping, None, reshaping.reshape, view)
                if made is not None:
                    touch.session, done = made.session, True
                    touch.warnings += made.warnings
                _note(touch, reshaping, made is not None, reshaping.does)
    return touch


def complete(touch: Touch, entry: EventType | None, given: frozenset[str]) -> None:
    """Take away what may not be kept, then map: by the type's own ``entry``, then by rules.

    ``given``: the ids of the customer's consents that hold.
    """
    view, rules = touch.view, touch.rules
    touch.given = given
    if rules.compliance:
        document = view.document()
        for compliance in rules.compliance:
            if not _applies(touch, compliance, compliance.condition, document):
                continue
            fields = _cleaned(touch, compliance)
            if compliance.late or compliance.profile:
                touch.late.append(compliance)
            _note(touch, compliance, True, f"acted on {', '.join(fields)}" if fields else _NOT_THERE)
    if touch.invalid is not None:
        unused: tuple[Compiled, ...] = (*rules.traits, *rules.to_profile, *rules.identification)
        for each in unused:
            _note(touch, each, False, _IS_INVALID)
        return
    if entry is not None and entry.copies:
        touch.parts = map_event(entry, view.part("properties"), touch.warnings)
    if rules.traits:
        document = view.document()
        for mapping in rules.traits:
            if not _applies(touch, mapping, mapping.condition, document):
                continue
            traits = _guarded(touch, mapping, None, mapping.traits, view.part("properties"), touch.warnings)
            if traits:
                touch.parts["traits"] = merged(touch.parts.get("traits", {}), traits)
            touch.tags += mapping.tags
            touch.journey = mapping.journey or touch.journey
            if touch.trace is not None:
                _note(touch, mapping, True, mapping.told(traits or {}))


def follow_consents(
    touch: Touch | None, entry: EventType | None, standing: Standing, event: dict[str, Any], at: float
) -> None:
    """Tell ``standing`` what an event says of consents, by its type's own ``entry`` and by rules."""
    if touch is not None and not touch.valid:
        return
    if entry is not None and (part := of_consents(entry)) is not None:
        standing.take(part, event, at)
    for each in touch.rules.to_profile if touch is not None else ():
        if each.consents is not None and (each.condition is None or each.condition.holds(standing.beside(event))):
            standing.take(each.consents, event, at)


def whole_event(touch: Touch, session_parts: dict[str, Any]) -> dict[str, Any]:
    """The event as conditions and operations see it when it meets the profile. ``session_parts``: device, os, app, …"""
    device = {**session_parts.get("device", {}), **touch.parts.get("device", {})}
    return {**touch.view.document(), **session_parts, **touch.parts, "device": device}


def warn_of_profile(touch: Touch, session_parts: dict[str, Any]) -> None:
    """Say on the event what of it will not fit the profile: once it is stored, it can't be told any more."""
    if touch.rules.to_profile and touch.valid:
        event = whole_event(touch, session_parts)
        for each in touch.rules.to_profile:
            _guarded(touch, each, None, each.warn, event, touch.warnings)


def censored(touch: Touch, record: bytes) -> bytes:
    """The event's record without what may not be kept of its other parts, of which only those named are decoded."""
    parts = _decode_parts(record)
    for compliance in touch.late:
        for each in compliance.late:
            root = each.path[0]
            if each.stands(touch.given) or root not in parts:
                continue
            value, _ = decoded(parts[root])
            cleaned = compliance.cleaned({root: value}, each)
            parts[root] = Raw(encoded(cleaned.get(root, {})))
    return _encode(parts)


def fold(
    profile: dict[str, Any],
    touch: Touch,
    entry: EventType | None,
    session_parts: dict[str, Any],
    at: float,
    event_id: str,
) -> None:
    """Do to ``profile``, in place, what the event's type and then the rules say; ``at`` as in ``apply_to_profile``.

    Judged in the order in which events are applied, so a condition sees the profile of that moment. An event that is
    applied again, to a newer record after a conflict, is judged again.
    """
    rules = touch.rules
    touch.points = []
    if not touch.valid or not ((entry is not None and entry.ops) or rules.to_profile or rules.identification):
        return
    event = whole_event(touch, session_parts)
    if entry is not None and entry.ops:
        apply_to_profile(profile, entry, event, at, event_id)
    for each in touch.rules.to_profile:
        matched, changed = _guarded(touch, each, (False, []), each.apply, profile, event, at, event_id)
        why = f"changed {', '.join(changed)}" if changed else "changed nothing"
        _note(touch, each, matched, why if matched else _NOT_HELD)
    for point in rules.identification:
        if _applies(touch, point, point.condition, event):
            found = _guarded(touch, point, [], point.points, touch.view.part("properties"))
            touch.points += found
            if touch.trace is not None:
                _note(touch, point, True, _told(found))


def comply(profile: dict[str, Any], touch: Touch, now: float, event_id: str) -> None:
    """Take away of the profile, in place, what may not be kept.

    The customer's consents are those that the profile has by then and that hold ``now``, in seconds since the epoch.
    """
    given = given_consents(profile.get("consents"), now)
    for compliance in touch.late:
        for each in compliance.profile:
            if each.stands(given):
                continue
            cleaned = compliance.cleaned(profile, each)
            if cleaned is not profile:
                # ``cleaned`` shares all but the way to the field; the record itself has to change.
                profile[each.path[0]] = cleaned[each.path[0]]
                profile["metadata"]["fields"][join(each.path)] = [now, event_id]


def _cleaned(touch: Touch, compliance: Compliance) -> list[str]:
    try:
        return compliance.clean(touch.view, touch.given, touch.warnings)
    except Exception:
        # Not a fault that is known. What the rule guards must not be stored for it.
        log.exception("rule_failed", kind=compliance.rule.kind, rule=compliance.rule.id)
        touch.warnings.append(f"compliance rule {compliance.rule.id} failed; properties and context were left out")
        touch.view.replace("properties", {})
        touch.view.replace("context", {})
        return ["event@properties", "event@context"]


def _applies(touch: Touch, each: Compiled, condition: Condition | None, document: dict[str, Any]) -> bool:
    # A condition that can't be judged is taken to hold where the rule guards something, and not to hold elsewhere.
    guards = isinstance(each, Compliance)
    if condition is None or _guarded(touch, each, guards, condition.holds, document):
        return True
    _note(touch, each, False, _NOT_HELD)
    return False


def _guarded(touch: Touch, each: Compiled, otherwise: U, act: Callable[P, T], *args: P.args, **_: P.kwargs) -> T | U:
    """``act(*args)``; an exception, which is a bug of ours, costs the event this rule and nothing else."""
    try:
        return act(*args, **_)
    except Exception:
        log.exception("rule_failed", kind=each.rule.kind, rule=each.rule.id)
        touch.warnings.append(f"{each.rule.kind} rule {each.rule.id} failed and was passed over")
        return otherwise


def _told(points: list[Point]) -> str:
    keys = ", ".join(point.prefix for point in points)
    return f"identifies the customer by {keys}" if keys else "the event has none of its fields"


def _note(touch: Touch, each: Compiled, matched: bool, why: str = "") -> None:
    if touch.trace is not None:
        touch.trace.say(each, matched, why)
