"""Noticing other processes' publications, for next to no CPU: a thread that looks at file times, and wakes the loop
only when they changed. A quarter of a second between two looks in idle times is 0.03 % of a core; asking the database
through the loop that often was 0.6 %.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable
from pathlib import Path

from tracardi_lite.backends.queue.sqlite import segment as segments

LOOK_MIN_S = 0.05
LOOK_MAX_S = 0.25
SLOWER = 1.5
"""Each look that finds nothing makes the next pause so much longer."""

Signature = tuple[int, ...]


class Watcher:
    """``changed`` is called in the loop. A change may be missed where two fall into one tick of the file system's
    clock, so whoever relies on it looks for himself now and then."""

    def __init__(self, folder: Path, loop: asyncio.AbstractEventLoop, changed: Callable[[], None]) -> None:
        self._folder = folder
        self._loop = loop
        self._changed = changed
        self._last = ""
        self._folder_ns = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="queue-watcher", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Blocks until the thread has ended: at once."""
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        pause_s = LOOK_MIN_S
        seen: Signature = ()
        while not self._stop.wait(pause_s):
            now = self._look()
            if now == seen:
                pause_s = min(pause_s * SLOWER, LOOK_MAX_S)
                continue
            seen = now
            pause_s = LOOK_MIN_S
            self._loop.call_soon_threadsafe(self._changed)

    def _look(self) -> Signature:
        """Times and sizes of the folder and of the segment that is appended to."""
        try:
            folder_ns = os.stat(self._folder).st_mtime_ns
            if folder_ns != self._folder_ns:
                self._last = segments.listed(self._folder)[-1].file
                self._folder_ns = folder_ns
            log = os.stat(self._folder / f"{self._last}-wal")
        except (OSError, IndexError):
            return ()
        return folder_ns, log.st_mtime_ns, log.st_size
