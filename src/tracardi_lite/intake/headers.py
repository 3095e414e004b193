"""Header values as text that can be stored and sent on.

HTTP lets a value hold any bytes over 127; aiohttp hands those that are no UTF-8 over as lone surrogates, which no
encoder takes. They must cost their sender a readable character, not the call.
"""

from __future__ import annotations

from collections.abc import Mapping

IP_LENGTH_MAX = 64


def readable(value: str) -> str:
    """The value, with U+FFFD for what is no UTF-8."""
    return value if value.isascii() else value.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def client_address(headers: Mapping[str, str], remote: str | None, trusted: str) -> str | None:
    """The client's IP: the peer's, or what the header named ``trusted`` says, if one is named and sent.

    ``trusted`` is in the case of the mapping's names, or the mapping knows no case.
    """
    if trusted:
        # The first hop of a list is the client, as the proxy that we are told to trust wrote it.
        forwarded = headers.get(trusted, "").partition(",")[0].strip()
        if forwarded:
            return readable(forwarded)[:IP_LENGTH_MAX]
    return remote
