"""Making clients' values fit the types that records promise, without ever raising.

Stores have typed columns and mappings: one object where a text is expected would get the whole record refused. So each
value that is copied into a typed field passes through the coercion of its kind, and what can't be made to fit is
left out. ``MISSING`` is the answer for "does not fit".

Bounds: a text in a list, or one that becomes a key, has at most ``TEXT_MAX`` characters, a list at most ``LIST_MAX``
items, and a free object about ``FREE_MAX`` characters of JSON, ``DEPTH_MAX`` deep: no client can grow a record without
end.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from itertools import takewhile
from typing import Any

from tracardi_lite.pipeline.paths import MISSING

TEXT_MAX = 1024
LIST_MAX = 1000
FREE_MAX = 65_536
DEPTH_MAX = 16
# Beyond this a double, and so most JSON readers, can't hold an integer exactly; msgspec refuses beyond 64 bits.
_EXACT = 2**53
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
# The years 1 to 9999, in ms: what ``datetime`` can hold, and so what can be written as ISO 8601.
_MS_MIN = -62_135_596_800_000
_MS_MAX = 253_402_300_799_999
# What indices read as a date: the protocol's mapping is yyyy-MM-dd HH:mm:ss||strict_date_optional_time||epoch_millis.
_DATE = re.compile(
    r"\d{4}-\d\d-\d\d(?: \d\d:\d\d:\d\d|T\d\d:\d\d(?::\d\d(?:\.\d{1,9})?)?(?:Z|[+-]\d\d:\d\d)?)?", re.ASCII
)

_AS_WRITTEN = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}(?:Z|\+00:00)", re.ASCII)


@lru_cache(maxsize=256)
def iso(at_ms: int) -> str:
    """A moment as records write it: ISO 8601, UTC, milliseconds; ``2026-11-23T15:58:00.123+00:00``."""
    return (_EPOCH + timedelta(milliseconds=at_ms)).isoformat(timespec="milliseconds")


def written_time(value: object) -> str | None:
    """A client's time as ``iso`` writes what ``parse_time`` reads of it. One that is written so already, as browsers
    and our client do, is only looked at: the way there and back takes longer than all else about an event's time."""
    if type(value) is str and _AS_WRITTEN.fullmatch(value):
        try:
            datetime.fromisoformat(value)
        except ValueError:
            return None
        return f"{value[:23]}+00:00"
    at_ms = parse_time(value)
    return None if at_ms is None else iso(at_ms)


def parse_time(value: object) -> int | None:
    """A client's time in ms since the epoch: ISO 8601 or ``YYYY-MM-DD hh:mm:ss``, naive means UTC; None for junk."""
    return _parse(value) if type(value) is str and len(value) <= 64 else None


# The same few moments are written and read again for each record that a message touches.
@lru_cache(maxsize=256)
def _parse(text: str) -> int | None:
    try:
        at = datetime.fromisoformat(text.strip())
    except ValueError:
        return None
    if at.tzinfo is None:
        at = at.replace(tzinfo=UTC)
    since = at - _EPOCH
    at_ms = (since.days * 86_400 + since.seconds) * 1000 + since.microseconds // 1000
    # An offset may carry the first or last day of the calendar over its edge.
    return at_ms if _MS_MIN <= at_ms <= _MS_MAX else None


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
    """A time that indices can read: the client's spelling if it is such, ISO 8601 for any other, or ms."""
    if type(value) is int and _MS_MIN <= value <= _MS_MAX:
        return value
    at_ms = parse_time(value)
    if at_ms is None:
        return MISSING
    spelling = str(value).strip()
    return spelling if _DATE.fullmatch(spelling) else iso(at_ms)


def scalar(value: object) -> Any:
    """A short text, a number or a truth."""
    if type(value) is str:
        return short_text(value)
    return value if type(value) is bool else number(value)


def texts(value: object) -> Any:
    """A list of short strings without repetitions; a lone value is a list of one."""
    items = value if type(value) is list else [value]
    fitted = (short_text(item) for item in items[: LIST_MAX * 4])
    known = list(dict.fromkeys(item for item in fitted if item is not MISSING))[:LIST_MAX]
    return known if known or not items else MISSING


def free(value: object) -> Any:
    """Any JSON, within bounds: what is too deep or too much is left out, and numbers can be written again."""
    left = FREE_MAX

    def fit(value: object, depth: int) -> Any:
        nonlocal left
        left -= 4
        if left < 0:
            return MISSING
        if type(value) is str:
            if len(value) > left:
                return MISSING
            left -= len(value)
            return value
        if value is None or type(value) is bool:
            return value
        if type(value) is int or type(value) is float:
            return number(value)
        if depth >= DEPTH_MAX:
            return MISSING
        if type(value) is list:
            fitted = (fit(item, depth + 1) for item in value)
            return [item for item in takewhile(room, fitted) if item is not MISSING]
        if type(value) is dict:
            fields: dict[str, Any] = {}
            for key, item in value.items():
                left -= len(key)
                if left < 0:
                    break
                if (kept := fit(item, depth + 1)) is not MISSING:
                    fields[key] = kept
            return fields
        return MISSING

    def room(_: object) -> bool:
        return left >= 0

    return fit(value, 0)


def free_object(value: object) -> Any:
    return free(value) if type(value) is dict else MISSING


def numbers(value: object) -> Any:
    """An object whose values are numbers."""
    if type(value) is not dict:
        return MISSING
    fitted = {key: number(item) for key, item in list(value.items())[:LIST_MAX] if len(key) <= TEXT_MAX}
    return {key: item for key, item in fitted.items() if item is not MISSING}


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
    return given


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
    "scalar": scalar,
    "numbers": numbers,
    "consents": consents,
    "geo": geo,
}
"""The kinds that ``data/fields.json`` may name."""
