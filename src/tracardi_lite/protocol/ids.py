"""Ids that are derived, so that a redelivered or replayed message makes the same ones again."""

from __future__ import annotations

from hashlib import blake2b


def derive_uuid(*parts: str) -> str:
    """A UUID (version 8 layout, RFC 9562 §5.8) that is a function of ``parts`` alone. Parts are joined by NUL."""
    text = blake2b("\0".join(parts).encode("utf-8", "surrogatepass"), digest_size=16).hexdigest()
    return f"{text[:8]}-{text[8:12]}-8{text[13:16]}-a{text[17:20]}-{text[20:]}"


def event_id(message_id: str, index: int) -> str:
    """The id of the event at ``index`` of a message's ``events[]`` when the client gave none."""
    return derive_uuid(message_id, str(index))
