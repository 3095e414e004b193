"""The writer thread: group commit. What arrives while a commit runs goes into the next one.

It holds the interpreter lock only to join a group's bytes; compression and the one SQL statement run without it. The
event loop is woken once per group.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable, Sequence

import structlog

from tracardi_lite.backends.queue.sqlite.appender import Appender
from tracardi_lite.backends.queue.sqlite.batch import Packer
from tracardi_lite.errors import TryLater
from tracardi_lite.ports.queue import Publication

GROUP_BYTES = 4 << 20
"""Enough to make a sync cheap per message; little enough to read, and to keep twice in memory."""
GROUP_MESSAGES = 4096

Waiting = tuple[Publication, "asyncio.Future[None]"]
Settle = Callable[[Sequence[Waiting], Exception | None, int], None]

log = structlog.get_logger(__name__)


class Writer:
    """``submit`` never blocks; the caller bounds what is in flight. ``settle(group, error, bytes written)`` is called
    in the loop, once for each group."""

    def __init__(self, appender: Appender, packer: Packer, loop: asyncio.AbstractEventLoop, settle: Settle) -> None:
        self._appender = appender
        self._packer = packer
        self._loop = loop
        self._settle = settle
        self._waiting: queue.SimpleQueue[Waiting | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="queue-writer", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def submit(self, publication: Publication, future: asyncio.Future[None]) -> None:
        self._waiting.put((publication, future))

    def stop(self) -> None:
        """Write what was submitted before, then end. Blocks."""
        self._waiting.put(None)
        self._thread.join()

    def _run(self) -> None:
        try:
            while self._write_group():
                pass
        finally:
            self._appender.close()

    def _write_group(self) -> bool:
        """One turn; nothing of its group outlives it, or the last bodies would stay in memory while it is idle."""
        first = self._waiting.get()
        if first is None:
            return False
        group, goes_on = self._gather(first)
        written = 0
        error: Exception | None = None
        try:
            frame = self._packer.pack([publication for publication, _ in group])
            self._appender.append(frame)
            written = len(frame.data)
        except TryLater as refusal:
            error = refusal
        except Exception as bug:
            log.exception("queue_writer_failed")
            error = bug
        self._loop.call_soon_threadsafe(self._settle, group, error, written)
        return goes_on

    def _gather(self, first: Waiting) -> tuple[list[Waiting], bool]:
        group = [first]
        size = len(first[0].body)
        while size < GROUP_BYTES and len(group) < GROUP_MESSAGES:
            try:
                following = self._waiting.get_nowait()
            except queue.Empty:
                break
            if following is None:
                return group, False
            group.append(following)
            size += len(following[0].body)
        return group, True
