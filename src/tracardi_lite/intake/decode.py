"""From a request's body to a checked payload, decoding no deeper than admission needs.

The fast path glances at the whole call at once. Only when that finds something are events decoded one by one, to find
the bad ones: they are reported by index and the others go on. Errors name the place and never repeat the payload.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from datetime import datetime
from typing import Any

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType

from tracardi_lite.errors import BadInput
from tracardi_lite.protocol.payload import (
    TYPE_LENGTH_MAX,
    Call,
    EventIn,
    RecordRef,
    Times,
    decode_event,
    decode_glance,
    decode_loose,
)

# The original shows the whole list; a call with ten thousand bad events needs no ten thousand explanations.
ERRORS_SHOWN_MAX = 100
ID_LENGTH_MAX = 512

_OPEN_BRACE = 0x7B
_NULL = 0x6E  # the n of null


class EventError(Struct, frozen=True):
    """Why one event of a call was refused, as it stands in the answer's ``errors``."""

    index: int
    reason: str
    """``invalid`` or ``too_large``: also the ledger's name for it."""
    detail: str


class Decoded(Struct):
    call: Call
    count: int
    """Of its events, bad ones included; ``errors`` says which to pass over."""
    ids: Callable[[], list[str | None]]
    """The clients' ids of the events, in order; only for those who ask."""
    errors: list[EventError]


def decode(body: bytes, event_max: int) -> Decoded:
    """Decode and check a call. ``event_max`` bounds one event, in bytes.

    Raises BadInput 422 when the call as a whole can't be read, with details in the protocol's shape.
    """
    if not body.isascii():
        # msgspec passes over what it skips without looking at its encoding, and the store would choke on it later.
        try:
            body.decode()
        except UnicodeDecodeError as error:
            raise _invalid("json_invalid", f"JSON decode error: invalid UTF-8 at byte {error.start}") from error
    try:
        glance = decode_glance(body)
    except msgspec.ValidationError as error:
        return _decode_loosely(body, event_max, error)
    except msgspec.DecodeError as error:
        raise _invalid("json_invalid", f"JSON decode error: {error}") from error
    except RecursionError as error:
        raise _invalid("json_invalid", "JSON decode error: nested too deeply") from error
    events = glance.events
    if len(body) > event_max:
        # Some event may be too large, and a glance does not tell.
        return _decode_loosely(body, event_max)
    for event in events:
        if event.time is not None or event.type.isspace():
            return _decode_loosely(body, event_max)
    _check_call(glance)
    return Decoded(glance, len(events), lambda: [event.id for event in events], [])


def _decode_loosely(body: bytes, event_max: int, cause: msgspec.ValidationError | None = None) -> Decoded:
    """The slow path: every event by itself. Fails with ``cause`` unless that stands inside an event."""
    try:
        loose = decode_loose(body)
    except (msgspec.DecodeError, RecursionError):
        if cause is None:
            raise  # a bug: the glance had read it
        raise _validation(cause) from cause
    errors: list[EventError] = []
    ids: list[str | None] = []
    for index, raw in enumerate(loose.events):
        try:
            event = decode_event(raw)
        except (msgspec.DecodeError, RecursionError) as error:
            errors.append(EventError(index, "invalid", str(error)))
            ids.append(None)
            continue
        ids.append(event.id)
        problem = _event_problem(event)
        if problem:
            errors.append(EventError(index, "invalid", problem))
        elif len(memoryview(raw)) > event_max:
            errors.append(EventError(index, "too_large", f"larger than {event_max} bytes"))
    _check_call(loose)
    return Decoded(loose, len(loose.events), lambda: ids, errors)


def _check_call(payload: Call) -> None:
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
    """What is wrong with an event, or ""."""
    if not event.type or event.type.isspace():
        return "type: must not be empty"
    if len(event.type) > TYPE_LENGTH_MAX:
        return f"type: at most {TYPE_LENGTH_MAX} characters"
    for name in ("properties", "context", "options"):
        if not _is_object(getattr(event, name)):
            return f"{name}: Input should be a valid dictionary"
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
