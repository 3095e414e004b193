"""What may be kept without the customer's consent: fields of the event and the profile go, or become hashes, unless all
of the named consents are given.

A hash is an HMAC-SHA256 under the installation's own key (a plain hash of an e-mail address or a telephone number can
be looked up), the same in every process and for ever: ``h:`` and 43 characters. What is a hash already stays one.
Objects and lists are hashed value by value. Bound: ``DEPTH_MAX`` levels; what is deeper goes.

Of the event, properties and context change before anything is mapped; other parts (``metadata.ip``, ``device.geo`` …)
when the record is made.
"""

from __future__ import annotations

import hmac
import re
from base64 import urlsafe_b64encode
from collections.abc import Container
from typing import Any, Literal

from msgspec import Struct

from tracardi_lite.pipeline import paths
from tracardi_lite.pipeline.fields import kind_at
from tracardi_lite.pipeline.paths import MISSING, Path
from tracardi_lite.pipeline.rules.condition import compiled
from tracardi_lite.pipeline.rules.fault import RuleFault
from tracardi_lite.pipeline.rules.reshaping import without
from tracardi_lite.pipeline.rules.view import View
from tracardi_lite.pipeline.values import text
from tracardi_lite.ports.registry import Rule

DEPTH_MAX = 64
CONSENTS_MAX = 100
_HASHED = re.compile(r"h:[A-Za-z0-9_-]{43}", re.ASCII)

SENT = ("properties", "context")
"""Parts that are changed before mapping."""
_LATE = frozenset({"request", "config", "hit", "device", "os", "app", "utm", "data", "traits"})
# Where a text may stand for what was there: the others have types that an index insists on.
_LATE_HASHABLE = frozenset({"request", "config", "traits"})
_PROFILE = frozenset({"data", "traits", "aux", "interests"})

Action = Literal["remove", "hash", "nothing"]


class Setting(Struct, forbid_unknown_fields=True):
    field: str
    """``event@…`` or ``profile@…``."""
    action: Action
    consents: list[str] = []
    """Ids of consents, all of which are needed; none: the action is always taken."""


class Spec(Struct, forbid_unknown_fields=True):
    fields: list[Setting]


class Field(Struct, frozen=True):
    """A compiled setting."""

    name: str
    path: Path
    hashed: bool
    consents: frozenset[str]

    def stands(self, given: Container[str]) -> bool:
        """Whether it may stay as it is."""
        return bool(self.consents) and all(consent in given for consent in self.consents)


class Compliance:
    """A compiled rule."""

    def __init__(self, rule: Rule, spec: Spec, key: bytes) -> None:
        self.rule = rule
        self.condition = compiled(rule.condition)
        self._key = key
        if not spec.fields:
            raise RuleFault(("spec", "fields"), "there is no field")
        groups: dict[str, list[Field]] = {"sent": [], "late": [], "profile": []}
        for index, setting in enumerate(spec.fields):
            where = ("spec", "fields", index)
            if len(setting.consents) > CONSENTS_MAX:
                raise RuleFault((*where, "consents"), f"at most {CONSENTS_MAX}")
            root, _, name = setting.field.partition("@")
            try:
                path = paths.split(name)
                hashed = setting.action == "hash"
                group = {"event": _event_group, "profile": _profile_group}[root](path, hashed)
            except KeyError as error:
                raise RuleFault((*where, "field"), "expected event@… or profile@…") from error
            except ValueError as error:
                raise RuleFault((*where, "field"), str(error)) from error
            if setting.action != "nothing":
                made = Field(setting.field, path, hashed, frozenset(setting.consents))
                groups[group].append(made)
        self._sent = tuple(groups["sent"])
        self.late = tuple(groups["late"])
        """Fields of the event that change when its record is made."""
        self.profile = tuple(groups["profile"])

    def clean(self, view: View, given: Container[str], warnings: list[str]) -> list[str]:
        """Change properties and context; the fields that were acted on."""
        acted = []
        for field in self._sent:
            if field.stands(given):
                continue
            part = field.path[0]
            if not view.readable(part):
                # Nobody can tell whether the field is in it.
                view.replace(part, {})
                warnings.append(f"event@{part} can't be read; left out for {field.name}")
                acted.append(field.name)
                continue
            document = {part: view.part(part)}
            cleaned = self.cleaned(document, field)
            if cleaned is not document:
                view.replace(part, cleaned.get(part, {}))
                acted.append(field.name)
        return acted

    def cleaned(self, document: dict[str, Any], field: Field) -> dict[str, Any]:
        """The document after the action, a copy where it was changed; itself if the field is not there."""
        value = paths.get(document, field.path)
        if value is MISSING or value is None:
            return document
        if field.hashed:
            hashed = hashed_value(value, self._key)
            if hashed is not MISSING:
                return document if hashed == value else with_value(document, field.path, hashed)
        return without(document, field.path)


def _event_group(path: Path, hashed: bool) -> str:
    if path[0] in SENT:
        if hashed and len(path) == 1:
            raise ValueError(f"{path[0]!r} is an object of fields; name one of them")
        return "sent"
    if path == ("metadata", "ip") or path[0] in _LATE:
        if hashed and path[0] not in _LATE_HASHABLE:
            raise ValueError(f"{paths.join(path)!r} can be removed, not hashed: no text may stand there")
        if hashed and len(path) == 1:
            raise ValueError(f"{path[0]!r} is an object of fields; name one of them")
        return "late"
    known = ", ".join(sorted({*SENT, *_LATE, "metadata.ip"}))
    raise ValueError(f"no rule may change {paths.join(path)!r}; expected a path that begins with one of {known}")


def _profile_group(path: Path, hashed: bool) -> str:
    if path[0] not in _PROFILE or len(path) < 2:
        raise ValueError(f"expected a field below one of {', '.join(sorted(_PROFILE))}")
    kind = kind_at("profile", path)
    if hashed and kind not in ("text", "texts", "any", "scalar"):
        raise ValueError(f"{paths.join(path)!r} can be removed, not hashed: no text may stand there")
    return "profile"


def hashed_value(value: Any, key: bytes, depth: int = 0) -> Any:
    """``value`` with every scalar in it hashed; null stays. ``MISSING`` for what can't be."""
    if value is None:
        return None
    if type(value) in (dict, list):
        if depth >= DEPTH_MAX:
            return MISSING
        if type(value) is dict:
            fields = ((name, hashed_value(item, key, depth + 1)) for name, item in value.items())
            return {name: item for name, item in fields if item is not MISSING}
        return [item for item in (hashed_value(item, key, depth + 1) for item in value) if item is not MISSING]
    plain = text(value)
    if plain is MISSING:
        return MISSING
    return plain if _HASHED.fullmatch(plain) else hashed_text(plain, key)


def hashed_text(plain: str, key: bytes) -> str:
    digest = hmac.digest(key, plain.encode("utf-8", "surrogatepass"), "sha256")
    return "h:" + urlsafe_b64encode(digest).decode().rstrip("=")


def with_value(document: dict[str, Any], path: Path, value: Any) -> dict[str, Any]:
    """A copy that has ``value`` at a path that is there, sharing the rest."""
    if len(path) == 1:
        return {**document, path[0]: value}
    return {**document, path[0]: with_value(document[path[0]], path[1:], value)}
