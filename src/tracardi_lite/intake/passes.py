"""A visitor who comes from another domain, with the profile that they have there: ``context.tracardi.pass`` (§3).

The tracker takes both from the address that the visitor followed (``__tr_pid``, ``__tr_src``). The door says whether
the source is one of ours; the worker says whether there is such a profile, and makes it and the visitor's own one.
"""

from __future__ import annotations

import msgspec
from msgspec import UNSET, Raw, Struct, UnsetType, field

from tracardi_lite.errors import BadInput, TryLater
from tracardi_lite.intake.sources import Gate, Sources
from tracardi_lite.intake.steps import Steps

_HINT = b'"tracardi"'
_ID_CHARS_MAX = 256


class _Pass(Struct):
    profile: str
    source: str


class _Own(Struct):
    handed: _Pass | None = field(name="pass", default=None)


class _Context(Struct):
    tracardi: _Own | None = None


_decode = msgspec.json.Decoder(_Context).decode


def passed_profile(context: Raw | UnsetType, sources: Sources) -> Steps[str | None]:
    """The profile id that was handed over, if by an enabled source; a call is never refused for it."""
    if context is UNSET:
        return None
    raw = bytes(context)
    if _HINT not in raw:
        return None
    try:
        own = _decode(raw).tracardi
    except (msgspec.DecodeError, RecursionError):
        return None
    if own is None or own.handed is None or not 0 < len(own.handed.profile) <= _ID_CHARS_MAX:
        return None
    try:
        gate: Gate = sources.peek(own.handed.source) or (yield sources.get(own.handed.source))
    except (BadInput, TryLater):
        return None
    return own.handed.profile if gate.enabled else None
