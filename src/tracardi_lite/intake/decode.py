"""From a request's body to a checked payload, decoding no deeper than admission needs.

The fast path decodes the whole call at once into typed structs. Only when that fails are events decoded one by one, to
find the bad ones: they are reported by index and the others go on. Errors name the place and never repeat the payload.
"""

from __future__ import annotations

import re
from datetime import datetime
from typing import Any

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

from tracardi_lite.errors import BadInput
from tracardi_lite.protocol.payload import (
    EventIn,
    LoosePayload,
    Payload,
    RecordRef,
    Times,
    decode_event,
    decode_loose,
    decode_payload,
)

# The original shows the whole list; a call with ten thousand bad events needs no ten thousand explanations.
ERRORS_SHOWN_MAX = 100
ID_LENGTH_MAX = 512
TYPE_LENGTH_MAX = 256

_OPEN_BRACE = 0x7B
_NULL = 0x6E  # the n of null


class EventError(Struct, frozen=True):
    """Why one event of a call was refused, as it stands in the answer's ``errors``."""

    index: int
    reason: str
    """``invalid`` or ``too_large``: also the ledger's name for it."""
    detail: str


class Decoded(Struct):
    payload: Payload
    """With every event, bad ones included; ``errors`` says which to pass over."""
    errors: list[EventError]


def decode(body: bytes, event_max: int) -> Decoded:
    """Decode and check a call. ``event_max`` bounds one event, in bytes.

    Raises BadInput 422 when the call as a whole can't be read, with details in the protocol's shape.
    """
    if not body.isascii():
        # msgspec passes over raw parts without looking at their encoding, and the store would choke on it later.
        try:
            body.decode()
        except UnicodeDecodeError as error:
            raise _invalid("json_invalid", f"JSON decode error: invalid UTF-8 at byte {error.start}") from error
    try:
        payload = decode_payload(body)
    except msgspec.ValidationError as error:
        return _decode_loosely(body, event_max, error)
    except msgspec.DecodeError as error:
        raise _invalid("json_invalid", f"JSON decode error: {error}") from error
    except RecursionError as error:
        raise _invalid("json_invalid", "JSON decode error: nested too deeply") from error
    _check_call(payload)
    errors: list[EventError] = []
    sized = len(body) > event_max
    for index, event in enumerate(payload.events):
        problem = _event_problem(event)
        if problem:
            errors.append(EventError(index, "invalid", problem))
        elif sized and _event_size(event) > event_max:
            errors.append(EventError(index, "too_large", f"larger than {event_max} bytes"))
    return Decoded(payload, errors)


def _decode_loosely(body: bytes, event_max: int, cause: msgspec.ValidationError) -> Decoded:
    """The slow path: some part has a wrong type. Fails with ``cause`` unless it stands inside an event."""
    try:
        loose: LoosePayload = decode_loose(body)
    except (msgspec.DecodeError, RecursionError):
        raise _validation(cause) from cause
    errors: list[EventError] = []
    events: list[EventIn] = []
    for index, raw in enumerate(loose.events):
        try:
            events.append(decode_event(raw))
        except (msgspec.DecodeError, RecursionError) as error:
            errors.append(EventError(index, "invalid", str(error)))
            events.append(EventIn(type=""))
            continue
        problem = _event_problem(events[-1])
        if problem:
            errors.append(EventError(index, "invalid", problem))
        elif len(memoryview(raw)) > event_max:
            errors.append(EventError(index, "too_large", f"larger than {event_max} bytes"))
    payload = Payload(
        loose.source,
        loose.session,
        loose.profile,
        events,
        loose.context,
        loose.properties,
        loose.request,
        loose.options,
    )
    _check_call(payload)
    return Decoded(payload, errors)


def _check_call(payload: Payload) -> None:
    payload.source.id = payload.source.id.strip()
    if payload.session is not None:
        _check_ref("session", payload.session)
    if payload.profile is not None:
        _check_ref("profile", payload.profile)
    if not (_is_object(payload.context) and _is_object(payload.properties) and _is_object(payload.request)):
        name = next(n for n in ("context", "properties", "request") if not _is_object(getattr(payload, n)))
        raise _invalid("dict_type", "Input should be a valid dictionary", name)


