"""TLS to servers: whom the settings say to trust, and what it means when a server can't be trusted.

Every served backend has the same settings, by the name of its technology: ``redis_ca_file``, ``redis_verify_certs`` and
so on. Certificate and host name are checked unless the latter says ``no``; nothing ever falls back to plain text.
"""

from __future__ import annotations

import ssl

from tracardi_lite.errors import Misconfigured, Unavailable, Untrusted
from tracardi_lite.settings.schema import Settings

_PASSING = frozenset({9, 10})
"""OpenSSL's "not yet valid" and "has expired": the server's fault or a clock's, and over without a change of ours."""
_NAMES = frozenset({62, 64})
"""OpenSSL's mismatches of host name and IP address."""


def context(settings: Settings, server: str) -> ssl.SSLContext:
    """What to speak TLS to ``server`` with: the beginning of its settings' names. ``Misconfigured`` for a bad file."""
    ca_file: str = getattr(settings, f"{server}_ca_file")
    try:
        found = ssl.create_default_context(cafile=ca_file or None)
    except OSError as error:
        raise Misconfigured(
            f"{server}_ca_file",
            f"{ca_file!r} is no file of certificates that can be read: {error.strerror or error}.",
            "Name a PEM file that this process may read, or leave it empty for the system's certificates.",
        ) from error
    if not getattr(settings, f"{server}_verify_certs"):
        found.check_hostname = False
        found.verify_mode = ssl.CERT_NONE
    return found


def fault(part: str, server: str, error: BaseException, address: str = "") -> Unavailable | None:
    """What is to be said of ``error``, if TLS is behind it; None if it is something else.

    ``part`` is the port's name (``cache``), ``server`` the beginning of its settings' names (``redis``), ``address``
    the setting that names the server, where it is not ``redis_host``.
    """
    address = address or f"{server}_host"
    found = _behind(error)
    if found is None or isinstance(found, ssl.SSLEOFError | ssl.SSLZeroReturnError):
        return None  # a server that ends while it is spoken to is away, TLS or not
    if not isinstance(found, ssl.SSLCertVerificationError):
        return no_tls(part, address, (found.reason or str(found)).lower().replace("_", " "))
    message = found.verify_message.removesuffix(".")
    if found.verify_code in _PASSING:
        return Unavailable(part, f"no TLS with what {address} names: {message}", 5.0)
    if found.verify_code in _NAMES:
        return Untrusted(
            part,
            address,
            f"the server has a certificate for another name: {message}.",
            "Connect by a name that its certificate is for, or have this one added to the certificate.",
        )
    return Untrusted(
        part,
        f"{server}_ca_file",
        f"the server's certificate is not trusted: {message}.",
        f"Set {server.upper()}_CA_FILE to the certificates (PEM) of the authority that issued it.",
    )


def no_tls(part: str, address: str, reason: str) -> Unavailable:
    """For a server that ``address``, a setting, names, and that speaks something else, or says nothing."""
    return Unavailable(part, f"no TLS with what {address} names: {reason}; does it speak TLS at this port?", 5.0)


def _behind(error: BaseException) -> ssl.SSLError | None:
    """Client libraries wrap it once or twice, by raising from it or by keeping what failed in ``errors``."""
    seen: set[int] = set()
    waiting: list[BaseException | None] = [error]
    while waiting:
        each = waiting.pop()
        if each is None or id(each) in seen:
            continue
        # The ssl module's own: aiohttp's inherit from them and lack what they tell.
        if isinstance(each, ssl.SSLError) and type(each).__module__ == "ssl":
            return each
        seen.add(id(each))
        waiting += [each.__cause__, each.__context__]
        waiting += [inner for inner in getattr(each, "errors", ()) or () if isinstance(inner, BaseException)]
    return None
