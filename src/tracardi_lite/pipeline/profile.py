"""The profile record: made when its id is claimed, changed by every message of its customer (docs/records.md).

Stored compactly: under ``data`` stands only what is known, since a profile is read and written for every flush that
touches it. ``expand`` shows the whole shape of the protocol, for people and for clients that expect every key.

Pure: times are ms since the epoch.
"""

from __future__ import annotations

from collections.abc import Iterable
from copy import deepcopy
from functools import cache
from typing import Any

from tracardi_lite.pipeline import fields
from tracardi_lite.pipeline.paths import MISSING, get, put, split
from tracardi_lite.pipeline.session import client_times
from tracardi_lite.pipeline.values import iso, short_text

IDS_MAX = 1000
"""Most ids that a profile lists; later ones are still found through the directory."""
_CONTINENTS = frozenset(
    {"Africa", "America", "Antarctica", "Asia", "Atlantic", "Australia", "Europe", "Indian", "Pacific"}
)
_CONTACTS = ("email", "phone", "app")

Profile = dict[str, Any]


def new_profile(id: str, at_ms: int, *, ids: Iterable[object] = (), metadata: object = None) -> Profile:
    """The record of a profile first seen at ``at_ms``. ``ids`` and ``metadata`` are the client's, of any shape."""
    times = client_times(metadata)
    insert_ms = times.get("insert", at_ms)
    profile: Profile = {
        "id": id,
        "primary_id": None,
        "ids": [id],
        "metadata": {
            "time": {
                "insert": iso(insert_ms),
                "create": iso(times.get("create", insert_ms)),
                "update": iso(times.get("update", at_ms)),
                "visit": {"last": None, "current": None, "count": 0, "tz": None},
            },
            "aux": {},
            "status": None,
            "fields": {},
            "system": {"integrations": {}, "aux": {"applied": {}}},
        },
        "stats": {"visits": 0, "views": 0, "counters": {"events": 0}},
        "traits": {},
        "segments": [],
        "interests": {},
        "consents": {},
        "active": True,
        "aux": {},
        "data": {"anonymous": True},
    }
    add_ids(profile, ids)
    return profile


def add_ids(profile: Profile, ids: Iterable[object]) -> bool:
    """List further ids of the same customer; whether any was new. Anything but short strings is passed over."""
    known = profile["ids"]
    before = len(known)
    if isinstance(ids, str):
        ids = (ids,)
    for id in ids:
        if (
            type(id) is str
            and id.strip()
            and short_text(id) is not MISSING
            and id not in known
            and len(known) < IDS_MAX
        ):
            known.append(id.strip())
    return len(known) > before


def visit(profile: Profile, at_ms: int, tz: str | None) -> None:
    """A visit has begun: the current one becomes the last one, and the counts grow."""
    time = profile["metadata"]["time"]["visit"]
    time["last"], time["current"] = time["current"], iso(at_ms)
    time["count"] += 1
    time["tz"] = tz or time["tz"]
    profile["stats"]["visits"] += 1
    if tz and (continent := tz.split("/", 1)[0]) in _CONTINENTS:
        put(profile, ("aux", "geo", "continent"), continent)


def visit_count(profile: Profile) -> int:
    """How many visits there have been; decides the journey state of ``by-visit`` event types."""
    count: int = profile["metadata"]["time"]["visit"]["count"]
    return count


def take_place(profile: Profile, place: dict[str, Any], at: float, event_id: str) -> bool:
    """Remember where a call says that the customer's device is; whether that is news. {}: it does not say. ``at`` in
    seconds since the epoch."""
    if not place or get(profile, ("data", "devices", "last", "geo")) == place:
        return False
    put(profile, ("data", "devices", "last", "geo"), place)
    profile["metadata"]["fields"]["data.devices.last.geo"] = [at, event_id]
    return True


def count_events(profile: Profile, types: Iterable[str]) -> None:
    """Count stored events, given the type of each: ``stats.counters.events``, and ``stats.views`` for page views."""
    stats = profile["stats"]
    events = views = 0
    for type in types:
        events += 1
        views += type == "page-view"
    stats["counters"]["events"] += events
    stats["views"] += views


def touch(profile: Profile, at_ms: int) -> None:
    """A message received at ``at_ms`` was applied. ISO times in UTC compare as text."""
    time = profile["metadata"]["time"]
    time["update"] = max(time["update"], iso(at_ms))


def refresh_derived(profile: Profile) -> None:
    """What follows from the rest: ``data.anonymous`` (no e-mail, telephone or messenger is known) and the share of
    check-outs that were completed, ``data.metrics.ltcop``."""
    data = profile["data"]
    contact = data.get("contact")
    data["anonymous"] = not (contact and any(_known(contact.get(part)) for part in _CONTACTS))
    metrics = data.get("metrics")
    if metrics and (started := metrics.get("ltcosc")):
        metrics["ltcop"] = round(metrics.get("ltcocc", 0) / started, 4)


def _known(value: object) -> bool:
    return any(_known(item) for item in value.values()) if type(value) is dict else value not in (None, "", [])


def expand(profile: Profile) -> Profile:
    """A copy with every field of the protocol present: null, or [] for lists, where nothing is known."""
    shown = dict(profile)
    shown["data"] = _overlay(_skeleton(), profile.get("data"))
    return shown


def _overlay(shape: Any, known: Any) -> Any:
    if type(shape) is not dict or type(known) is not dict:
        return deepcopy(shape) if known is None else known
    return {
        **{key: _overlay(inner, known.get(key)) for key, inner in shape.items()},
        **{key: value for key, value in known.items() if key not in shape},
    }


@cache
def _skeleton() -> dict[str, Any]:
    shape: dict[str, Any] = {"anonymous": True}
    empty: dict[str, Any] = {"texts": [], "object": {}, "geo": {}}
    for name, kind in fields.leaves("profile"):
        path = split(name)
        if path[0] == "data":
            put(shape, path[1:], empty.get(kind))
    return shape