def _check_ref(name: str, ref: RecordRef) -> None:
    ref.id = ref.id.strip()
    if len(ref.id) > ID_LENGTH_MAX:
        raise _invalid("string_too_long", f"at most {ID_LENGTH_MAX} characters", name, "id")


def _event_problem(event: EventIn) -> str:
    """What is wrong with an event, or "". Runs for every event: keep it short."""
    if not event.type or event.type.isspace():
        return "type: must not be empty"
    if len(event.type) > TYPE_LENGTH_MAX:
        return f"type: at most {TYPE_LENGTH_MAX} characters"
    part = event.properties
    if part is not UNSET and memoryview(part)[0] != _OPEN_BRACE and not _is_object(part):
        return "properties: Input should be a valid dictionary"
    part = event.context
    if part is not UNSET and memoryview(part)[0] != _OPEN_BRACE and not _is_object(part):
        return "context: Input should be a valid dictionary"
    part = event.options
    if part is not UNSET and memoryview(part)[0] != _OPEN_BRACE and not _is_object(part):
        return "options: Input should be a valid dictionary"
    if event.time is not None:
        return _time_problem(event.time)
    return ""


def _is_object(part: Raw | UnsetType) -> bool:
    """An object, or null, which means the default."""
    return part is UNSET or memoryview(part)[0] in (_OPEN_BRACE, _NULL)


def _time_problem(times: Times) -> str:
    for name in ("insert", "create", "update"):
        text = getattr(times, name)
        if text is not None:
            try:
                datetime.fromisoformat(text)
            except ValueError:
                return f"time.{name}: Input should be a valid datetime"
    return ""


def _event_size(event: EventIn) -> int:
    parts = (event.properties, event.context, event.options)
    return len(event.type) + sum(len(memoryview(part)) for part in parts if part is not UNSET)


# --- errors in the protocol's shape ---

# msgspec: "Expected `str`, got `int` - at `$.source.id`"; "Object missing required field `source`"
_AT = re.compile(r" - at `\$(?P<path>[^`]*)`$")
_MISSING = re.compile(r"Object missing required field `(?P<field>[^`]+)`")
_EXPECTED = re.compile(r"Expected `(?P<want>[^`]+)`")
_TYPES = {"str": "string_type", "object": "dict_type", "array": "list_type", "bool": "bool_type", "int": "int_type"}


def _validation(error: msgspec.ValidationError) -> BadInput:
    text = str(error)
    at = _AT.search(text)
    where: list[Any] = []
    if at:
        for name, index in re.findall(r"\.([^.\[]+)|\[(\d+|\.\.\.)\]", at["path"]):
            where.append(name or (int(index) if index.isdigit() else index))
        text = text[: at.start()]
    if missing := _MISSING.search(text):
        return _invalid("missing", "Field required", *where, missing["field"])
    expected = _EXPECTED.search(text)
    want = expected["want"].split(" | ")[0] if expected else ""
    return _invalid(_TYPES.get(want, "value_error"), text, *where)


def _invalid(type_: str, message: str, *where: Any) -> BadInput:
    return BadInput(422, [{"type": type_, "loc": ["body", *where], "msg": message, "url": None}])


def not_an_object() -> BadInput:
    """For a body whose Content-Type says that it isn't JSON."""
    return _invalid("dict_type", "Input should be a valid dictionary: send JSON with Content-Type application/json")


def all_refused(errors: list[EventError]) -> BadInput:
    """When no event of a call is good there is nothing to keep, and the whole call is a 422."""
    return BadInput(
        422,
        [
            {"type": e.reason, "loc": ["body", "events", e.index], "msg": e.detail, "url": None}
            for e in errors[:ERRORS_SHOWN_MAX]
        ],
    )
