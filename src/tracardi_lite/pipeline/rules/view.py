"""One event as rules see it: decoded when the first rule asks, and encoded again only if a rule has changed it.

Not everything that a client may send can be held as Python values (a number beyond a double, half a surrogate pair).
Such a part is ``unreadable``: it is stored as it came, unless a rule that guards the customer's data concerns it.
"""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import UNSET, Raw, UnsetType

from tracardi_lite.pipeline.values import free
from tracardi_lite.protocol.envelope import Head
from tracardi_lite.protocol.payload import EventIn, Payload

_decode = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode

PARTS = ("properties", "context", "config")


class View:
    """``properties``, ``context`` and ``config`` of an event, with what the call says around them."""

    def __init__(self, type: str, event: EventIn, payload: Payload, head: Head) -> None:
        self.type = type
        self._payload = payload
        self._head = head
        self._raw = {"properties": event.properties, "context": event.context, "config": event.options}
        self._parts: dict[str, dict[str, Any]] = {}
        self._changed: set[str] = set()
        self.unreadable: set[str] = set()

    def part(self, name: str) -> dict[str, Any]:
        """A part as an object, {} for what is not there, null or unreadable. Not to be changed: see ``replace``."""
        known = self._parts.get(name)
        if known is None:
            known = self._parts[name] = self._decoded(name)
        return known

    def _decoded(self, name: str) -> dict[str, Any]:
        value, readable = decoded(self._raw[name])
        if not readable:
            self.unreadable.add(name)
        return value

    def readable(self, name: str) -> bool:
        self.part(name)
        return name not in self.unreadable

    def replace(self, name: str, value: dict[str, Any]) -> None:
        """What a part has become. ``value`` may share with what it was."""
        self._parts[name] = value
        self._changed.add(name)
        self.unreadable.discard(name)

    def raw(self, name: str) -> bytes:
        """A part as it is to be stored: the slice as it came, unless it was changed."""
        if name in self._changed:
            return encoded(self._parts[name])
        part = self._raw[name]
        if part is UNSET:
            return b"{}"
        raw = bytes(part)
        return b"{}" if raw == b"null" else raw

    def of_payload(self, name: str) -> dict[str, Any]:
        """``context`` or ``properties`` of the call, which are the session's."""
        key = f"payload.{name}"
        known = self._parts.get(key)
        if known is None:
            part = self._payload.context if name == "context" else self._payload.properties
            known = self._parts[key] = decoded(part)[0]
        return known

    def id(self, name: str) -> str | None:
        """Of the source, the session or the profile, as the door has answered it."""
        head = self._head
        return {"source": head.source, "session": head.session, "profile": head.profile}[name]

    def document(self) -> dict[str, Any]:
        """What a condition is asked of."""
        head = self._head
        return {
            "type": self.type,
            "properties": self.part("properties"),
            "context": self.part("context"),
            "config": self.part("config"),
            "source": {"id": head.source},
            "session": {"id": head.session},
            "profile": {"id": head.profile},
        }


def decoded(part: Raw | UnsetType) -> tuple[dict[str, Any], bool]:
    """A raw object as Python values, and whether that could be done."""
    if part is UNSET:
        return {}, True
    try:
        value = _decode(part)
    except (msgspec.DecodeError, RecursionError):
        return {}, False
    return (value if type(value) is dict else {}), True


def encoded(value: dict[str, Any]) -> bytes:
    """As JSON, whatever was decoded: a number that can be read and not written becomes the nearest that can."""
    try:
        return _encode(value)
    except (OverflowError, ValueError, RecursionError):
        fitted = free(value)
        return _encode(fitted if type(fitted) is dict else {})
