"""The session record: made at the first hit, touched by every later message (docs/records.md).

Pure: times are ms since the epoch, contexts and properties are decoded JSON of any shape. What a browser tells of
itself is taken once, at the first hit; later hits fill in only a missing place or campaign.

A visit is a stretch of a session without a long pause. It is over when the client says ``visit-ended`` or after
``CLOSE_VISIT_AFTER`` seconds of silence; the next hit begins the session's next visit.

Bounds: context and properties keep about ``values.FREE_MAX`` characters of JSON each, however many messages come.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tracardi_lite.pipeline import context as contexts
from tracardi_lite.pipeline.paths import get
from tracardi_lite.pipeline.values import free, iso, parse_time

STARTED = "started"
ACTIVE = "active"
ENDED = "ended"

Session = dict[str, Any]


def new_session(
    id: str,
    *,
    profile: str | None,
    at_ms: int,
    ip: str | None = None,
    headers: Mapping[str, str] | None = None,
    channel: str = "",
    context: object = None,
    properties: object = None,
    metadata: object = None,
) -> Session:
    """The record of a session whose first message was received at ``at_ms``.

    ``context``, ``properties`` and ``metadata`` are the payload's, the session's own ``metadata`` giving default times.
    """
    headers = headers or {}
    parts = contexts.visitor(context, headers, ip)
    kept = free(context) if type(context) is dict else {}
    for taken in ("utm", "location"):
        # They stand in their typed places; a copy here would only differ from them later.
        if parts["utm"] if taken == "utm" else parts["device"]["geo"]:
            kept.pop(taken, None)
    kept["ip"] = ip
    kept["language"], kept["language_codes"] = contexts.languages(headers)
    times = client_times(metadata)
    insert_ms = times.get("insert", at_ms)
    return {
        "id": id,
        "profile": {"id": profile} if profile else None,
        "metadata": {
            "time": {
                "insert": iso(insert_ms),
                "create": iso(times.get("create", insert_ms)),
                "update": iso(times.get("update", at_ms)),
                "timestamp": insert_ms / 1000,
                "duration": max(0, at_ms - insert_ms) / 1000,
                # Day 0 of the epoch was a Thursday.
                "weekday": (insert_ms // 86_400_000 + 3) % 7,
            },
            "channel": channel,
            "aux": {"visits": 1},
            "status": STARTED,
            "system": {"aux": {"applied": {}}},
        },
        **parts,
        "context": kept,
        "properties": free(properties) if type(properties) is dict else {},
        "traits": {},
        "aux": {},
    }


def visit_starts(session: Session | None, at_ms: int, close_after_s: float) -> bool:
    """Whether a message received at ``at_ms`` begins a visit: a new session, an ended one, or one long silent."""
    if session is None:
        return True
    metadata = session["metadata"]
    if metadata["status"] == ENDED:
        return True
    update_ms = parse_time(metadata["time"]["update"])
    return update_ms is not None and at_ms - update_ms > close_after_s * 1000


def touch_session(
    session: Session,
    at_ms: int,
    *,
    context: object = None,
    properties: object = None,
    starts_visit: bool = False,
    ends_visit: bool = False,
) -> None:
    """Take a later message into the session, in place. ``ends_visit``: it holds a ``visit-ended``."""
    metadata = session["metadata"]
    time = metadata["time"]
    update_ms = max(at_ms, parse_time(time["update"]) or at_ms)
    time["update"] = iso(update_ms)
    time["duration"] = max(0.0, round(update_ms / 1000 - time["timestamp"], 3))
    if starts_visit:
        metadata["aux"]["visits"] = metadata["aux"].get("visits", 0) + 1
    metadata["status"] = ENDED if ends_visit else STARTED if starts_visit else ACTIVE
    if not session["device"].get("geo") and (place := contexts.geo(context)):
        session["device"]["geo"] = place
    if not session["utm"] and (campaign := contexts.utm(context)):
        session["utm"] = campaign
    if type(properties) is dict and properties:
        # What was there first keeps its room when there is too much.
        session["properties"] = free({**session["properties"], **properties})


def visits(session: Session) -> int:
    """How many visits the session has had, this one included; with the session's id, it names one visit for ever."""
    count = session["metadata"]["aux"].get("visits", 1)
    return count if type(count) is int else 1


def session_event_part(session: Session) -> dict[str, Any]:
    """What each of the session's events carries of it: ``session``, ``device``, ``os``, ``app``, ``utm``.

    Shares values with the session: encode it before the session changes.
    """
    time = session["metadata"]["time"]
    zone = get(session["context"], ("time", "tz"))
    return {
        "session": {
            "id": session["id"],
            "start": time["insert"],
            "duration": time["duration"],
            "tz": zone if type(zone) is str else None,
        },
        "device": session["device"],
        "os": session["os"],
        "app": session["app"],
        "utm": session["utm"],
    }


def client_times(metadata: object) -> dict[str, int]:
    """The client's ``insert``, ``create`` and ``update`` for a new record, in ms: ``{…}`` or ``{"time": {…}}``."""
    inner = get(metadata, ("time",))
    source = inner if type(inner) is dict else metadata
    found = {key: parse_time(get(source, (key,))) for key in ("insert", "create", "update")}
    return {key: value for key, value in found.items() if value is not None}
