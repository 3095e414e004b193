"""Which of a person's data identify them over profiles: the merge keys (protocol §5), as hashes and as texts.

A hash is what Tracardi writes into ``profile.ids``, byte for byte, so that profiles of the original keep matching:
three letters of the field's prefix, a hyphen, and the MD5 of ``<secret>-<value>`` laid out as a UUID, the value trimmed
and lower-cased. MD5 is the format's choice; what keeps the values from being guessed is the secret.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from functools import lru_cache
from hashlib import md5
from typing import Any

from tracardi_lite.pipeline.event_types import EventTypes, normalise_type
from tracardi_lite.pipeline.mapping import map_event
from tracardi_lite.pipeline.paths import get, join, split

# Prefix → path in a profile or in an event's mapped parts, the surest identifier first.
MERGE_KEYS: dict[str, tuple[str, ...]] = {
    "ipk": ("data", "identifier", "pk"),
    "iid": ("data", "identifier", "id"),
    "emm": ("data", "contact", "email", "main"),
    "emb": ("data", "contact", "email", "business"),
    "emp": ("data", "contact", "email", "private"),
    "phm": ("data", "contact", "phone", "main"),
    "phb": ("data", "contact", "phone", "business"),
    "pho": ("data", "contact", "phone", "mobile"),
    "pwa": ("data", "contact", "phone", "whatsapp"),
}


@lru_cache(maxsize=4096)
def key_hash(secret: str, prefix: str, value: str) -> str:
    """The merge key of a value that is trimmed and lower-cased already, see ``normal``."""
    digest = md5(f"{secret}-{value}".encode("utf-8", "surrogatepass"), usedforsecurity=False).hexdigest()
    return f"{prefix[:3]}-{digest[:8]}-{digest[8:12]}-{digest[12:16]}-{digest[16:20]}-{digest[20:]}"


def normal(value: object) -> str:
    """A value as it is compared: one address written twice is one key. "" for what can't identify anybody."""
    if isinstance(value, str | int) and not isinstance(value, bool):
        return str(value).strip().lower()
    return ""


def prefix_of(field: str) -> str:
    """The prefix of a merge key, by its path (``data.contact.email.main``) or itself (``emm``, ``emm-``).

    Raises ValueError, saying what there is, for anything else.
    """
    wanted = field.strip()
    for prefix, path in MERGE_KEYS.items():
        if wanted == join(path) or wanted.rstrip("-") == prefix:
            return prefix
    raise ValueError(f"no merge key {wanted!r}; there are {', '.join(join(path) for path in MERGE_KEYS.values())}")


class MergeKeys:
    """The keys of profiles, under one secret and for the fields that count.

    ``prefixes``: which fields count. ``primary``: the dotted path or prefix of the field that ``primary_id`` follows;
    "": none, event types alone set it.
    """

    def __init__(
        self,
        secret: str,
        prefixes: Iterable[str] = MERGE_KEYS,
        *,
        primary: str = "",
        primary_as_hash: bool = False,
    ) -> None:
        self._secret = secret
        # Below data, by branch: an anonymous profile has neither branch, and costs two look-ups.
        self._branches: dict[str, list[tuple[str, str, tuple[str, ...]]]] = {}
        for prefix in prefixes:
            path = MERGE_KEYS[prefix]
            self._branches.setdefault(path[1], []).append((prefix, join(path), path[2:]))
        self._primary: tuple[str, tuple[str, ...]] | None = None
        if primary:
            known = _prefix_or_none(primary)
            self._primary = (known or "pid", MERGE_KEYS[known] if known else split(primary))
        self._primary_as_hash = primary_as_hash

    def of(self, profile: dict[str, Any]) -> Iterator[tuple[str, str]]:
        """(hash, dotted path) of each key that the profile has."""
        data = profile["data"]
        for branch, fields in self._branches.items():
            inner = data.get(branch)
            if inner:
                for prefix, name, path in fields:
                    if value := normal(get(inner, path)):
                        yield key_hash(self._secret, prefix, value), name

    def hash(self, prefix: str, value: object) -> str | None:
        """The key that a value is under a prefix; None for what can't identify anybody."""
        return key_hash(self._secret, prefix, text) if (text := normal(value)) else None

    def follow(self, profile: dict[str, Any]) -> None:
        """Let ``primary_id`` follow its field, in place."""
        if self._primary is None:
            return
        prefix, path = self._primary
        value = get(profile, path)
        if text := normal(value):
            profile["primary_id"] = key_hash(self._secret, prefix, text) if self._primary_as_hash else str(value)


def _prefix_or_none(field: str) -> str | None:
    try:
        return prefix_of(field)
    except ValueError:
        return None


def key_finder(types: EventTypes) -> Callable[[str, dict[str, Any]], str | None]:
    """(event type, properties) → the surest merge key that the type's mapping finds in them, or None.

    As a text, ``<prefix>:<value>``: what a webhook's profile id is derived from.
    """

    def find(event_type: str, properties: dict[str, Any]) -> str | None:
        known = types.get(normalise_type(event_type))
        if known is None:
            return None
        mapped = map_event(known, properties)
        for prefix, path in MERGE_KEYS.items():
            if value := normal(get(mapped, path)):
                return f"{prefix}:{value}"
        return None

    return find
