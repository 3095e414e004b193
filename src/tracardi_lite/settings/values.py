"""One setting's value: read from what a person wrote, and written so that a person can read it. Pure.

Text and TOML values are read by the same rules: switches as yes/on/true/1 and no/off/false/0 in any case; sizes
also as ``64MB`` (powers of 1000) or ``64MiB`` (powers of 1024); durations also as ``500ms``, ``30s``, ``5m``, ``1h``,
``1d``. A size of ``64M`` is refused, since half of its readers mean the other number.
"""

from __future__ import annotations

import math
import re
from decimal import Decimal
from pathlib import Path
from typing import Any

from tracardi_lite.settings.fields import Field

_YES = {"yes", "on", "true", "1"}
_NO = {"no", "off", "false", "0"}

_CHOICE_ALIASES = {"warn": "warning", "critical": "error", "fatal": "error"}
"""Logging levels that Tracardi and Python know under another name."""

_UNITS: dict[str, dict[str, Decimal]] = {
    "bytes": {
        "": Decimal(1),
        "b": Decimal(1),
        **{prefix + "b": Decimal(1000) ** power for power, prefix in enumerate("kmgt", 1)},
        **{prefix + "ib": Decimal(1024) ** power for power, prefix in enumerate("kmgt", 1)},
    },
    "s": {
        "": Decimal(1),
        "ms": Decimal("0.001"),
        "s": Decimal(1),
        "m": Decimal(60),
        "min": Decimal(60),
        "h": Decimal(3600),
        "d": Decimal(86400),
        "w": Decimal(7 * 86400),
    },
}

_HINTS = {"bytes": " (64MiB, 64MB and the like are understood)", "s": " (500ms, 30s, 5m, 2h, 1d are understood)"}

_NUMBER = re.compile(r"([+-]?[0-9][0-9_]*(?:\.[0-9]+)?)\s*([a-z]*)", re.IGNORECASE)
_DIGITS_MAX = 30
"""Characters of a number: no setting needs more."""


class Wrong(ValueError):
    """A value that a setting can't have; the text says what was expected, never the value."""


def parse(field: Field, raw: object) -> Any:
    """The setting's value. ``raw`` is text (environment, flag) or a TOML value. Raises ``Wrong``."""
    match field.type:
        case "switch":
            return _switch(field, raw)
        case "choice":
            return _choice(field, raw)
        case "whole number" | "number":
            return _number(field, raw)
        case "text":
            if isinstance(raw, str):
                return raw
        case "path":
            if isinstance(raw, str | Path) and str(raw) and "\0" not in str(raw):
                return Path(raw).expanduser()
    raise Wrong(field.expected)


def _switch(field: Field, raw: object) -> bool:
    if isinstance(raw, bool):
        return raw
    word = str(raw).strip().lower() if isinstance(raw, str | int) else ""
    if word in _YES or word in _NO:
        return word in _YES
    raise Wrong(field.expected)


def _choice(field: Field, raw: object) -> str:
    word = raw.strip().lower() if isinstance(raw, str) else ""
    word = word if word in field.choices else _CHOICE_ALIASES.get(word, word)
    if word in field.choices:
        return word
    raise Wrong(field.expected)


def _number(field: Field, raw: object) -> int | float:
    expected = field.expected + _HINTS.get(field.option.unit, "")
    if isinstance(raw, bool) or not isinstance(raw, str | int | float):
        raise Wrong(expected)
    if isinstance(raw, float) and not math.isfinite(raw):
        raise Wrong(expected)
    # Through the shortest text that means the float: 0.01 is 0.01 here, and not the binary number next to it.
    text = raw.strip() if isinstance(raw, str) else format(Decimal(repr(raw)), "f")
    match = _NUMBER.fullmatch(text)
    if match is None or len(text) > _DIGITS_MAX:
        raise Wrong(expected)
    scale = _UNITS.get(field.option.unit, {"": Decimal(1)}).get(match[2].lower())
    if scale is None:
        raise Wrong(expected)
    exact = Decimal(match[1].replace("_", "")) * scale
    low, high = field.option.ge, field.option.le
    if (low is not None and exact < Decimal(repr(low))) or (high is not None and exact > Decimal(repr(high))):
        raise Wrong(expected)
    if field.type == "number":
        return float(exact)
    if exact != exact.to_integral_value():
        raise Wrong(expected)
    return int(exact)


_PASSWORD_IN_URL = re.compile(r"(//[^:/@\s]*:)[^@\s]+@")


def shown(field: Field, value: object, *, is_default: bool = False) -> str:
    """For people: switches as yes/no, round sizes in MiB, secrets and passwords in URLs masked."""
    if field.option.secret and value != "" and not is_default:
        return "(hidden)"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if field.option.unit == "bytes" and isinstance(value, int):
        return size(value)
    if isinstance(value, float):
        return f"{value:.15g}"
    return _PASSWORD_IN_URL.sub(r"\1***@", str(value))


def size(count: int) -> str:
    """A number of bytes in the largest binary unit that divides it, so that nothing is rounded away."""
    for power, unit in ((4, "TiB"), (3, "GiB"), (2, "MiB"), (1, "KiB")):
        if count and count % (1 << 10 * power) == 0:
            return f"{count >> 10 * power} {unit}"
    return str(count)


def plain(field: Field, value: object, *, is_default: bool = False) -> str | int | float | bool:
    """For programs: as JSON and TOML hold it, masked like ``shown``."""
    if isinstance(value, bool | int | float):
        return value
    return shown(field, value, is_default=is_default)
