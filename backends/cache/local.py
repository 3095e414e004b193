"""The cache where several processes of one host share a data directory: each its own memory, and one feed of moves.

What one process announces the others hear with their next look at it: a memory read, see ``ring``. Values are not
shared, the embedded store is as near; so nothing here has to be served, kept or cleaned up.

Losing the feed never breaks: where its file can't be made, announcements are heard in this process alone, and while it
can't be written (a full disk), by nobody; the log says so once.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self
from urllib.parse import unquote

import structlog

from tracardi_lite.backends.cache.ring import Ring
from tracardi_lite.backends.cache.values import Values
from tracardi_lite.backends.cache.words import Words
from tracardi_lite.clock import Clock, SystemClock
from tracardi_lite.ports.cache import Moves
from tracardi_lite.settings import Settings

FILE = "moved.ring"

log = structlog.get_logger(__name__)


def open_cache(url: str, settings: Settings, clock: Clock | None = None) -> LocalCache:
    """``local:`` keeps the feed in the data directory; ``local:///abs/path`` (or ``local:path``) elsewhere."""
    rest = url.partition(":")[2].removeprefix("//")
    folder = Path(unquote(rest)) if rest else settings.data_dir
    return LocalCache(folder / FILE, settings.directory_cache_size, clock or SystemClock())


class LocalCache:
    shared = False
    hears_all = True

    def __init__(self, file: Path, entries_max: int, clock: Clock) -> None:
        self._path = file
        self._values = Values(entries_max, clock)
        self._words = Words()
        """Used while there is no ring."""
        self._ring: Ring | None = None
        self._own: Moves = self._words.ear()
        self._deaf = False

    async def __aenter__(self) -> Self:
        try:
            self._ring = Ring(self._path)
        except OSError as error:
            self._note_deaf(error)
        else:
            self._own = _Ear(self._ring)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._values.clear()
        if self._ring is not None:
            self._ring.close()

    async def get(self, keys: Sequence[str]) -> list[bytes | None]:
        self._catch_up()
        return self._values.get(keys)

    async def add(self, values: Mapping[str, bytes], ttl_s: float) -> None:
        self._catch_up()
        self._values.add(values, ttl_s)

    async def announce(self, keys: Sequence[str]) -> None:
        self._values.mark(keys)
        if self._ring is None:
            self._words.say(keys)
        elif keys:
            try:
                if not await self._ring.write(keys):
                    log.warning("moves_not_announced", keys=len(keys), reason="another process holds the feed's lock")
            except OSError as error:
                self._note_deaf(error)

    def moves(self) -> Moves:
        return self._words.ear() if self._ring is None else _Ear(self._ring)

    async def ping(self) -> None:
        """Always there."""

    def _catch_up(self) -> None:
        """Do to our own values what others have announced."""
        news = self._own.heard()
        if news is None:
            self._values.clear()
        else:
            self._values.mark(news)

    def _note_deaf(self, error: OSError) -> None:
        if not self._deaf:
            self._deaf = True
            log.warning("moves_not_shared", file=str(self._path), reason=error.strerror or str(error))


class _Ear:
    def __init__(self, ring: Ring) -> None:
        self._ring = ring
        self._counts = ring.counts
        self._heard = ring.counts[0]

    def heard(self) -> Sequence[str] | None:
        count = self._counts[0]
        if count == self._heard:
            return ()
        start, self._heard = self._heard, count
        try:
            return self._ring.read(start, count)
        except OSError:
            return None
