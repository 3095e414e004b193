"""What clients send: the tracker payload of ``POST /track``, decoded once and no deeper than needed.

``properties``, ``context`` and the like stay ``msgspec.Raw``: slices of the body as it came, copied into the
stored record without being decoded, unless a rule asks for them. Field semantics: docs/protocol.md.
"""

from __future__ import annotations

from typing import Annotated

import msgspec
from msgspec import UNSET, Meta, Raw, Struct, UnsetType

TYPE_LENGTH_MAX = 256


class Ref(Struct):
    """``{"id": "…"}``; whatever else stands beside the id is ignored."""

    id: str


class Times(Struct):
    """Client-given times: ISO 8601 or ``YYYY-MM-DD hh:mm:ss``; naive means UTC. Checked by the door."""

    insert: str | None = None
    create: str | None = None
    update: str | None = None


class Metadata(Struct):
    time: Times | None = None


class RecordRef(Struct):
    """A session or a profile in a payload. A blank or missing id asks the server to make one."""

    id: str = ""
    ids: list[str] | None = None
    # Old clients send junk here (strings, Python reprs), so it is decoded leniently and only when needed.
    metadata: Raw | UnsetType = UNSET


class EventOptions(Struct, rename={"save_event": "saveEvent"}):
    """The event options that change what the server does; the whole object is stored as ``event.config``."""

    save_event: bool | None = None


class EventIn(Struct):
    """One event of a payload. The raw parts must be JSON objects or null; the door checks their first byte."""

    type: str
    id: str | None = None
    time: Times | None = None
    properties: Raw | UnsetType = UNSET
    options: Raw | UnsetType = UNSET
    context: Raw | UnsetType = UNSET
    tags: list[str] | None = None


class PayloadOptions(
    Struct,
    rename={
        "save_session": "saveSession",
        "save_events": "saveEvents",
        "save_profile": "saveProfile",
        "save_event": "saveEvent",
    },
):
    save_session: bool | None = None
    save_events: bool | None = None
    save_profile: bool | None = None
    save_event: bool | None = None
    debugger: bool | None = None
    queue: bool | None = None


class Call(Struct, kw_only=True):
    """A tracker payload but for its events: how deep those are decoded depends on who reads."""

    source: Ref
    session: RecordRef | None = None
    profile: RecordRef | None = None
    context: Raw | UnsetType = UNSET
    properties: Raw | UnsetType = UNSET
    request: Raw | UnsetType = UNSET
    options: PayloadOptions | None = None


class Payload(Call):
    """With events that keep their raw parts: a worker's view."""

    events: list[EventIn] = []


class LoosePayload(Call):
    """With events undecoded: the slow path, taken to find the bad event in a good call."""

    events: list[Raw] = []


class AnyObject(Struct):
    """A JSON object, whatever is in it: that it is one is checked, and nothing is kept."""


class EventGlance(Struct):
    """An event as the door looks at it: it has the right shape, and the body travels on as it came."""

    type: Annotated[str, Meta(min_length=1, max_length=TYPE_LENGTH_MAX)]
    id: str | None = None
    time: Times | None = None
    properties: AnyObject | UnsetType | None = UNSET
    options: AnyObject | UnsetType | None = UNSET
    context: AnyObject | UnsetType | None = UNSET
    tags: list[str] | None = None


class Glance(Call):
    """With events that were looked at only: the door's fast path, and nearly every call."""

    events: list[EventGlance] = []


decode_payload = msgspec.json.Decoder(Payload).decode
decode_loose = msgspec.json.Decoder(LoosePayload).decode
decode_glance = msgspec.json.Decoder(Glance).decode
decode_event = msgspec.json.Decoder(EventIn).decode
