"""``/collect`` and ``/redirect``: calls that carry one event in their own shape, turned into tracker payloads.

The body that is queued is the ``/track`` payload that the call stands for, so that everything behind the door knows one
format. Differences from the original, on purpose: profile-less calls work, real multipart forms are read, and a body
that is neither JSON nor a form is 422 where the original fails with 500.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from urllib.parse import parse_qsl

import msgspec
from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError
from msgspec.structs import replace

from tracardi_lite.errors import BadInput
from tracardi_lite.intake.sources import Gate
from tracardi_lite.ports.registry import Redirect
from tracardi_lite.protocol.identity import Identity
from tracardi_lite.protocol.ids import derive_uuid

encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder().decode

FORM_TYPE = "application/x-www-form-urlencoded"
MULTIPART_TYPE = "multipart/form-data"

FindKey = Callable[[str, dict[str, Any]], str | None]
"""(event type, properties) → the merge key in them (a normalised e-mail, phone, id), if their type maps one."""


class Stand(msgspec.Struct):
    """Who a webhook's event belongs to."""

    gate: Gate
    session: str = ""
    profile: str = ""
    profile_less: bool = False


def query_properties(request: web.Request) -> dict[str, Any]:
    """The query string, last value of each name; all values are strings."""
    return dict(request.query)


async def multipart_properties(request: web.Request) -> dict[str, Any]:
    """A multipart form's fields; of a file, its name. Reads the body itself, within the server's bound."""
    try:
        form = await request.post()
    except (ValueError, AssertionError, LookupError, RuntimeError, HttpProcessingError) as error:
        # What aiohttp raises of broken parts: their frame, headers, encoding or character set.
        raise _not_an_object("a broken multipart form") from error
    return {name: value.filename if isinstance(value, web.FileField) else str(value) for name, value in form.items()}


def body_properties(content_type: str, body: bytes) -> dict[str, Any]:
    """The body as an object: JSON, or a form. Broken JSON is ``{}``, as in the original; a list is 422."""
    if content_type == FORM_TYPE:
        return dict(parse_qsl(body.decode("utf-8", "replace"), keep_blank_values=True))
    try:
        value = _decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        if content_type.endswith("json") or not body.strip():
            return {}
        raise _not_an_object("neither JSON nor a form") from error
    if not isinstance(value, dict):
        raise _not_an_object("the body must be a JSON object")
    return value


def stand(
    gate: Gate, session: str, event_type: str, properties: dict[str, Any], identity: Identity, find_key: FindKey
) -> Stand:
    """Whose a webhook event is (§2): of the profile that the source reads from the properties, else of the session in
    the path, else of a profile that the source makes, else nobody's. ``session`` is "" where the path has none."""
    if gate.replace_profile_id:
        profile = _at_path(properties, gate.replace_profile_id)
        if isinstance(profile, int) and not isinstance(profile, bool):
            profile = str(profile)
        if not isinstance(profile, str) or not profile.strip():
            raise BadInput(
                422,
                [
                    {
                        "type": "missing",
                        "loc": ["body", *gate.replace_profile_id.split(".")],
                        "msg": "The event source takes its profile id from this property",
                        "url": None,
                    }
                ],
            )
        profile = profile.strip()
        return Stand(replace(gate, static=True), session=session or profile, profile=profile)
    if session:
        return Stand(gate, session=session)
    if gate.generate_profile:
        key = find_key(event_type, properties)
        profile = identity.derive_from_key(key) if key else identity.issue()
        session = derive_uuid("sticky-session", profile) if gate.sticky_session else ""
        return Stand(gate, session=session, profile=profile)
    return Stand(gate, profile_less=True)


def payload_of(
    source: str, event_type: str, properties: dict[str, Any], session: str = "", profile: str = "", tags: object = None
) -> bytes:
    """The tracker payload that a webhook call stands for."""
    event: dict[str, Any] = {"type": event_type, "properties": properties}
    if tags:
        event["tags"] = tags
    call: dict[str, Any] = {"source": {"id": source}, "events": [event]}
    if session:
        call["session"] = {"id": session}
    if profile:
        call["profile"] = {"id": profile}
    return encode(call)


def redirect_properties(
    redirect: Redirect, params: dict[str, Any], body: dict[str, Any], session: str | None
) -> dict[str, Any]:
    """The redirect's template, filled from the call. What is not there becomes null."""
    data = {"payload": {"params": params, "body": body}, "session": {"id": session}}

    def fill(value: Any) -> Any:
        if isinstance(value, str):
            root, at, path = value.partition("@")
            if at and root in data:
                return _at_path(data[root], path)
            return value
        if isinstance(value, dict):
            return {name: fill(item) for name, item in value.items()}
        if isinstance(value, list):
            return [fill(item) for item in value]
        return value

    filled: dict[str, Any] = fill(redirect.props)
    return filled


def _at_path(value: Any, path: str) -> Any:
    for name in path.split("."):
        if not isinstance(value, dict):
            return None
        value = value.get(name)
    return value


def _not_an_object(message: str) -> BadInput:
    return BadInput(422, [{"type": "dict_type", "loc": ["body"], "msg": message, "url": None}])
