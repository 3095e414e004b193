"""Where Redis is and how to log in, from a URL and the settings, and a client for it; cache and queue share this.

What the URL says wins: ``redis://[user:password@]host[:port][/db]``, ``rediss://`` for TLS. ``redis:`` alone stands for
REDIS_HOST, which may be written as a host, host:port or a URL itself. The client library, an extra, is the caller's.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable, Mapping
from typing import Any, TypeVar
from urllib.parse import unquote, urlsplit

from tracardi_lite import tls
from tracardi_lite.errors import Misconfigured
from tracardi_lite.settings.schema import Settings

C = TypeVar("C")


def redis_options(url: str, settings: Settings) -> dict[str, Any]:
    """What ``connect`` wants to know: keyword arguments for redis-py's client, and the context of TLS as ``tls``."""
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
        options["ssl"] = True
        options["tls"] = tls.context(settings, "redis")
    return options


def connect(client: Callable[..., C], options: Mapping[str, Any], **more: Any) -> C:
    """redis-py's ``client`` with the options; nothing is connected before it is needed."""
    given = {**options, **more}
    context = given.pop("tls", None)
    made = client(**given)
    if context is not None:
        _share(made.connection_pool, context)  # type: ignore[attr-defined]
    return made


def _share(pool: Any, context: ssl.SSLContext) -> None:
    """Connections by themselves make a context each while they connect: 50 ms and more of the loop's time and
    of REDIS_TIMEOUT for reading the system's authorities, which then are trusted beside the one that was named."""

    class Connection(pool.connection_class):  # type: ignore[misc]
        def __init__(self, **options: Any) -> None:
            super().__init__(**options)
            self.ssl_context.context = context

    pool.connection_class = Connection
