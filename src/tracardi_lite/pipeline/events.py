"""Event records (docs/records.md), assembled as bytes from slices of the body as it came.

What all events of a message share (source, session, profile, device, request, most of the metadata) is encoded once per
message, what all events of a type share once per type; per event its id, times and the raw properties, context and
options are glued between. Properties are decoded only for types whose mapping asks for them, and a context only as far
as its page. Anything that came from outside and is not a raw slice (already checked JSON) goes through the encoder, so
that a record is valid JSON whatever was sent.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

from tracardi_lite.pipeline import context as contexts
from tracardi_lite.pipeline.event_types import BY_VISIT, EventType, EventTypes, event_name, normalise_type
from tracardi_lite.pipeline.mapping import map_event
from tracardi_lite.pipeline.paths import MISSING, get
from tracardi_lite.pipeline.session import Session, session_event_part
from tracardi_lite.pipeline.values import free_object, iso, parse_time, text
from tracardi_lite.pipeline.work import Item, Shared, Work
from tracardi_lite.ports.store import EventWrite
from tracardi_lite.protocol import ids
from tracardi_lite.protocol.payload import EventIn, EventOptions

ID_LENGTH_MAX = 256
"""Characters of a client's event id that is kept; Elasticsearch takes 512 bytes. Longer ones are replaced."""
ID_BYTES_MAX = 512
TYPES_MAX = 4096
"""Event types whose constant parts are kept; further ones are made each time."""
WARNINGS_MAX = 20
"""Mapping warnings that are written into one event."""

encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode
_decode_options = msgspec.json.Decoder(EventOptions).decode

_FINE = b',"valid":true,"error":false,"warning":false'
_WARNED = b',"valid":true,"error":false,"warning":true'
_NO_AUX = b"{}"


class _Page(Struct):
    page: Any = None


_decode_page = msgspec.json.Decoder(_Page).decode


class Facts(Struct, frozen=True):
    """What is the same for every event of a type."""

    type: str
    entry: EventType | None
    name: bytes
    """``,"name":…,"type":…``"""
    tags: bytes | None
    """None: the event's own."""
    maps: bool
    """Whether its properties have to be decoded."""


class TypeBook:
    """Facts by type as it was sent, kept for ``TYPES_MAX`` spellings."""

    def __init__(self, types: EventTypes) -> None:
        self._types = types
        self._facts: dict[str, Facts] = {}

    def __getitem__(self, sent: str) -> Facts:
        facts = self._facts.get(sent)
        if facts is None:
            facts = self._make(normalise_type(sent))
            if len(self._facts) < TYPES_MAX:
                self._facts[sent] = facts
        return facts

    def _make(self, type: str) -> Facts:
        entry = self._types.get(type)
        name = (entry.name if entry is not None else "") or event_name(type)
        return Facts(
            type=type,
            entry=entry,
            name=b',"name":%b,"type":%b' % (encode(name), encode(type)),
            tags=_tags(entry.tags) if entry is not None and entry.tags else None,
            maps=entry is not None and entry.needs_properties,
        )


def share(
    work: Work,
    *,
    session: Session | None,
    primary_id: str | None,
    visits: int,
    context: object,
    partition: str,
) -> Shared:
    """``session``: the record if it is saved. ``context``: the payload's, decoded; asked for only without one."""
    head = work.incoming.head
    if session is not None:
        parts = session_event_part(session)
        update = parts["session"]
        # The session's own record moves on when its events are accepted; theirs is the time so far.
        start_ms = session["metadata"]["time"]["timestamp"] * 1000
        update["duration"] = max(0.0, round((head.received_ms - start_ms) / 1000, 3))
    else:
        parts = {"session": None, **contexts.visitor(context, head.headers, head.ip)}
    device = parts.pop("device")
    profile = {"id": work.profile_id, "primary_id": primary_id} if work.profile_id is not None else None
    common = {**parts, "profile": profile, "request": _request(work)}
    received = iso(head.received_ms).encode()
    meta_close = encode(
        {
            "ip": head.ip,
            "status": "collected",
            "channel": head.channel,
            "processed_by": {"rules": [], "flows": [], "third_party": []},
            "profile_less": head.profile is None,
            "debug": False,
            "merge": False,
            "instance": {"id": head.instance},
        }
    )
    return Shared(
        message=head.id,
        received_ms=head.received_ms,
        partition=partition,
        source=head.source,
        session=work.session_id,
        profile=work.profile_id,
        visits=visits,
        source_part=b',"source":{"id":%b}' % encode(head.source),
        meta_open=b',"metadata":{"aux":{"message":%b},"time":' % encode(head.id),
        times=_times(received, received),
        meta_close=b"," + meta_close[1:-1],
        common=b"," + encode(common)[1:-1],
        device=device,
        device_part=b',"device":' + encode(device),
    )


