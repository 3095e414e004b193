"""Stored records as Python values.

An event's record holds what its client sent, as it came. That is JSON, but JSON bounds no number: ``1e999`` is stored,
and msgspec refuses to hold it. One such event must not keep anybody from reading the others.
"""

from __future__ import annotations

import json
import math
from typing import Any

import msgspec

_decode = msgspec.json.Decoder(dict[str, Any]).decode


def decode_document(doc: bytes) -> dict[str, Any]:
    """A record. A number beyond what Python can hold is read as infinity, as browsers do.

    Raises RecursionError for one that is nested deeper than the interpreter can follow.
    """
    try:
        return _decode(doc)
    except msgspec.ValidationError:
        document: dict[str, Any] = json.loads(doc, parse_int=_integer)
        return document


def _integer(text: str) -> int | float:
    try:
        return int(text)
    except ValueError:  # of more digits than the interpreter converts
        return -math.inf if text.startswith("-") else math.inf
