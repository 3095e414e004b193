"""Group commit: what arrives while a commit runs goes into the next one.

Publications gather on the loop. At the end of a turn they go to the writer thread as one group, if it has nothing to
do; if it has, they wait for it to come back. So the two threads meet twice per group, whatever is in it: handing over
each publication by itself makes them fight for the interpreter lock.

The thread holds the interpreter lock only to join a group's bytes; compression and the one SQL statement run without.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections import deque
from collections.abc import Callable, Sequence

import structlog

from tracardi_lite.backends.queue.sqlite.appender import Appender
from tracardi_lite.backends.queue.sqlite.batch import Packer
from tracardi_lite.errors import TryLater
from tracardi_lite.ports.queue import Posted, Publication

GROUP_BYTES = 2 << 20
"""Enough to make a sync cheap per message; little enough to read, and to keep three times in memory. 4 MiB are 5 %
faster at 100 events per post, and take 6 MiB more."""
GROUP_MESSAGES = 4096

Waiting = tuple[Publication, Posted]
Settle = Callable[[Sequence[Waiting], Exception | None, int], None]

log = structlog.get_logger(__name__)


class Writer:
    """``submit`` never blocks; the caller bounds what is in flight. ``settle(group, error, bytes written)`` is called
    in the loop, once for each group. All methods but ``join`` are the loop's."""

    def __init__(self, appender: Appender, packer: Packer, loop: asyncio.AbstractEventLoop, settle: Settle) -> None:
        self._appender = appender
        self._packer = packer
        self._loop = loop
        self._settle = settle
        self._gathering: deque[Waiting] = deque()
        self._at_work = False
        """A group is with the thread, or will be at the end of this turn."""
        self._groups: queue.SimpleQueue[list[Waiting] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="queue-writer", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def submit(self, publication: Publication, done: Posted) -> None:
        self._gathering.append((publication, done))
        if not self._at_work:
            self._at_work = True
            # Not at once: the rest of this turn's arrivals come along.
            self._loop.call_soon(self._hand_over)

    def flush(self) -> None:
        """Let the thread write all that was submitted, in this order, before it ends."""
        while self._gathering:
            self._groups.put(self._next_group())
        self._groups.put(None)

    def join(self) -> None:
        """Wait for the thread, after ``flush``. Blocks; not for the loop."""
        self._thread.join()

    def _hand_over(self) -> None:
        if self._gathering:
            self._groups.put(self._next_group())
        else:
            self._at_work = False

    def _next_group(self) -> list[Waiting]:
        gathering = self._gathering
        group: list[Waiting] = []
        size = 0
        while gathering and size < GROUP_BYTES and len(group) < GROUP_MESSAGES:
            waiting = gathering.popleft()
            group.append(waiting)
            size += len(waiting[0].body)
        return group

    def _settled(self, group: list[Waiting], error: Exception | None, written: int) -> None:
        self._settle(group, error, written)
        # At the end of the turn, though the thread has nothing to do till then: whoever is answered now sends the next,
        # and groups get three times as large where the disk is quick.
        self._loop.call_soon(self._hand_over)

    def _run(self) -> None:
        try:
            while self._write_group():
                pass
        finally:
            self._appender.close()

    def _write_group(self) -> bool:
        """One turn; nothing of its group outlives it, or the last bodies would stay in memory while it is idle."""
        group = self._groups.get()
        if group is None:
            return False
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
        self._loop.call_soon_threadsafe(self._settled, group, error, written)
        return True
