"""Profile ids that any replica can verify, and derive, without a look-up.

An issued id is 128 bits shaped as a version 4 UUID: 64 bits of seed, then 62 bits of MAC over them, keyed with the
installation's secret (keyed BLAKE2b, RFC 7693). The seed is random, or, for a session that came without a profile,
itself a MAC of the session id: replicas that have never spoken then agree on the new profile's id.

Bounds: two random seeds collide with probability 2⁻⁶¹ per pair; a forged id passes with probability 2⁻⁶² per try.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from hashlib import blake2b
from uuid import UUID

_SEED = 8
_VARIANT = 0x80
_VARIANT_MASK = 0x3F
_VERSION = 0x40
_VERSION_MASK = 0x0F


class Identity:
    """Issues with the newest secret; verifies with all of them, so that secrets can be rotated."""

    def __init__(self, secrets: Sequence[str]) -> None:
        if not secrets or not all(secrets):
            raise ValueError("an identity needs at least one secret")
        # 32-byte keys: secrets of any length, and of any installation, are equally strong inputs.
        self._keys = [blake2b(secret.encode(), digest_size=32, person=b"tl-identity").digest() for secret in secrets]

    def issue(self) -> str:
        """A new random id."""
        return _seal(self._keys[0], os.urandom(_SEED))

    def derive(self, session_id: str) -> str:
        """The id of the profile that a session without one gets: the same on every replica."""
        key = self._keys[0]
        return _seal(
            key,
            blake2b(
                session_id.encode("utf-8", "surrogatepass"), digest_size=_SEED, key=key, person=b"tl-session"
            ).digest(),
        )

    def derive_from_key(self, key: str) -> str:
        """The id of the profile that a webhook's merge key (an e-mail, a phone number, normalised) stands for."""
        secret = self._keys[0]
        return _seal(
            secret,
            blake2b(
                key.encode("utf-8", "surrogatepass"), digest_size=_SEED, key=secret, person=b"tl-mergekey"
            ).digest(),
        )

    def issued(self, id: str) -> bool:
        """Whether this installation made the id."""
        if len(id) != 36:
            return False
        try:
            raw = UUID(id).bytes
        except ValueError:
            return False
        seed = raw[:_SEED]
        # Ids are compared as text, so that an upper-case twin of an id is not a second valid spelling of it.
        return any(_seal(key, seed) == id for key in self._keys)


def _seal(key: bytes, seed: bytes) -> str:
    head = bytearray(seed)
    head[6] = head[6] & _VERSION_MASK | _VERSION
    mac = bytearray(blake2b(head, digest_size=8, key=key).digest())
    mac[0] = mac[0] & _VARIANT_MASK | _VARIANT
    text = (head + mac).hex()
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"
