"""What a payload's context and the request's headers tell of the visitor: the typed parts of a new session.

Tolerant of junk of any type: what does not fit is as if it had not been sent. Keys are those of the browser tracker:
``browser.local.browser{userAgent, language}``, ``screen.local{…}``, ``time.tz``, ``utm``, ``location``, ``device``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import msgspec

from tracardi_lite import data
from tracardi_lite.pipeline.paths import MISSING, get
from tracardi_lite.pipeline.user_agent import UserAgent, describe
from tracardi_lite.pipeline.values import geo as fit_geo
from tracardi_lite.pipeline.values import number, short_text

LANGUAGES_MAX = 16
IP_MAX = 45
"""The longest textual IPv6 address."""
_UTM = ("source", "medium", "campaign", "term", "content")
_NOBODY = UserAgent()
# RFC 5646 in outline: a language, then subtags.
_TAG = re.compile(r"[A-Za-z]{2,8}(?:-[A-Za-z0-9]{1,8}){0,5}")


def timezone(context: object) -> str | None:
    """The visitor's time zone, as ``Europe/Warsaw``."""
    return _text(context, "time", "tz")


def utm(context: object) -> dict[str, str | None]:
    """The five campaign fields, null where unknown; {} when none is known."""
    found = {key: _text(context, "utm", key) for key in _UTM}
    return found if any(found.values()) else {}


def geo(context: object) -> dict[str, Any]:
    """Where the visitor is, as the client says; {} when it does not."""
    place = fit_geo(get(context, ("location",)))
    return {} if place is MISSING else place


def agent_text(context: object, headers: Mapping[str, str]) -> str | None:
    """The User-Agent: the page's own word for it, else the request's header."""
    return _text(context, "browser", "local", "browser", "userAgent", limit=None) or headers.get("user-agent")


def visitor(context: object, headers: Mapping[str, str], ip: str | None) -> dict[str, dict[str, Any]]:
    """``device``, ``os``, ``app`` and ``utm`` of a new session."""
    text = agent_text(context, headers)
    agent = describe(text) if text else _NOBODY
    width, height = _screen(context, "width"), _screen(context, "height")
    resolution = f"{width}x{height}" if width and height else None
    touch = get(context, ("device", "touch"))
    depth = _screen(context, "colorDepth") or _screen(context, "pixelDepth")
    forwarded = headers.get("x-forwarded-for")
    place = geo(context)
    return {
        "device": {
            "name": _text(context, "device", "name") or agent.device,
            "brand": _text(context, "device", "brand") or agent.brand,
            "model": _text(context, "device", "model") or agent.model,
            "type": _text(context, "device", "type") or agent.type,
            "touch": touch if type(touch) is bool else agent.touch,
            "ip": forwarded.split(",", 1)[0].strip()[:IP_MAX] if forwarded else ip,
            "resolution": resolution,
            "color_depth": depth,
            "orientation": _orientation(context, width, height),
            "geo": place,
        },
        "os": {"name": agent.os, "version": agent.os_version},
        "app": {
            "type": agent.app_type,
            "name": agent.app,
            "version": agent.app_version,
            "language": _language(context, headers),
            "bot": agent.bot or headers.get("from") == "googlebot(at)googlebot.com",
            "resolution": _inner(context),
        },
        "utm": utm(context),
    }


def _text(context: object, *path: str, limit: int | None = 256) -> str | None:
    value = short_text(get(context, path))
    return value[:limit].strip() or None if value is not MISSING else None


def _screen(context: object, key: str) -> int | None:
    value = number(get(context, ("screen", "local", key)))
    if value is MISSING:
        value = number(get(context, ("screen", key)))
    return int(value) if value is not MISSING and 0 < value <= 1_000_000 else None


def _inner(context: object) -> str | None:
    width, height = _screen(context, "innerWidth"), _screen(context, "innerHeight")
    return f"{width}x{height}" if width and height else None


def _orientation(context: object, width: int | None, height: int | None) -> str | None:
    given = _text(context, "screen", "local", "orientation") or _text(context, "screen", "local", "orientation", "type")
    if given:
        # Browsers say "landscape-primary".
        return given.split("-", 1)[0].lower()
    if width and height:
        return "landscape" if width >= height else "portrait"
    return None


def _language(context: object, headers: Mapping[str, str]) -> str | None:
    given = _text(context, "browser", "local", "browser", "language")
    if given:
        return given
    tags = accepted_languages(headers.get("accept-language", ""))
    return tags[0] if tags else None


@lru_cache(maxsize=1024)
def accepted_languages(header: str) -> tuple[str, ...]:
    """The tags of an Accept-Language header, most wanted first; at most ``LANGUAGES_MAX``."""
    wanted: list[tuple[float, str]] = []
    for item in header[:1024].split(",")[:LANGUAGES_MAX]:
        tag, _, quality = item.strip().partition(";q=")
        weight = number(quality) if quality else 1.0
        if _TAG.fullmatch(tag) and weight is not MISSING and weight > 0:
            wanted.append((-weight, tag))
    return tuple(dict.fromkeys(tag for _, tag in sorted(wanted, key=lambda pair: pair[0])))


def languages(headers: Mapping[str, str]) -> tuple[list[str], list[str]]:
    """(English names, two-letter codes) of the languages that the browser asks for."""
    tags = accepted_languages(headers.get("accept-language", ""))
    codes = list(dict.fromkeys(tag.split("-", 1)[0].lower() for tag in tags))
    names = _names()
    return [names[code] for code in codes if code in names], codes


@lru_cache(maxsize=1)
def _names() -> dict[str, str]:
    return msgspec.json.decode(data.read("languages.json"), type=dict[str, str])
