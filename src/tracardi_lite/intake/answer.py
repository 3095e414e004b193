"""The answers' bodies and headers, put together by hand: at this rate a general encoder shows in the profile."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from time import perf_counter
from typing import Any

import msgspec
from aiohttp import hdrs, web
from msgspec import Struct

from tracardi_lite.errors import BadInput, TryLater
from tracardi_lite.intake.decode import EventError
from tracardi_lite.intake.headers import readable
from tracardi_lite.protocol.envelope import SAVE_PROFILE, SAVE_SESSION, Head

encode = msgspec.json.Encoder().encode
decode = msgspec.json.Decoder().decode

_OPEN = b'{"task":"'
_UX = b'","ux":[],"response":{},"events":'
_PROFILE = b',"profile":{"id":'
_SESSION = b'},"session":{"id":'
_ERRORS = b'},"errors":'
_CLOSE = b',"warnings":[]}'


def track_body(head: Head, errors: Sequence[EventError], events: Sequence[str] = ()) -> bytes:
    """The protocol's answer (§1.5). Ids that are not saved are null."""
    profile = head.profile if head.save & SAVE_PROFILE else None
    session = head.session if head.save & SAVE_SESSION else None
    return b"".join(
        (
            _OPEN,
            head.id.encode(),
            _UX,
            encode(events) if events else b"[]",
            _PROFILE,
            encode(profile),
            _SESSION,
            encode(session),
            _ERRORS,
            encode(errors) if errors else b"[]",
            _CLOSE,
        )
    )


class Reply(Struct):
    """An answer in JSON, for any transport."""

    status: int
    body: bytes
    headers: Mapping[str, str] = {}
    close: bool = False
    """The connection is of no more use: the rest of the request is not worth reading."""


CLASSES = ("", "1xx", "2xx", "3xx", "4xx", "5xx")
RETRY_AFTER_MAX_S = 60
_INTERNAL = "Internal error; nothing was taken. The server's log has the cause."


def refusal(error: Exception) -> Reply:
    """The answer to a call that failed: 4xx, 503 with Retry-After, or 500 for what nobody foresaw."""
    if isinstance(error, BadInput):
        return Reply(error.status, encode({"detail": error.detail}), close=error.status in (408, 413))
    if isinstance(error, TryLater):
        wait = max(1, min(RETRY_AFTER_MAX_S, math.ceil(error.retry_after_s)))
        return Reply(503, encode({"detail": f"Try again in {wait} s: {error}"}), {hdrs.RETRY_AFTER: str(wait)})
    return Reply(500, encode({"detail": _INTERNAL}))


def common(headers: Mapping[str, str], start: float) -> dict[str, str]:
    """What every answer of the collector carries; ``start`` is when the request began (perf_counter)."""
    carried = cors(headers)
    carried["X-Process-Time"] = f"{perf_counter() - start:.6f}"
    context = headers.get("x-context")
    if context is not None:
        carried["X-Context"] = readable(context)
    return carried


# What a page's script may read of an answer, beside its body.
EXPOSED = "Retry-After, X-Process-Time, X-Context"


def cors(headers: Mapping[str, str]) -> dict[str, str]:
    """The headers that let any page read an answer (§1.7); none for callers that aren't pages.

    ``headers`` are the request's, by lower-cased names, or by names in any case.
    """
    origin = headers.get("origin")
    if origin is None:
        return {}
    allowed: dict[str, str] = {
        hdrs.ACCESS_CONTROL_ALLOW_ORIGIN: "*",
        hdrs.ACCESS_CONTROL_ALLOW_CREDENTIALS: "true",
        hdrs.ACCESS_CONTROL_EXPOSE_HEADERS: EXPOSED,
    }
    if "cookie" in headers:
        allowed[hdrs.ACCESS_CONTROL_ALLOW_ORIGIN] = readable(origin)
        allowed[hdrs.VARY] = hdrs.ORIGIN
    return allowed


def preflight(request: web.BaseRequest) -> web.Response:
    """The answer to a browser that asks before it posts."""
    origin = request.headers.get(hdrs.ORIGIN)
    if origin is None or hdrs.ACCESS_CONTROL_REQUEST_METHOD not in request.headers:
        return json_answer({"detail": "Method Not Allowed"}, 405)
    headers = {
        hdrs.ACCESS_CONTROL_ALLOW_ORIGIN: readable(origin),
        hdrs.ACCESS_CONTROL_ALLOW_CREDENTIALS: "true",
        hdrs.ACCESS_CONTROL_ALLOW_METHODS: "DELETE, GET, HEAD, OPTIONS, PATCH, POST, PUT",
        hdrs.ACCESS_CONTROL_MAX_AGE: "600",
        hdrs.VARY: hdrs.ORIGIN,
    }
    asked = request.headers.get(hdrs.ACCESS_CONTROL_REQUEST_HEADERS)
    if asked is not None:
        headers[hdrs.ACCESS_CONTROL_ALLOW_HEADERS] = readable(asked)
    return web.Response(text="OK", headers=headers)


def json_answer(body: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> web.Response:
    return web.Response(body=encode(body), status=status, headers=headers, content_type="application/json")
