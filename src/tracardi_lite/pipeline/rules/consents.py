"""Which consents a customer has given, event after event, while the profile itself is not yet changed.

The events of a batch are made before any of them is applied. A consent that one of them gives or takes back holds for
those after it all the same, so what the batch says of consents is applied to a copy as its events are made.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

from tracardi_lite.pipeline.event_types import EventType
from tracardi_lite.pipeline.mapping import apply_to_profile
from tracardi_lite.pipeline.paths import split
from tracardi_lite.pipeline.values import parse_time

_FIELD = "consents"


class Standing:
    """The consents of one profile, as they are after each event of a batch."""

    def __init__(self, profile: dict[str, Any] | None) -> None:
        self._profile: dict[str, Any] = {**(profile or {}), "metadata": {}}
        self._profile[_FIELD] = dict(self._profile.get(_FIELD) or {})

    def given(self, at: float) -> frozenset[str]:
        return given_consents(self._profile.get(_FIELD), at)  # a rule may have deleted it

    def take(self, entry: EventType, event: dict[str, Any], at: float) -> None:
        """Apply what an event says of consents. ``entry``: see ``of_consents``."""
        apply_to_profile(self._profile, entry, event, at, "")

    def beside(self, event: dict[str, Any]) -> dict[str, Any]:
        """An event and its profile, as conditions are asked of them."""
        return {**event, "profile": self._profile}


def given_consents(consents: object, at: float) -> frozenset[str]:
    """The ids of those that hold at a time (seconds since the epoch): given, and not revoked before it."""
    if type(consents) is not dict:
        return frozenset()
    return frozenset(id for id, consent in consents.items() if not _revoked(consent, at))


def _revoked(consent: object, at: float) -> bool:
    if consent is None:
        return False
    if type(consent) is not dict:
        return True
    revoke = consent.get("revoke")
    if revoke is None:
        return False
    moment_ms = revoke if type(revoke) is int else parse_time(revoke)
    return moment_ms is None or moment_ms <= at * 1000


@lru_cache(maxsize=1024)
def of_consents(entry: EventType) -> EventType | None:
    """The part of an event type that changes consents; None if there is none."""
    ops = [op for op in entry.profile if split(op if isinstance(op, str) else op.to)[0] == _FIELD]
    return EventType(id=entry.id, profile=ops) if ops else None
