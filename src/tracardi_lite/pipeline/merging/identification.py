"""When an event tells who somebody is: which keys a profile gets from it, as the settings have it.

``IDENTIFICATION_EVENT_PROPERTY`` says which fields count. ``IDENTIFICATION_POINT_TYPE`` says which events do:

* ``any`` - any event that gives the profile a key.
* ``restricted`` - those of ``IDENTIFICATION_EVENT_TYPE`` alone. Profiles that came by the same value in another way
  stay apart.
* ``anonymous`` - the same, but then all profiles that have the value are merged, however they came by it.

Beside these, rules of the kind ``identification`` say it of single properties of events.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, Protocol

from msgspec import Struct

from tracardi_lite.errors import Misconfigured
from tracardi_lite.pipeline.event_types import normalise_type
from tracardi_lite.pipeline.merging.keys import MergeKeys, prefix_of
from tracardi_lite.pipeline.merging.strategies import Strategies, parse_strategies
from tracardi_lite.pipeline.profile import IDS_MAX
from tracardi_lite.settings import Settings

PRIMARY_BY_EVENTS = "data.identifier.pk"
"""The default of ``PRIMARY_ID``: what the event types put into ``primary_id`` by themselves."""


class Point(Protocol):
    """What a rule of the kind ``identification`` has read out of an event."""

    @property
    def prefix(self) -> str: ...
    @property
    def value(self) -> str: ...
    @property
    def why(self) -> str: ...
    @property
    def anonymous(self) -> bool: ...


class Found(Struct, frozen=True):
    """A key to be claimed."""

    why: str
    """The profile's field, or the rule."""
    anonymous: bool = False
    """Whoever lists it is the same person, identified by it or not."""


class Identification(Struct, frozen=True):
    """What of an applied event is to be claimed for its profile."""

    keys: MergeKeys
    point: Literal["any", "restricted", "anonymous"] = "any"
    types: frozenset[str] = frozenset()
    """Event types that identify, where ``point`` is not ``any``."""

    def gather(self, profile: dict[str, Any], found: dict[str, Found], type: str, points: Sequence[Point] = ()) -> None:
        """After an event of ``type`` was applied: list the profile's new keys in its ids, in place, and in ``found``,
        by hash, those that are to be claimed. ``points``: what rules have read out of the event."""
        self.keys.follow(profile)
        ids = profile["ids"]
        for point in points:
            if (key := self.keys.hash(point.prefix, point.value)) is not None:
                found[key] = Found(point.why, point.anonymous)
                _list(ids, key)
        identifies = self.point == "any" or type in self.types
        for key, name in self.keys.of(profile):
            is_new = _list(ids, key)
            # A listed key is a claimed one, unless events that don't identify list keys, too.
            if identifies and (is_new or self.point != "any"):
                found.setdefault(key, Found(name, self.point == "anonymous"))


def _list(ids: list[str], key: str) -> bool:
    """Whether it was not listed yet."""
    if key in ids:
        return False
    if len(ids) < IDS_MAX:
        ids.append(key)
    return True


class Merging(Struct, frozen=True):
    """The settings of merging, understood."""

    identification: Identification | None
    """None: APM=no."""
    strategies: Strategies


def merging_of(settings: Settings) -> Merging:
    """Raises ``Misconfigured`` naming the setting that can't be understood."""
    try:
        strategies = Strategies(parse_strategies(settings.merge_strategies))
    except ValueError as error:
        raise Misconfigured("merge_strategies", str(error)) from error
    prefixes = []
    for name in filter(None, (part.strip() for part in settings.identification_event_property.split(","))):
        try:
            prefixes.append(prefix_of(name))
        except ValueError as error:
            raise Misconfigured("identification_event_property", str(error)) from error
    types = frozenset(normalise_type(part) for part in settings.identification_event_type.split(",") if part.strip())
    if not settings.apm:
        return Merging(None, strategies)
    primary = (
        "" if settings.primary_id == PRIMARY_BY_EVENTS and not settings.primary_id_as_hash else settings.primary_id
    )
    try:
        keys = MergeKeys(
            settings.auto_profile_merging,
            prefixes,
            primary=primary,
            primary_as_hash=settings.primary_id_as_hash,
        )
    except ValueError as error:
        raise Misconfigured("primary_id", str(error)) from error
    return Merging(Identification(keys, settings.identification_point_type, types), strategies)
