"""Making client's values fit the types that records promise, without ever raising.

Stores have typed columns and mappings: one object where a text is expected would get the whole record refused. So each
value that is copied into a typed field passes through the coercion of its kind, and what can't be made to fit is
left out. ``MISSING`` is the answer for "does not fit".

Bounds: a text in a list or a key has at most ``TEXT_MAX`` characters, a list at most ``LIST_MAX`` items, and a free
object keeps at most ``NODES_MAX`` values, ``DEPTH_MAX`` deep, so that no client can grow a record without end.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from tracardi_lite.pipeline.paths import MISSING

TEXT_MAX = 1024
LIST_MAX = 1000
NODES_MAX = 5_000
DEPTH_MAX = 16
# Beyond this a double, and so most JSON readers, can't hold an integer exactly; msgspec refuses beyond 64 bits.
_EXACT = 2**53
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def iso(at_ms: int) -> str:
    """A moment as records write it: ISO 8601, UTC, milliseconds."""
    return (_EPOCH + timedelta(milliseconds=at_ms)).isoformat(timespec="milliseconds")


def parse_time(value: object) -> int | None:
    """A client's time in ms since the epoch: ISO 8601 or ``YYYY-MM-DD hh:mm:ss``, naive means UTC; None for junk."""
    if type(value) is not str or len(value) > 64:
        return None
    try:
        at = datetime.fromisoformat(value.strip())
        if at.tzinfo is None:
            at = at.replace(tzinfo=UTC)
        return (at - _EPOCH) // timedelta(milliseconds=1)
    except (ValueError, OverflowError):
        return None


def text(value: object) -> Any:
    """A string; numbers and booleans are spelled as JSON does."""
    if type(value) is str:
        return value
    if type(value) is bool:
        return "true" if value else "false"
    if type(value) is int:
        return str(value) if -_EXACT <= value <= _EXACT else MISSING
    if type(value) is float and math.isfinite(value):
        return repr(value)
    return MISSING


def short_text(value: object) -> Any:
    """A string of at most ``TEXT_MAX`` characters; longer does not fit."""
    fitted = text(value)
    return fitted if fitted is MISSING or len(fitted) <= TEXT_MAX else MISSING


def number(value: object) -> Any:
    """A finite number; strings that spell one count."""
    if type(value) is int:
        return value if -_EXACT <= value <= _EXACT else float(value) if abs(value) < 10**300 else MISSING
    if type(value) is float:
        return value if math.isfinite(value) else MISSING
    if type(value) is str and len(value) <= 64:
        try:
            return number(int(value))
        except ValueError:
            pass
        try:
            return number(float(value))
        except ValueError:
            pass
    return MISSING


def date(value: object) -> Any:
    """A time that stores can index: the client's spelling if it is one, else ms since the epoch."""
    if type(value) is int and abs(value) <= _EXACT:
        return value
    return value.strip() if type(value) is str and parse_time(value) is not None else MISSING


def texts(value: object) -> Any:
    """A list of short strings without repetitions; a lone value is a list of one."""
    items = value if type(value) is list else [value]
    fitted = (short_text(item) for item in items[: LIST_MAX * 4])
    return list(dict.fromkeys(item for item in fitted if item is not MISSING))[:LIST_MAX] or MISSING


def free(value: object) -> Any:
    """Any JSON, within bounds: what is too deep or too much is left out, and numbers can be written again."""
    budget = NODES_MAX

    def fit(value: object, depth: int) -> Any:
        nonlocal budget
        budget -= 1
        kind = type(value)
        if value is None or kind is str or kind is bool:
            return value
        if kind is int or kind is float:
            return number(value)
        if depth >= DEPTH_MAX:
            return MISSING
        if type(value) is list:
            items: list[Any] = []
            for item in value:
                if budget <= 0:
                    break
                if (fitted := fit(item, depth + 1)) is not MISSING:
                    items.append(fitted)
            return items
        if type(value) is dict:
            fields: dict[str, Any] = {}
            for key, item in value.items():
                if budget <= 0:
                    break
                if (fitted := fit(item, depth + 1)) is not MISSING:
                    fields[key] = fitted
            return fields
        return MISSING

    return fit(value, 0)


def free_object(value: object) -> Any:
    return free(value) if type(value) is dict else MISSING


def numbers(value: object) -> Any:
    """An object whose values are numbers."""
    if type(value) is not dict:
        return MISSING
    fitted = {key: number(item) for key, item in list(value.items())[:LIST_MAX] if len(key) <= TEXT_MAX}
    return {key: item for key, item in fitted.items() if item is not MISSING} or MISSING


def consents(value: object) -> Any:
    """``{consent id: {"revoke": time or null}}``; a list of ids, or of truths by id, says the same."""
    if type(value) is list:
        value = {item: None for item in value if type(item) is str}
    if type(value) is not dict:
        return MISSING
    given: dict[str, Any] = {}
    for key, item in list(value.items())[:LIST_MAX]:
        if len(key) > TEXT_MAX or item is False:
            continue
        revoke = date(item.get("revoke")) if type(item) is dict else MISSING
        given[key] = {"revoke": None if revoke is MISSING else revoke}
    return given or MISSING


def geo(value: object) -> Any:
    """A place: ``country{name,code}, county, city, postal, latitude, longitude, location[longitude, latitude]``.

    Only what is known is there. Coordinates that are not on the globe are left out, since indices refuse them.
    """
    if type(value) is not dict:
        return MISSING
    place: dict[str, Any] = {}
    country = value.get("country")
    if type(country) is dict:
        known = {key: short_text(country[key]) for key in ("name", "code") if country.get(key) is not None}
        known = {key: item for key, item in known.items() if item is not MISSING}
        if known:
            place["country"] = known
    elif type(country) is str and len(country) <= TEXT_MAX:
        place["country"] = {"name": country}
    for key in ("county", "city", "postal"):
        if value.get(key) is not None and (item := short_text(value[key])) is not MISSING:
            place[key] = item
    latitude, longitude = number(value.get("latitude")), number(value.get("longitude"))
    if latitude is not MISSING and longitude is not MISSING and abs(latitude) <= 90 and abs(longitude) <= 180:
        place["latitude"], place["longitude"] = latitude, longitude
        place["location"] = [longitude, latitude]
    return place or MISSING


KINDS: dict[str, Callable[[object], Any]] = {
    "text": text,
    "number": number,
    "date": date,
    "texts": texts,
    "object": free_object,
    "any": free,
    "numbers": numbers,
    "consents": consents,
    "geo": geo,
}
"""The kinds that ``data/fields.json`` may name."""
