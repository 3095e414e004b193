"""From a URL's scheme to an open backend: the only module that knows where backends are, as strings.

Ours and third parties' register in the same way, as entry points of the groups ``tracardi_lite.queue``, ``.store``,
``.cache`` and ``.registry``; each names a function ``(url: str, settings: Settings) -> port``. It is imported only
when its scheme is chosen, so a machine without Pulsar's client still runs the embedded queue.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from tracardi_lite.errors import Misconfigured
from tracardi_lite.ports.cache import Cache
from tracardi_lite.ports.queue import Queue
from tracardi_lite.ports.registry import Registry
from tracardi_lite.ports.store import Store
from tracardi_lite.settings import Settings

# Found even where the package is run from a checkout without having been installed.
BUILT_IN: dict[str, dict[str, str]] = {
    "queue": {
        "memory": "tracardi_lite.backends.queue.memory:open_queue",
        "sqlite": "tracardi_lite.backends.queue.sqlite:open_queue",
        "pulsar": "tracardi_lite.backends.queue.pulsar:open_queue",
        "redis": "tracardi_lite.backends.queue.redis:open_queue",
        "rediss": "tracardi_lite.backends.queue.redis:open_queue",
    },
    "store": {
        "memory": "tracardi_lite.backends.store.memory:open_store",
        "sqlite": "tracardi_lite.backends.store.sqlite:open_store",
        "elasticsearch": "tracardi_lite.backends.store.elasticsearch:open_store",
    },
    "cache": {
        "local": "tracardi_lite.backends.cache.local:open_cache",
        "memory": "tracardi_lite.backends.cache.memory:open_cache",
        "redis": "tracardi_lite.backends.cache.redis:open_cache",
        "rediss": "tracardi_lite.backends.cache.redis:open_cache",
    },
    "registry": {
        "sqlite": "tracardi_lite.backends.registry.sql:open_registry",
        "mysql": "tracardi_lite.backends.registry.sql.mysql:open_registry",
        "mariadb": "tracardi_lite.backends.registry.sql.mysql:open_registry",
    },
}

EXTRAS = {"mariadb": "mysql", "rediss": "redis"}
"""Schemes whose extra has another name."""


def open_queue(settings: Settings) -> Queue:
    queue: Queue = _factory("queue", settings.queue_url)(settings.queue_url, settings)
    return queue


def open_store(settings: Settings) -> Store:
    store: Store = _factory("store", settings.store_url)(settings.store_url, settings)
    return store


def open_cache(settings: Settings) -> Cache:
    cache: Cache = _factory("cache", settings.cache_url)(settings.cache_url, settings)
    return cache


def open_registry(settings: Settings) -> Registry:
    registry: Registry = _factory("registry", settings.registry_url)(settings.registry_url, settings)
    return registry


def _factory(port: str, url: str) -> Callable[[str, Settings], Any]:
    scheme = url.partition(":")[0].partition("+")[0]
    known = dict(BUILT_IN[port])
    known |= {point.name: point.value for point in entry_points(group=f"tracardi_lite.{port}")}
    if scheme not in known:
        near = difflib.get_close_matches(scheme, known, 1)
        raise Misconfigured(
            f"{port}_url",
            f"no {port} backend for the scheme {scheme!r}.",
            f"Did you mean {near[0]}:?" if near else f"Known: {', '.join(sorted(known))}.",
        )
    try:
        factory = EntryPoint(scheme, known[scheme], "").load()
    except ModuleNotFoundError as error:
        raise Misconfigured(
            f"{port}_url",
            f"the backend {scheme!r} needs {error.name}.",
            f"pip install 'tracardi-lite[{EXTRAS.get(scheme, scheme)}]'",
        ) from error
    assert callable(factory)
    return factory  # type: ignore[no-any-return]
