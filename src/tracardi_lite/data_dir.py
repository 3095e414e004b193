"""The data directory: made where it is missing, and a start that can't have it told which setting names it, and why."""

from __future__ import annotations

import os
from pathlib import Path

from tracardi_lite.errors import Misconfigured
from tracardi_lite.settings import Settings


def is_used(settings: Settings) -> bool:
    """Whether anything is kept in it: a backend that is embedded and not told another place."""
    return "sqlite:" in (settings.queue_url, settings.store_url, settings.registry_url)


def prepare(settings: Settings) -> None:
    """Raises ``Misconfigured``. Nothing is made if nothing would be kept there."""
    if not is_used(settings):
        return
    path = settings.data_dir
    try:
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        reason = f"can't make {path}: {error.strerror}."
        raise Misconfigured("data_dir", reason, _fix(_existing(path))) from error
    if not os.access(path, os.R_OK | os.W_OK | os.X_OK):
        raise Misconfigured("data_dir", f"can't write in {path}.", _fix(path))


def _existing(path: Path) -> Path:
    """The nearest thing above that is there."""
    return next((above for above in path.absolute().parents if above.exists()), path)


def _fix(place: Path) -> str:
    if not place.is_dir():
        return f"{place} is not a directory. Choose another place with --data-dir or TRACARDI_LITE_DATA_DIR."
    return f"Let this user write in {place}, or choose another place with --data-dir or TRACARDI_LITE_DATA_DIR."
