"""Which of a person's data identify them over profiles: the merge keys (protocol §5), and how to find one in an event.

A key's text is ``<prefix>:<value>``, the value trimmed and lower-cased, so that one address written twice is one key.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tracardi_lite.pipeline.event_types import EventTypes, normalise_type
from tracardi_lite.pipeline.mapping import map_event

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


def key_finder(types: EventTypes) -> Callable[[str, dict[str, Any]], str | None]:
    """(event type, properties) → the surest merge key that the type's mapping finds in them, or None."""

    def find(event_type: str, properties: dict[str, Any]) -> str | None:
        known = types.get(normalise_type(event_type))
        if known is None:
            return None
        mapped = map_event(known, properties)
        for prefix, path in MERGE_KEYS.items():
            value: Any = mapped
            for name in path:
                value = value.get(name) if isinstance(value, dict) else None
            if isinstance(value, str | int) and not isinstance(value, bool) and str(value).strip():
                return f"{prefix}:{str(value).strip().lower()}"
        return None

    return find
