"""Header values as text that can be stored and sent on.

HTTP lets a value hold any bytes over 127; aiohttp hands those that are no UTF-8 over as lone surrogates, which no
encoder takes. They must cost their sender a readable character, not the call.
"""

from __future__ import annotations


def readable(value: str) -> str:
    """The value, with U+FFFD for what is no UTF-8."""
    return value if value.isascii() else value.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
