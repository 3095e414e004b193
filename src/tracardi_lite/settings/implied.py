"""Which backend a named server implies, so that ``ELASTIC_HOST`` alone is enough, as in Tracardi. Pure."""

from __future__ import annotations

from collections.abc import Mapping

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

    A URL that was written wins over a host; an empty host names nothing.
    """
    return {key: (host, url) for key, host, url in reversed(IMPLIED) if key not in given and given.get(host)}
