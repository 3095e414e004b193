"""What goes over the wire and what comes back: events, the tracker payload, receipts. Pure."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec
from msgspec import Raw, Struct, field


def new_id() -> str:
    """A time-ordered UUID (version 7, RFC 9562 §5.7): neighbours in time are neighbours in an index."""
    milliseconds = time.time_ns() // 1_000_000
    random = int.from_bytes(os.urandom(10)) & ~(0xF << 76) & ~(0b11 << 62)
    # An event is made in less time than it takes to make and print a UUID object.
    text = f"{milliseconds << 80 | 0x7 << 76 | 0b10 << 62 | random:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def _utc_now() -> datetime:
    return datetime.now(UTC)


class Times(Struct, frozen=True):
    """When it happened, by the sender's clock."""

    create: datetime = field(default_factory=_utc_now)


class Event(Struct, frozen=True, omit_defaults=True):
    """One event. Its id is made here, once, so that sending it again can never count it twice.

    Only for ``attempt`` it may be "": then the server makes one.
    """

    type: str
    properties: dict[str, Any] = {}
    id: str = field(default_factory=new_id)
    time: Times = field(default_factory=Times)
    context: dict[str, Any] = {}
    options: dict[str, Any] = {}
    """Tracardi's event options, such as ``saveEvent``."""
    tags: list[str] = []


class _Nameless(Struct, frozen=True, omit_defaults=True):
    """An event on its way to a server that gives it its id."""

    type: str
    properties: dict[str, Any]
    time: Times
    context: dict[str, Any] = {}
    options: dict[str, Any] = {}
    tags: list[str] = []


class EventError(Struct, frozen=True):
    """What the server says of an event that it did not take, while it took the others."""

    message: str
    reason: str | None = None
    """The server's word for it (``invalid``, ``too_large``), where it has one."""
    index: int | None = None
    """Its place in the call; None when the server does not say."""
    event_id: str | None = None


class Receipt(Struct, frozen=True, kw_only=True):
    """The answer to one call: durably queued, apart from the events in ``errors``."""

    status: int
    """200, 201, or 226: some events were refused."""
    event_ids: tuple[str, ...]
    """All that were sent, in order; "" where the server was to make one."""
    session_id: str | None
    profile_id: str | None
    """The profile that the events belong to: after a merge, the one that survives."""
    sent_profile_id: str | None = None
    task: str | None = None
    errors: tuple[EventError, ...] = ()
    warnings: tuple[str, ...] = ()
    attempts: int = 1
    answer: dict[str, Any] = {}
    """The whole answer, for what is not named here (``ux``, ``response``)."""

    @property
    def ok(self) -> bool:
        """Every event was taken."""
        return not self.errors

    @property
    def replaced(self) -> bool:
        """The profile id that was sent is not the profile's any more: keep ``profile_id`` from now on."""
        return self.sent_profile_id is not None and self.profile_id not in (None, self.sent_profile_id)


class NotAnAnswer(ValueError):
    """A success status whose body is not a collector's: something else answers at that address."""


_encoder = msgspec.json.Encoder()
_decode_event = msgspec.json.Decoder(Event).decode
_decode_any = msgspec.json.Decoder().decode


def encode_event(event: Event) -> bytes:
    """Encoded at once, so that a later change of the caller's dict is not sent. ``TypeError`` for what is not JSON."""
    if not event.type.strip():
        raise ValueError("an event needs a type")
    if not event.id:
        nameless = _Nameless(event.type, event.properties, event.time, event.context, event.options, event.tags)
        return _encoder.encode(nameless)
    return _encoder.encode(event)


def decode_event(item: bytes) -> Event:
    return _decode_event(item)


def encode_payload(
    *,
    source_id: str,
    session_id: str | None,
    profile_id: str | None,
    events: Sequence[bytes],
    context: Mapping[str, Any],
    options: Mapping[str, Any],
) -> bytes:
    """The body of ``POST /track``. Without a session id only if it is sent once: a call that the server has to make one
    for cannot be repeated safely."""
    return _encoder.encode(
        {
            "source": {"id": source_id},
            "session": None if session_id is None else {"id": session_id},
            "profile": None if profile_id is None else {"id": profile_id},
            "context": context,
            "options": options,
            "events": [Raw(event) for event in events],
        }
    )


def decode_receipt(status: int, body: bytes, *, event_ids: Sequence[str], sent: str | None, attempts: int) -> Receipt:
    """Raises ``NotAnAnswer``."""
    try:
        answer = _decode_any(body)
    except msgspec.DecodeError as error:
        raise NotAnAnswer(f"HTTP {status} without JSON") from error
    if not isinstance(answer, dict) or "profile" not in answer or "session" not in answer:
        raise NotAnAnswer(f"HTTP {status} without profile and session")
    task = answer.get("task")
    if isinstance(task, list):  # the commercial edition answers a list
        task = task[0] if task else None
    return Receipt(
        status=status,
        event_ids=tuple(event_ids),
        session_id=_id_of(answer["session"]),
        profile_id=_id_of(answer["profile"]),
        sent_profile_id=sent,
        task=task if isinstance(task, str) else None,
        errors=tuple(_error(entry, event_ids) for entry in _list(answer.get("errors"))),
        warnings=tuple(str(entry) for entry in _list(answer.get("warnings"))),
        attempts=attempts,
        answer=answer,
    )


def decode_detail(body: bytes) -> object:
    """Why a call was refused: ``detail`` of the answer, or the start of whatever came instead."""
    try:
        answer = _decode_any(body)
    except msgspec.DecodeError:
        return body[:200].decode(errors="replace")
    return answer.get("detail", answer) if isinstance(answer, dict) else answer


def _id_of(record: object) -> str | None:
    id = record.get("id") if isinstance(record, dict) else None
    return id if isinstance(id, str) else None


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _error(entry: object, event_ids: Sequence[str]) -> EventError:
    if not isinstance(entry, dict):
        return EventError(str(entry))
    index = entry.get("index")
    if not isinstance(index, int) or not 0 <= index < len(event_ids):
        index = None
    message = next((entry[key] for key in ("detail", "message", "msg") if entry.get(key)), entry)
    reason = entry.get("reason")
    return EventError(
        str(message),
        reason if isinstance(reason, str) else None,
        index,
        None if index is None else event_ids[index],
    )
