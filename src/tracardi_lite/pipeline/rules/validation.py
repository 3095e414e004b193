"""Is an event as it should be? JSON Schema over its parts; what is not is kept, marked, and mapped nowhere.

Schemas are compiled by jsonschema-rs (ARCHITECTURE.md says why that one), which is loaded with the first rule that
needs it. Drafts 4 to 2020-12, by ``$schema``; 2020-12 without one. ``format`` says and does not check, as drafts have
it since 2019-09 and as the original has it.

Bounds: references are never fetched; regular expressions run in linear time (no look-around, no back-references), in
at most ``REGEX_BYTES`` of automaton; at most ``FAULTS_MAX`` faults are told, in ``TEXT_MAX`` characters, and values are
left out of them, since a compliance rule may be about to take them away.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any

from msgspec import Struct

from tracardi_lite.pipeline import paths
from tracardi_lite.pipeline.rules.condition import Condition, compiled
from tracardi_lite.pipeline.rules.fault import RuleFault
from tracardi_lite.pipeline.rules.view import PARTS, View
from tracardi_lite.ports.registry import Rule

if TYPE_CHECKING:
    from jsonschema_rs import ValidatorMap  # noqa: F401 - documents which library is meant

REGEX_BYTES = 1 << 20
FAULTS_MAX = 3
TEXT_MAX = 500
MASK = "the value"


class Spec(Struct, forbid_unknown_fields=True):
    json_schema: dict[str, Any]
    """``event@properties``, ``event@properties.a.b``, ``event@context``, ``payload@context`` … → a JSON Schema."""


class _Part(Struct, frozen=True):
    name: str
    """As the rule has it."""
    of_payload: bool
    root: str
    path: paths.Path
    validator: Any


class Validation:
    """A compiled rule."""

    def __init__(self, rule: Rule, spec: Spec) -> None:
        if not spec.json_schema:
            raise RuleFault(("spec", "json_schema"), 'there is no schema; expected {"event@properties": {…}}')
        self.rule = rule
        self.condition: Condition | None = compiled(rule.condition)
        self._parts = [_part(name, schema) for name, schema in spec.json_schema.items()]

    def fault(self, view: View) -> str | None:
        """What is wrong with an event, for people; None if nothing is."""
        for part in self._parts:
            if part.of_payload:
                value: Any = view.of_payload(part.root)
            elif not view.readable(part.root):
                return f"{part.name} can't be read"
            else:
                value = view.part(part.root)
            value = paths.get(value, part.path)
            if value is paths.MISSING:
                return f"{part.name} is missing"
            if not part.validator.is_valid(value):
                return _told(part, value)
        return None


def _part(name: str, schema: Any) -> _Part:
    where = ("spec", "json_schema", name)
    root, at, rest = name.partition("@")
    first, _, below = rest.partition(".")
    allowed = {"event": PARTS, "payload": ("context", "properties")}.get(root, ())
    if not at or first not in allowed:
        text = "expected event@properties, event@context, event@config, payload@context or payload@properties"
        raise RuleFault(where, f"{text}, with a path below it or not")
    try:
        path = paths.split(below) if below or rest.endswith(".") else ()
    except ValueError as error:
        raise RuleFault(where, str(error)) from error
    return _Part(name, root == "payload", first, path, _validator(where, schema))


def _validator(where: tuple[str, ...], schema: Any) -> Any:
    # 14 MB of library that a process without such a rule never maps.
    import jsonschema_rs

    try:
        return jsonschema_rs.validator_for(
            schema,
            offline=True,
            mask=MASK,
            validate_formats=False,
            pattern_options=jsonschema_rs.RegexOptions(size_limit=REGEX_BYTES, dfa_size_limit=REGEX_BYTES),
        )
    except jsonschema_rs.ValidationError as error:
        path: Sequence[str | int] = error.instance_path
        text = error.message
        if 'is not a "regex"' in text:
            text = "not a regular expression, or one with look-around or back-references, which have no bound"
        raise RuleFault((*where, *path), text.replace(MASK, "it")[:TEXT_MAX]) from error
    except (ValueError, TypeError, jsonschema_rs.ReferencingError) as error:
        raise RuleFault(where, str(error)[:TEXT_MAX]) from error


def _told(part: _Part, value: Any) -> str:
    faults = []
    for error in islice(part.validator.iter_errors(value), FAULTS_MAX):
        place = ".".join((part.name, *map(str, error.instance_path)))
        faults.append(f"{place}: {error.message}")
    return "; ".join(faults)[:TEXT_MAX] or f"{part.name} is not as its schema says"