def build(work: Work, book: TypeBook, shared: Shared) -> None:
    """Make the message's own events: ``work.items`` and ``work.repeated``."""
    head = work.incoming.head
    events = work.incoming.payload.events
    save = work.saves_events
    items = work.items
    seen: set[str] | None = None
    for index in work.incoming.indices:
        event = events[index]
        facts = book[event.type]
        id = event.id
        foreign = id is not None and _is_usable(id)
        if foreign:
            assert id is not None
            if seen is None:
                seen = set()
            elif id in seen:
                # The store can't tell it from a redelivery, since both come with this message.
                work.repeated += 1
                continue
            seen.add(id)
            quoted = encode(id)
        else:
            id = ids.event_id(head.id, index)
            quoted = b'"%b"' % id.encode()
        options = _raw(event.options)
        item = Item(index, facts.type, id, None)
        items.append(item)
        if save and not (b"saveEvent" in options and _decode_options(options).save_event is False):
            item.write = _write(event, id, quoted, foreign, facts, options, shared)


def _write(
    event: EventIn, id: str, quoted: bytes, foreign: bool, facts: Facts, options: bytes, shared: Shared
) -> EventWrite:
    insert_ms = shared.received_ms
    times = shared.times
    if event.time is not None and (event.time.insert or event.time.create):
        insert_ms, times = _given_times(event, shared)
    properties = _raw(event.properties)
    context = _raw(event.context)
    validity, aux, device, derived = _FINE, _NO_AUX, shared.device_part, b""
    if facts.maps or b'"page"' in context:
        validity, aux, device, derived = _derive(facts, properties, context, shared)
    tags = facts.tags
    if tags is None:
        tags = _tags(event.tags) if event.tags else _NO_TAGS
    doc = b"".join(
        (
            b'{"id":',
            quoted,
            facts.name,
            shared.meta_open,
            times,
            shared.meta_close,
            validity,
            b"}",
            shared.source_part,
            shared.common,
            device,
            b',"properties":',
            properties,
            b',"context":',
            context,
            b',"config":',
            options,
            tags,
            _journey(facts, shared.visits),
            b',"aux":',
            aux,
            derived or b',"traits":{},"hit":{},"data":{}',
            b"}",
        )
    )
    return EventWrite(
        id,
        shared.partition,
        doc,
        shared.message,
        facts.type,
        shared.source,
        shared.session,
        shared.profile,
        insert_ms,
        foreign,
    )


def mapped(facts: Facts, event: EventIn, warnings: list[str] | None = None) -> dict[str, Any]:
    """An event as its profile's rules see it: decoded properties and what the type derives from them."""
    properties = decode_object(event.properties)
    assert facts.entry is not None
    return {**map_event(facts.entry, properties, warnings), "properties": properties}


def decode_object(raw: Raw | UnsetType) -> Any:
    """A raw part as Python values; {} for what is not there, null, or can't be held (numbers beyond a double)."""
    try:
        return (_decode(raw) or {}) if raw is not UNSET else {}
    except (msgspec.DecodeError, RecursionError):
        return {}


