"""The store on SQLite: nothing to install, several processes on one host, a file per kind and partition."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote

from tracardi_lite.backends.store.sqlite.store import SqliteStore
from tracardi_lite.errors import Misconfigured
from tracardi_lite.settings import Settings

__all__ = ["SqliteStore", "open_store"]


def open_store(url: str, settings: Settings) -> SqliteStore:
    """``sqlite:`` keeps the files in ``<data_dir>/store``; ``sqlite:///abs/path`` (or ``sqlite:path``) elsewhere."""
    rest = url.partition(":")[2]
    if rest.startswith("//"):
        host, slash, path = rest[2:].partition("/")
        if host or not path:
            raise Misconfigured("store_url", f"{url!r} names no folder.", "Write sqlite:///absolute/path or sqlite:")
        rest = slash + path
    return SqliteStore(Path(unquote(rest)) if rest else settings.data_dir / "store")
