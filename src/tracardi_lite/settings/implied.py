"""Which backend a named server implies, so that ``ELASTIC_HOST`` alone is enough, as in Tracardi. Pure."""

from __future__ import annotations

from collections.abc import Mapping

EMBEDDED_STORE = "sqlite:"

IMPLIED: tuple[tuple[str, str, str], ...] = (
    ("queue_url", "pulsar_host", "pulsar:"),
    ("store_url", "elastic_host", "elasticsearch:"),
    ("store_url", "elastic_cloud_id", "elasticsearch:"),
    ("cache_url", "redis_host", "redis:"),
    ("registry_url", "mysql_host", "mysql:"),
)
"""The URL's key, the setting that names a server, and what the URL is then. A backend that is not shipped has no such
setting, so nobody can have given it."""


def effective_urls(given: Mapping[str, object]) -> dict[str, tuple[str, str]]:
    """(Setting that implies it, URL) by key, for the URLs that ``given``, the settings that were written, leaves open.

    A URL that was written wins over a host; an empty host names nothing. A store elsewhere needs no file of ours beside
    it, and processes that share one need not share a disk: their cache is memory, unless something better is named.
    """
    urls = {key: (host, url) for key, host, url in reversed(IMPLIED) if key not in given and given.get(host)}
    host, store = urls.get("store_url", ("store_url", str(given.get("store_url") or EMBEDDED_STORE)))
    if not store.startswith(EMBEDDED_STORE) and "cache_url" not in given:
        urls.setdefault("cache_url", (host, "memory:"))
    return urls