def _derive(facts: Facts, properties: bytes, context: bytes, shared: Shared) -> tuple[bytes, bytes, bytes, bytes]:
    """(validity, aux, device, derived parts) of an event that has more than its raw parts."""
    warnings: list[str] = []
    parts: dict[str, Any] = {}
    if facts.maps:
        assert facts.entry is not None
        parts = map_event(facts.entry, decode_object(Raw(properties)), warnings)
    hit = _hit(context)
    hit.update(parts.get("hit", {}))
    device = shared.device_part
    if "device" in parts:
        device = b',"device":' + encode({**shared.device, **parts["device"]})
    aux = {**parts.get("aux", {}), "warnings": warnings[:WARNINGS_MAX]} if warnings else parts.get("aux", {})
    derived = {"traits": parts.get("traits", {}), "hit": hit, "data": parts.get("data", {})}
    return _WARNED if warnings else _FINE, encode(aux), device, b"," + encode(derived)[1:-1]


def _hit(context: bytes) -> dict[str, Any]:
    """What the tracker says of the page: ``context.page``."""
    if b'"page"' not in context:
        return {}
    try:
        page = _decode_page(context).page
    except (msgspec.DecodeError, RecursionError):
        return {}
    found = {
        "name": text(get(page, ("title",))),
        "url": text(get(page, ("url",))),
        "referer": text(get(page, ("referer", "host"))),
    }
    return {key: value for key, value in found.items() if value is not MISSING}


def _journey(facts: Facts, visits: int) -> bytes:
    entry = facts.entry
    if entry is None or not entry.state:
        return b',"journey":{"state":null}'
    if entry.state == BY_VISIT:
        return b',"journey":{"state":"awareness"}' if visits <= 1 else b',"journey":{"state":"consideration"}'
    return b',"journey":{"state":%b}' % encode(entry.state)


def _given_times(event: EventIn, shared: Shared) -> tuple[int, bytes]:
    """The client's insert and create; each stands in for nothing but itself."""
    assert event.time is not None
    insert_ms = parse_time(event.time.insert)
    create_ms = parse_time(event.time.create)
    insert_ms = shared.received_ms if insert_ms is None else insert_ms
    create_ms = insert_ms if create_ms is None else create_ms
    return insert_ms, _times(iso(insert_ms).encode(), iso(create_ms).encode())


def _times(insert: bytes, create: bytes) -> bytes:
    return b'{"insert":"%b","create":"%b","update":null,"process_time":0,"total_time":0}' % (insert, create)


def _tags(values: list[str]) -> bytes:
    return b',"tags":' + encode({"values": values, "count": len(values)})


_NO_TAGS = _tags([])


def _is_usable(id: str) -> bool:
    if len(id) > ID_LENGTH_MAX or not id or id.isspace():
        return False
    return id.isascii() or len(id.encode()) <= ID_BYTES_MAX


def _raw(part: Raw | UnsetType) -> bytes:
    """The slice as it came; {} for nothing and for null."""
    if part is UNSET:
        return b"{}"
    raw = bytes(part)
    return b"{}" if raw == b"null" else raw


def _request(work: Work) -> Mapping[str, Any]:
    """The payload's ``request`` with the headers that the door saw in place of its own."""
    request = work.incoming.payload.request
    headers = {"headers": work.incoming.head.headers}
    if request is UNSET:
        return headers
    sent = free_object(decode_object(request))
    return headers if sent is MISSING else {**sent, **headers}


def build_system(
    type: str, id: str, at_ms: int, properties: Mapping[str, Any], source: str, book: TypeBook, shared: Shared
) -> Item:
    """An event that the server adds to a message, of another source and time than the client's."""
    facts = book[type]
    at = iso(at_ms).encode()
    own = msgspec.structs.replace(
        shared,
        source=source,
        source_part=b',"source":{"id":%b}' % encode(source),
        received_ms=at_ms,
        times=_times(at, at),
    )
    event = EventIn(type=type, properties=Raw(encode(properties)))
    return Item(-1, facts.type, id, _write(event, id, encode(id), False, facts, b'{"async":true}', own))
