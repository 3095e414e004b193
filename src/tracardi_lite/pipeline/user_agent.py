"""What a User-Agent header says of system, device and program, and whether it is a bot's.

Parsing takes about a millisecond with the pure-Python rules, so results are kept (``CACHE`` of them, least recently
used out first) and a text longer than ``TEXT_MAX`` is cut. ``ua-parser-rs`` (the extra ``fast``) parses in a sixtieth
of that and is used when it is installed; it holds about 27 MiB more. The rules are loaded at the first parse, so a
process that never opens a session never holds them. ``is_bot`` is one regular expression and needs none of this.
"""

from __future__ import annotations

import re
from functools import cache, lru_cache
from typing import TYPE_CHECKING

from msgspec import Struct

if TYPE_CHECKING:
    from ua_parser.core import Resolver

CACHE = 2048
TEXT_MAX = 384

# Programs that fetch pages without a person: those that name themselves bots, and the well-known ones that don't.
# "Cubot" makes telephones. HeadlessChrome, curl and HTTP libraries are left alone: tests and back-offices use them.
_BOT = re.compile(
    r"(?<!cu)bots?(?![a-z])|crawl|spider|slurp|archiver|scrapy|heritrix|nutch|facebookexternalhit|bingpreview|teoma"
    r"|mediapartners-google|google-inspectiontool|google favicon|google web preview|duckduckgo-favicons|yeti/|daum/"
    r"|yandex(?:images|video|media|blogs|metrika|direct)|qwantify|pingdom|statuscake|skypeuripreview|embedly"
    r"|whatsapp/|ptst/|screaming frog",
    re.IGNORECASE,
)
_DESKTOP = re.compile(r"Windows NT|X11;|Macintosh")
_HAND_HELD = re.compile(r"Android|Mobile|Tablet|Touch|TV|Tizen|Web0S|Xbox|PlayStation|Kindle|Silk")
_PC_SYSTEMS = frozenset(
    {"Windows", "Mac OS X", "Linux", "Ubuntu", "Debian", "Fedora", "Chrome OS", "FreeBSD", "OpenBSD", "Solaris"}
)
_TOUCH_SYSTEMS = frozenset(
    {"iOS", "iPadOS", "Android", "Windows Phone", "BlackBerry OS", "Symbian OS", "Tizen", "KaiOS"}
)


class UserAgent(Struct, frozen=True):
    """``Other`` and "" stand for what the text does not tell, as the original writes them."""

    os: str = "Other"
    os_version: str = ""
    device: str = "Other"
    brand: str | None = None
    model: str | None = None
    type: str | None = None
    """``pc``, ``mobile``, ``tablet``, or None."""
    touch: bool = False
    app: str = "Other"
    app_version: str = ""
    app_type: str = "other"
    """``browser``, or ``other`` for libraries and bots."""
    bot: bool = False


def is_bot(user_agent: str) -> bool:
    """Whether the text names a bot. Some 60 ns for one that was seen before."""
    return _is_bot(user_agent[:TEXT_MAX])


@lru_cache(maxsize=CACHE)
def _is_bot(user_agent: str) -> bool:
    return _BOT.search(user_agent) is not None


def describe(user_agent: str) -> UserAgent:
    """What the text tells. Never raises."""
    return _describe(user_agent[:TEXT_MAX])


@lru_cache(maxsize=CACHE)
def _describe(text: str) -> UserAgent:
    if "/" not in text and "(" not in text:
        # No program calls itself so, and the rules take longest over what none of them matches.
        return UserAgent(bot=is_bot(text))
    from ua_parser.core import Domain

    # Most rules, and most of the time, are for naming hand-held devices; a desktop browser names none.
    desktop = _DESKTOP.search(text) is not None and _HAND_HELD.search(text) is None
    wanted = Domain.USER_AGENT | Domain.OS
    found = _resolver()(text, wanted if desktop else wanted | Domain.DEVICE)
    system, app, device = found.os, found.user_agent, found.device
    os = system.family if system else "Other"
    name, brand, model = ("Mac", "Apple", "Mac") if desktop and "Macintosh" in text else ("Other", None, None)
    if device:
        name, brand, model = device.family, device.brand, device.model
    bot = is_bot(text)
    kind = None if bot else _device_type(text, os, name)
    return UserAgent(
        os=os,
        os_version=_version(system.major, system.minor, system.patch, system.patch_minor) if system else "",
        device=name,
        brand=brand,
        model=model,
        type=kind,
        touch=kind in ("mobile", "tablet") or os in _TOUCH_SYSTEMS or "Touch" in text,
        app=app.family if app else "Other",
        app_version=_version(app.major, app.minor, app.patch) if app else "",
        app_type="browser" if text.startswith(("Mozilla/", "Opera/")) and not bot else "other",
        bot=bot,
    )


def _device_type(text: str, os: str, device: str) -> str | None:
    if (
        device.startswith("iPad")
        or "Tablet" in text
        or "Kindle" in device
        or (os == "Android" and "Mobile" not in text)
    ):
        return "tablet"
    if "Mobi" in text or device in ("iPhone", "iPod") or os in ("Windows Phone", "BlackBerry OS", "KaiOS"):
        return "mobile"
    return "pc" if os in _PC_SYSTEMS else None


def _version(*parts: str | None) -> str:
    known = []
    for part in parts:
        if part is None:
            break
        known.append(part)
    return ".".join(known)


@cache
def _resolver() -> Resolver:
    try:
        from ua_parser.loaders import load_builtins
        from ua_parser.regex import Resolver as Fast

        return Fast(load_builtins())
    except ImportError:
        from ua_parser.basic import Resolver as Plain
        from ua_parser.loaders import load_lazy_builtins

        return Plain(load_lazy_builtins())
