"""Reading requests: bodies into structs, parameters into numbers; what does not fit is 422 in the protocol's shape."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeVar

import msgspec
from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError

from tracardi_lite.errors import BadInput

T = TypeVar("T")

BODY_MAX = 1 << 20
"""Bytes: an event source with a long manual is some 50 KB."""
FORM_MAX = 16 << 10


def wrong(where: str, name: str, message: str, kind: str = "value_error") -> BadInput:
    """422 with a list of one problem, as the original's validation answers."""
    loc = [where, name] if name else [where]
    return BadInput(422, [{"type": kind, "loc": loc, "msg": message}])


async def read_json(request: web.Request, kind: type[T]) -> T:
    """The body as ``kind``, whatever its content type says, unknown fields ignored; no body is ``{}``. 422, or 413
    over ``BODY_MAX``."""
    body = await request.clone(client_max_size=BODY_MAX).read()
    try:
        return msgspec.json.decode(body or b"{}", type=kind)
    except msgspec.ValidationError as error:
        raise invalid(error) from error
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise wrong("body", "", "The body is not JSON.", "json_invalid") from error


def invalid(error: msgspec.ValidationError) -> BadInput:
    """422 for a body of the wrong shape."""
    # msgspec's text ends with where: "Expected `int`, got `str` - at `$.limit`".
    message, _, path = str(error).partition(" - at `$")
    return wrong("body", path.strip("`."), message)


async def read_form(request: web.Request) -> Mapping[str, str]:
    """The text fields of an urlencoded or multipart form. 413 over ``FORM_MAX``."""
    try:
        form = await request.clone(client_max_size=FORM_MAX).post()
    except (ValueError, AssertionError, LookupError, RuntimeError, HttpProcessingError) as error:
        # What aiohttp raises of a broken form: its frame, a part's headers, encoding or character set.
        raise wrong("body", "", "The body is not a form.") from error
    return {name: value for name, value in form.items() if isinstance(value, str)}


def number(request: web.Request, name: str, default: int, least: int, most: int) -> int:
    """A whole number from the query string, within bounds."""
    text = request.query.get(name, "")
    if not text:
        return default
    try:
        value = int(text)
    except ValueError:
        value = least - 1
    if not least <= value <= most:
        raise wrong("query", name, f"Expected a whole number, {least} to {most}.")
    return value


def switch(request: web.Request, name: str) -> bool:
    return request.query.get(name, "").lower() in ("1", "true", "yes", "on")


def object_of(value: Any) -> dict[str, Any]:
    """A decoded body that has to be an object. Raises ``BadInput`` 422."""
    if not isinstance(value, dict):
        raise wrong("body", "", "Expected an object.", "dict_type")
    return value
