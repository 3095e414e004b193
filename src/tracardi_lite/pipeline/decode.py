"""From a queued message back to the call that it holds, decoded no deeper than the door did.

What the door refused (``head.skip``) may not decode; everything else must. What does not is poison: ``BadInput``, and a
dead letter, since no later try will do better.
"""

from __future__ import annotations

import msgspec
from msgspec import Struct

from tracardi_lite.errors import BadInput
from tracardi_lite.ports.queue import Message
from tracardi_lite.protocol.envelope import Head, decode_head
from tracardi_lite.protocol.payload import EventIn, Payload, decode_event, decode_loose, decode_payload

_VERSION = 1


class Incoming(Struct):
    """A message understood."""

    message: Message
    head: Head
    payload: Payload
    indices: list[int]
    """Which of ``payload.events`` to process, ascending."""


def decode(message: Message) -> Incoming:
    """Raises BadInput for what can't be understood; its detail is the dead letter's reason."""
    try:
        head = decode_head(message.head)
    except (msgspec.DecodeError, RecursionError) as error:
        raise _poison(f"head: {error}") from error
    if head.version != _VERSION:
        raise _poison(f"head: version {head.version} is newer than this worker")
    payload = _payload(message.body, head)
    indices = _indices(head, len(payload.events))
    if len(indices) != message.events:
        # The ledger counts what the door said, so the difference must not be settled by guessing.
        raise _poison(f"body: holds {len(indices)} events, announced as {message.events}")
    return Incoming(message, head, payload, indices)


def _payload(body: bytes, head: Head) -> Payload:
    try:
        if not body.isascii():
            body.decode()
        return decode_payload(body)
    except UnicodeDecodeError as error:
        raise _poison(f"body: invalid UTF-8 at byte {error.start}") from error
    except (msgspec.DecodeError, RecursionError) as error:
        if not head.skip:
            raise _poison(f"body: {error}") from error
    try:
        loose = decode_loose(body)
        skip = set(head.skip)
        events = [EventIn(type="") if i in skip else decode_event(raw) for i, raw in enumerate(loose.events)]
    except (msgspec.DecodeError, RecursionError) as error:
        raise _poison(f"body: {error}") from error
    return Payload(
        source=loose.source,
        session=loose.session,
        profile=loose.profile,
        events=events,
        context=loose.context,
        properties=loose.properties,
        request=loose.request,
        options=loose.options,
    )


def _indices(head: Head, count: int) -> list[int]:
    if head.only is not None:
        if any(not 0 <= index < count for index in head.only):
            raise _poison("head: an index is out of range")
        return sorted(set(head.only))
    if head.skip:
        skip = set(head.skip)
        return [index for index in range(count) if index not in skip]
    return list(range(count))


def _poison(reason: str) -> BadInput:
    return BadInput(422, reason)
