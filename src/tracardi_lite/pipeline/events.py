"""Event records (docs/records.md), assembled as bytes from slices of the body as it came.

What all events of a message share (source, session, profile, device, request, most of the metadata) is encoded once per
message, what all events of a type share once per type; per event its id, times and the raw properties, context and
options are glued between (``event_parts``). Anything that came from outside and is not a raw slice (already checked
JSON) goes through the encoder, so that a record is valid JSON whatever was sent.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import UNSET, Raw

from tracardi_lite.pipeline import context as contexts
from tracardi_lite.pipeline.event_parts import decode_object, mapped, plain_parts, raw_part, touched_parts
from tracardi_lite.pipeline.paths import MISSING
from tracardi_lite.pipeline.rules.consents import Standing, of_consents
from tracardi_lite.pipeline.rules.touch import (
    Touch,
    censored,
    complete,
    follow_consents,
    touched,
    warn_of_profile,
    whole_event,
)
from tracardi_lite.pipeline.rules.view import View
from tracardi_lite.pipeline.session import Session, session_event_part
from tracardi_lite.pipeline.type_book import Facts, TypeBook
from tracardi_lite.pipeline.values import free_object, iso, parse_time, written_time
from tracardi_lite.pipeline.work import Item, Shared, Work
from tracardi_lite.ports.store import EventWrite
from tracardi_lite.protocol import ids
from tracardi_lite.protocol.payload import EventIn, EventOptions

ID_LENGTH_MAX = 256
"""Characters of a client's event id that is kept; Elasticsearch takes 512 bytes. Longer ones are replaced."""
ID_BYTES_MAX = 512

encode = msgspec.json.Encoder().encode
_decode_options = msgspec.json.Decoder(EventOptions).decode


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


def look(work: Work, book: TypeBook) -> None:
    """Take the message's events through the rules that look at what was sent: ``work.touches``. To be done once, before
    anything is looked up."""
    if book.rules.empty:
        return
    head, payload = work.incoming.head, work.incoming.payload
    touches = {}
    for index in work.incoming.indices:
        event = payload.events[index]
        facts = book[event.type]
        rules = facts.rules.of(head.source) if facts.rules is not None else None
        if rules is not None:
            touches[index] = touched(rules, View(facts.type, event, payload, head))
    work.touches = touches or None


def build(work: Work, book: TypeBook, shared: Shared, standing: Standing | None = None) -> None:
    """Make the message's own events: ``work.items`` and ``work.repeated``.

    ``standing``: the consents of the message's profile so far, which its events move on; None where no rule asks for
    them.
    """
    head = work.incoming.head
    events = work.incoming.payload.events
    save = work.saves_events
    items = work.items
    touches = work.touches
    derived = ids.event_ids(head.id)
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
            id = derived(index)
            quoted = b'"%b"' % id.encode()
        options = raw_part(event.options)
        item = Item(index, facts.type, id, None)
        items.append(item)
        if touches is not None and (touch := touches.get(index)) is not None:
            item.touch = touch
            complete(touch, facts.entry, standing.given(shared.received_ms / 1000) if standing else frozenset())
            warn_of_profile(touch, {"device": shared.device})
        if standing is not None:
            _follow(standing, event, facts, item.touch, shared)
        if save and not (b"saveEvent" in options and _decode_options(options).save_event is False):
            item.write = _write(event, id, quoted, foreign, facts, options, shared, item.touch)


def _write(
    event: EventIn,
    id: str,
    quoted: bytes,
    foreign: bool,
    facts: Facts,
    options: bytes,
    shared: Shared,
    touch: Touch | None = None,
) -> EventWrite:
    insert_ms = shared.received_ms
    times = shared.times
    if event.time is not None and (event.time.insert or event.time.create):
        insert_ms, times = _given_times(event, shared)
    parts = plain_parts(event, facts, shared) if touch is None else touched_parts(event, facts, shared, touch)
    doc = b"".join(
        (
            b'{"id":',
            quoted,
            facts.name,
            parts.meta_open,
            times,
            shared.meta_close,
            parts.validity,
            b"}",
            shared.source_part,
            shared.common,
            parts.device,
            b',"properties":',
            parts.properties,
            b',"context":',
            parts.context,
            b',"config":',
            options,
            parts.tags,
            parts.journey,
            b',"aux":',
            parts.aux,
            parts.derived,
            b"}",
        )
    )
    if touch is not None and touch.late:
        doc = censored(touch, doc)
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


def _follow(standing: Standing, event: EventIn, facts: Facts, touch: Touch | None, shared: Shared) -> None:
    """Let the consents that the profile's next events are judged by move on with this one."""
    if touch is not None:
        follow_consents(touch, facts.entry, standing, whole_event(touch, {}), shared.received_ms / 1000)
    elif facts.entry is not None and of_consents(facts.entry) is not None:
        follow_consents(None, facts.entry, standing, mapped(facts, event), shared.received_ms / 1000)


def _given_times(event: EventIn, shared: Shared) -> tuple[int, bytes]:
    """The client's insert and create; each stands in for nothing but itself."""
    assert event.time is not None
    insert_ms = parse_time(event.time.insert)
    insert_ms = shared.received_ms if insert_ms is None else insert_ms
    insert = iso(insert_ms)
    create = written_time(event.time.create) or insert
    return insert_ms, _times(insert.encode(), create.encode())


def _times(insert: bytes, create: bytes) -> bytes:
    return b'{"insert":"%b","create":"%b","update":null,"process_time":0,"total_time":0}' % (insert, create)


def _is_usable(id: str) -> bool:
    if len(id) > ID_LENGTH_MAX or not id or id.isspace():
        return False
    return id.isascii() or len(id.encode()) <= ID_BYTES_MAX


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
