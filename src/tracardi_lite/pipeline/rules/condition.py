"""When a rule applies: a where-text (docs/where.md) over the event.

A field is a path into the event, ``event@`` before it or not; ``profile@…``, where the profile may be asked, and
``profile@id``, ``session@id``, ``source.id``. What a condition asks for and the event does not have is simply not
there; the bounds are the language's own.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from tracardi_lite.errors import BadInput
from tracardi_lite.pipeline.rules.fault import RuleFault
from tracardi_lite.query import And, Compare, Exists, Not, Or, Where, matches
from tracardi_lite.query.parse import parse

SENT = frozenset({"type", "properties", "context", "config"})
"""What a client sends of an event: the same whenever it is looked at."""
DERIVED = frozenset({"traits", "data", "hit", "device", "os", "app", "utm"})
IDS = frozenset({"source.id", "session.id", "profile.id"})


class Condition:
    """A compiled condition. Equal texts over equal documents give equal answers."""

    def __init__(self, where: Where, asks_profile: bool) -> None:
        self._where = where
        self.asks_profile = asks_profile
        """Whether it needs the profile's record: it is asked when the profile is at hand, and not before."""

    def holds(self, document: Mapping[str, Any]) -> bool:
        return matches(self._where, document)


def compiled(text: str, *, derived: bool = False, profile: bool = False) -> Condition | None:
    """None for a blank text, which always holds.

    ``derived``: what mapping makes of the event may be asked; ``profile``: its profile's fields too. ``RuleFault``
    for a text that makes no sense, or asks for what is not known when the rule acts.
    """
    try:
        where = parse(text, rooted=True)
    except BadInput as error:
        detail = error.detail
        message = detail["message"] if isinstance(detail, dict) else str(detail)
        raise RuleFault(("condition",), str(message).removeprefix("where: ")) from error
    if where is None:
        return None
    asks_profile = False
    for field in fields(where):
        root = field.partition(".")[0]
        if field in IDS or root in SENT or (derived and root in DERIVED):
            continue
        if root == "profile" and profile:
            asks_profile = True
            continue
        if root == "profile":
            text = "the profile is not asked here, since what it holds depends on what was processed before"
            raise RuleFault(("condition",), f"{field!r}: {text}; profile@id may be")
        known = sorted(SENT | IDS | (DERIVED if derived else frozenset()))
        raise RuleFault(("condition",), f"{field!r} is no field of an event; it begins with one of {', '.join(known)}")
    return Condition(where, asks_profile)


def fields(where: Where) -> Iterator[str]:
    """Every field that a clause names."""
    match where:
        case And(terms) | Or(terms):
            for term in terms:
                yield from fields(term)
        case Not(term):
            yield from fields(term)
        case Exists(field) | Compare(field):
            yield field
