"""All rules of an installation, compiled, found by an event's type and source.

A type that no rule touches costs a dictionary miss, once per spelling (``events.TypeBook`` remembers it). A stored rule
that can't be compiled is left out and told of; the others act.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TypeAlias

import msgspec
from msgspec import Struct

from tracardi_lite.pipeline.event_types import normalise_type
from tracardi_lite.pipeline.rules import compliance, identification, reshaping, to_profile, traits, validation
from tracardi_lite.pipeline.rules.compliance import Compliance
from tracardi_lite.pipeline.rules.fault import RuleFault
from tracardi_lite.pipeline.rules.identification import Identification
from tracardi_lite.pipeline.rules.reshaping import Reshaping
from tracardi_lite.pipeline.rules.to_profile import ToProfile
from tracardi_lite.pipeline.rules.traits import TraitsMapping
from tracardi_lite.pipeline.rules.validation import Validation
from tracardi_lite.ports.registry import RULE_KINDS, Rule

ALL = "*"

Compiled: TypeAlias = Validation | Reshaping | TraitsMapping | ToProfile | Identification | Compliance


class Switches(Struct, frozen=True):
    """Which kinds act: the settings ENABLE_EVENT_VALIDATION, ENABLE_EVENT_RESHAPING, ENABLE_EVENT_MAPPING and
    ENABLE_IDENTIFICATION_POINT."""

    validation: bool = True
    reshaping: bool = True
    mapping: bool = True
    identification: bool = True

    def off(self, kind: str) -> str:
        """The setting that turns a kind off; "" if it is on."""
        if kind == "validation":
            return "" if self.validation else "ENABLE_EVENT_VALIDATION"
        if kind == "reshaping":
            return "" if self.reshaping else "ENABLE_EVENT_RESHAPING"
        if kind in ("mapping", "to-profile"):
            return "" if self.mapping else "ENABLE_EVENT_MAPPING"
        if kind == "identification":
            return "" if self.identification else "ENABLE_IDENTIFICATION_POINT"
        return ""


class Chosen(Struct, frozen=True):
    """The rules of one type and source, each kind in its order."""

    validations: tuple[Validation, ...] = ()
    reshapings: tuple[Reshaping, ...] = ()
    traits: tuple[TraitsMapping, ...] = ()
    to_profile: tuple[ToProfile, ...] = ()
    identification: tuple[Identification, ...] = ()
    compliance: tuple[Compliance, ...] = ()


class TypeRules:
    """The rules of one type, by source."""

    def __init__(self, rules: list[Compiled]) -> None:
        everywhere = [each for each in rules if not each.rule.source]
        self._everywhere = _chosen(everywhere) if everywhere else None
        self._by_source = {
            source: _chosen([each for each in rules if each.rule.source in ("", source)])
            for source in {each.rule.source for each in rules if each.rule.source}
        }

    def of(self, source: str) -> Chosen | None:
        """None when no rule touches this type of this source."""
        return self._by_source.get(source, self._everywhere)


class RuleSet:
    """Compiled rules. Immutable; ``of`` may be asked from anywhere."""

    def __init__(self, rules: Iterable[Compiled] = (), broken: Iterable[tuple[Rule, RuleFault]] = ()) -> None:
        self.rules = sorted(rules, key=lambda each: (each.rule.order, each.rule.name, each.rule.id))
        self.broken = list(broken)
        self.empty = not self.rules
        self.guards_consents = any(isinstance(each, Compliance) for each in self.rules)
        """Whether anything depends on what the customer has consented to."""
        typed = {event_type(each.rule) for each in self.rules} - {ALL}
        self._by_type = {
            type: TypeRules([e for e in self.rules if event_type(e.rule) in (type, ALL)]) for type in typed
        }
        general = [each for each in self.rules if event_type(each.rule) == ALL]
        self._of_all = TypeRules(general) if general else None

    def of(self, type: str) -> TypeRules | None:
        """``type`` as it is stored, normalised. None when no rule touches it."""
        return self._by_type.get(type, self._of_all)


NO_RULES = RuleSet()


def event_type(rule: Rule) -> str:
    """The type that a rule is for, as types are stored; ``ALL`` for all of them."""
    return normalise_type(rule.event_type) or ALL


def _chosen(rules: list[Compiled]) -> Chosen:
    return Chosen(
        validations=tuple(each for each in rules if isinstance(each, Validation)),
        reshapings=tuple(each for each in rules if isinstance(each, Reshaping)),
        traits=tuple(each for each in rules if isinstance(each, TraitsMapping)),
        to_profile=tuple(each for each in rules if isinstance(each, ToProfile)),
        identification=tuple(each for each in rules if isinstance(each, Identification)),
        compliance=tuple(each for each in rules if isinstance(each, Compliance)),
    )


def compile_rule(rule: Rule, key: bytes = b"") -> Compiled:
    """A rule ready to act. Raises ``RuleFault``, with the place of what is wrong. ``key``: of compliance's hashes."""
    maker = _MAKERS.get(rule.kind)
    if maker is None:
        raise RuleFault(("kind",), f"expected one of {', '.join(RULE_KINDS)}")
    try:
        return maker(rule, key)
    except msgspec.ValidationError as error:
        # msgspec's text ends with where: "Expected `str`, got `int` - at `$.ops[0].to`".
        message, _, path = str(error).partition(" - at `$")
        where = [step for step in path.strip("`.").replace("[", ".").replace("]", "").split(".") if step]
        raise RuleFault(("spec", *(int(step) if step.isdigit() else step for step in where)), message) from error


def compile_rules(rules: Iterable[Rule], key: bytes = b"", switches: Switches | None = None) -> RuleSet:
    """The rules that are enabled and of a kind that is switched on. What can't be compiled stands in ``broken``."""
    switches = switches or Switches()
    compiled: list[Compiled] = []
    broken: list[tuple[Rule, RuleFault]] = []
    for rule in rules:
        if not rule.enabled or switches.off(rule.kind):
            continue
        try:
            compiled.append(compile_rule(rule, key))
        except RuleFault as fault:
            broken.append((rule, fault))
    return RuleSet(compiled, broken)


_MAKERS: dict[str, Callable[[Rule, bytes], Compiled]] = {
    "validation": lambda rule, key: Validation(rule, msgspec.convert(rule.spec, validation.Spec)),
    "reshaping": lambda rule, key: Reshaping(rule, msgspec.convert(rule.spec, reshaping.Spec)),
    "mapping": lambda rule, key: TraitsMapping(rule, msgspec.convert(rule.spec, traits.Spec)),
    "to-profile": lambda rule, key: ToProfile(rule, msgspec.convert(rule.spec, to_profile.Spec)),
    "identification": lambda rule, key: Identification(rule, msgspec.convert(rule.spec, identification.Spec)),
    "compliance": lambda rule, key: Compliance(rule, msgspec.convert(rule.spec, compliance.Spec), key),
}
