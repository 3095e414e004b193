"""Where Redis is and how to log in, from a URL and the settings; cache and queue share it. Pure.

What the URL says wins: ``redis://[user:password@]host[:port][/db]``, ``rediss://`` for TLS. ``redis:`` alone stands for
REDIS_HOST, which may be written as a host, host:port or a URL itself.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import unquote, urlsplit

from tracardi_lite import tls
from tracardi_lite.errors import Misconfigured
from tracardi_lite.settings.schema import Settings


def redis_options(url: str, settings: Settings) -> dict[str, Any]:
    """Keyword arguments for redis-py's client."""
    text = url if url.partition(":")[2].strip("/") else settings.redis_host
    if not text:
        raise Misconfigured("redis_host", "no Redis is named.", "Set REDIS_HOST=redis://host:6379")
    parts = urlsplit(text if "://" in text else f"redis://{text}")
    try:
        port = parts.port
        db = int(parts.path.strip("/") or settings.redis_db)
    except ValueError as error:
        raise Misconfigured("redis_host", f"is no address: {error}.", "Write redis://host:6379/0") from error
    if parts.scheme not in ("redis", "rediss") or not parts.hostname:
        raise Misconfigured("redis_host", "is no address.", "Write redis://host:6379, or rediss:// for TLS")
    options: dict[str, Any] = {
        "host": parts.hostname,
        "port": port or settings.redis_port,
        "db": db,
        "username": unquote(parts.username or "") or settings.redis_username or None,
        "password": unquote(parts.password or "") or settings.redis_password or None,
    }
    if parts.scheme == "rediss" or settings.redis_tls:
        tls.context(settings, "redis")  # The client makes its own, later; a file that is no good is told now.
        options["ssl"] = True
        options["ssl_ca_certs"] = settings.redis_ca_file or None
        options["ssl_cert_reqs"] = "required" if settings.redis_verify_certs else "none"
        options["ssl_check_hostname"] = settings.redis_verify_certs
    return options
