"""The parts of an event's record that differ from event to event of a message, encoded.

Properties are decoded only for types whose mapping asks for them, and a context only as far as its page. An event that
rules touch is made of what they have left of it; an invalid one is mapped nowhere.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

from tracardi_lite.pipeline.event_types import BY_VISIT
from tracardi_lite.pipeline.mapping import map_event
from tracardi_lite.pipeline.paths import MISSING, get
from tracardi_lite.pipeline.rules.touch import Touch
from tracardi_lite.pipeline.type_book import Facts, tags_part
from tracardi_lite.pipeline.values import text
from tracardi_lite.pipeline.work import Shared
from tracardi_lite.protocol.payload import EventIn

WARNINGS_MAX = 20
"""Mapping warnings that are written into one event."""

encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode

_FINE = b',"valid":true,"error":false,"warning":false'
_WARNED = b',"valid":true,"error":false,"warning":true'
_NO_AUX = b"{}"
_NO_DERIVED = b',"traits":{},"hit":{},"data":{}'
_NO_JOURNEY = b',"journey":{"state":null}'
_NO_TAGS = tags_part([])


class _Referer(Struct):
    host: Any = UNSET


class _Page(Struct):
    title: Any = UNSET
    url: Any = UNSET
    referer: _Referer | UnsetType | None = UNSET


class _Seen(Struct):
    page: _Page


class _SeenAnyhow(Struct):
    page: Any = None


_decode_seen = msgspec.json.Decoder(_Seen).decode
_decode_any = msgspec.json.Decoder(_SeenAnyhow).decode


class Parts(NamedTuple):
    """What differs from event to event of a message, encoded."""

    meta_open: bytes
    validity: bytes
    device: bytes
    properties: bytes
    context: bytes
    tags: bytes
    journey: bytes
    aux: bytes
    derived: bytes


def plain_parts(event: EventIn, facts: Facts, shared: Shared) -> Parts:
    """Of an event that no rule touches."""
    properties = raw_part(event.properties)
    context = raw_part(event.context)
    validity, aux, device, derived = _FINE, _NO_AUX, shared.device_part, _NO_DERIVED
    if facts.maps and facts.entry is not None and facts.entry.may_copy(properties):
        validity, aux, device, derived = _derive(facts, properties, context, shared)
    elif b'"page"' in context:
        derived = b',"traits":{},"hit":%b,"data":{}' % encode(_hit(context))
    tags = facts.tags
    if tags is None:
        tags = tags_part(event.tags) if event.tags else _NO_TAGS
    journey = _journey(facts, shared.visits)
    return Parts(shared.meta_open, validity, device, properties, context, tags, journey, aux, derived)


def touched_parts(event: EventIn, facts: Facts, shared: Shared, touch: Touch) -> Parts:
    """Of an event that went through rules: what they made of it. An invalid one is mapped nowhere."""
    properties, context = touch.view.raw("properties"), touch.view.raw("context")
    meta_open, journey = shared.meta_open, _NO_JOURNEY
    own = list(event.tags or ())
    if touch.invalid is not None:
        # Behind the message's id, within ``aux``.
        meta_open = b'%b,"invalid":%b},"time":' % (meta_open.removesuffix(b'},"time":'), encode(touch.invalid))
    else:
        own = facts.entry.tags if facts.entry is not None and facts.entry.tags else own
        journey = (
            b',"journey":{"state":%b}' % encode(touch.journey) if touch.journey else _journey(facts, shared.visits)
        )
    device = shared.device_part
    if "device" in touch.parts:
        device = b',"device":' + encode({**shared.device, **touch.parts["device"]})
    aux = touch.parts.get("aux", {})
    if touch.warnings:
        aux = {**aux, "warnings": touch.warnings[:WARNINGS_MAX]}
    derived = {
        "traits": touch.parts.get("traits", {}),
        "hit": {**_hit(context), **touch.parts.get("hit", {})},
        "data": touch.parts.get("data", {}),
    }
    validity = b',"valid":%b,"error":false,"warning":%b' % (
        b"true" if touch.valid else b"false",
        b"true" if touch.warnings else b"false",
    )
    tags = tags_part(list(dict.fromkeys((*own, *touch.tags))))
    return Parts(
        meta_open, validity, device, properties, context, tags, journey, encode(aux), b"," + encode(derived)[1:-1]
    )


def mapped(facts: Facts, event: EventIn, warnings: list[str] | None = None) -> dict[str, Any]:
    """An event as its profile's rules see it: decoded properties and what the type derives from them."""
    properties = decode_object(event.properties)
    assert facts.entry is not None
    return {**map_event(facts.entry, properties, warnings), "properties": properties}


def decode_object(raw: Raw | UnsetType | dict[str, Any]) -> Any:
    """A raw part as Python values; {} for what is not there, null, or can't be held (numbers beyond a double)."""
    if isinstance(raw, dict):
        return raw
    try:
        return (_decode(raw) or {}) if raw is not UNSET else {}
    except (msgspec.DecodeError, RecursionError):
        return {}


def _derive(facts: Facts, properties: bytes, context: bytes, shared: Shared) -> tuple[bytes, bytes, bytes, bytes]:
    """(validity, aux, device, derived parts) of an event whose type copies some of its properties."""
    warnings: list[str] = []
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
        page = _decode_seen(context).page
    except (msgspec.DecodeError, RecursionError):
        page = _page_of_another_shape(context)
    referer = page.referer.host if type(page.referer) is _Referer else UNSET
    hit = {}
    for name, value in (("name", page.title), ("url", page.url), ("referer", referer)):
        fitted = text(value)
        if fitted is not MISSING:
            hit[name] = fitted
    return hit


def _page_of_another_shape(context: bytes) -> _Page:
    """What can be told where something that should be an object is none."""
    try:
        page = _decode_any(context).page
    except (msgspec.DecodeError, RecursionError):
        return _Page()
    host = get(page, ("referer", "host"))
    return _Page(get(page, ("title",)), get(page, ("url",)), _Referer(host))


def _journey(facts: Facts, visits: int) -> bytes:
    entry = facts.entry
    if entry is None or not entry.state:
        return _NO_JOURNEY
    if entry.state == BY_VISIT:
        return b',"journey":{"state":"awareness"}' if visits <= 1 else b',"journey":{"state":"consideration"}'
    return b',"journey":{"state":%b}' % encode(entry.state)


def raw_part(part: Raw | UnsetType) -> bytes:
    """The slice as it came; {} for nothing and for null."""
    if part is UNSET:
        return b"{}"
    raw = bytes(part)
    return b"{}" if raw == b"null" else raw
