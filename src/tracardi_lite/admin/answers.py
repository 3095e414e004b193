"""Answers as JSON bytes. Records pass through as they are stored, without being decoded."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from aiohttp import web

_encode = msgspec.json.Encoder().encode


def json_answer(value: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> web.Response:
    return web.Response(body=_encode(value), status=status, headers=headers, content_type="application/json")


def nothing() -> web.Response:
    """How the protocol says that a record is not there: 404 with ``null``."""
    return json_answer(None, 404)


def raw(document: bytes) -> msgspec.Raw:
    """A stored JSON document, to be put into an answer as it is."""
    return msgspec.Raw(document)


def with_field(document: bytes, name: str, value: Any) -> msgspec.Raw:
    """A stored JSON object with one more field at its end, without decoding it."""
    body = document.rstrip()
    assert body[:1] == b"{", "records are JSON objects"
    assert body[-1:] == b"}", "records are JSON objects"
    inner = body[:-1].rstrip()
    comma = b"" if inner == b"{" else b","
    return msgspec.Raw(b"".join((inner, comma, _encode(name), b":", _encode(value), b"}")))
