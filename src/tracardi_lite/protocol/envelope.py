"""What travels through the queue: a small head that the door writes, and the body as it came.

The body is the client's (decompressed) JSON payload, byte for byte; for ``/collect`` and ``/redirect`` it is the
payload that the call stands for. The worker decodes it with the same structs as the door did, so nothing is
encoded twice. The head holds what only the door can know.
"""

from __future__ import annotations

import msgspec
from msgspec import Struct

SAVE_PROFILE = 1
SAVE_SESSION = 2
SAVE_EVENTS = 4
SAVE_ALL = SAVE_PROFILE | SAVE_SESSION | SAVE_EVENTS


class Head(Struct, array_like=True, kw_only=True):
    """One message's head. Encoded as a msgpack array: fields are added at the end only, with a default."""

    version: int = 1
    id: str
    """The message's id, a UUID; answered as ``task``. The ids of its events without one are derived from it."""
    received_ms: int
    """When the door took it, ms since the epoch, UTC. Chooses the partition of its events for ever."""
    source: str
    channel: str = ""
    session: str | None
    """The session id, sent or made by the door; None for profile-less calls without one."""
    profile: str | None
    """The profile id that the door answered with; None for profile-less calls. Also the queue's key."""
    issued: bool = False
    """The door made ``profile`` for this call (random or derived), so a worker that finds the session bound to
    another profile makes it an alias of that one."""
    static: bool = False
    """The source vouches for its profile ids: take ``profile`` as it is, make it if absent."""
    save: int = SAVE_ALL
    ip: str | None = None
    headers: dict[str, str] = {}
    """The request's headers, lower-cased names, without ``authorization`` and ``cookie``."""
    instance: str = ""
    skip: list[int] = []
    """Indices in ``events[]`` that the door refused and reported; a worker passes over them."""
    only: list[int] | None = None
    """On a replay of dead letters: the only indices to process. None: all but ``skip``."""
    sent_profile: str | None = None
    """The profile id as the client sent it, when the answer differs."""
    passed: str | None = None
    """The profile id that another domain handed over (``context.tracardi.pass``), from a source that the door knows."""


_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Head)


def encode_head(head: Head) -> bytes:
    return _encoder.encode(head)


def decode_head(data: bytes) -> Head:
    """Raises ``msgspec.DecodeError`` (``ValidationError`` is one) for what no door wrote."""
    return _decoder.decode(data)
