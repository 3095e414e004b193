"""Group commit: what arrives while a commit runs goes into the next one.

Publications gather on the loop. At the end of a turn they go to the writer as one group, if it has nothing to do; if it
has, they wait for it to come back. So loop and writer meet twice per group, whatever is in it: handing over each
publication by itself makes them fight for the interpreter lock.

The writer is two threads in a row: one joins and compresses a group, the other commits it. Where much is gathered, the
next group is compressed while this one is written. Both hold the interpreter lock for a few lines only; compression and
the one SQL statement run without.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections import deque
from collections.abc import Callable, Sequence

import structlog
from msgspec import Struct

from tracardi_lite.backends.queue.sqlite.appender import Appender
from tracardi_lite.backends.queue.sqlite.batch import Frame, Packer
from tracardi_lite.errors import TryLater
from tracardi_lite.ports.queue import Posted, Publication

GROUP_BYTES = 4 << 20
"""Enough to make a sync cheap per message; little enough to read, and to keep twice in memory."""
GROUP_MESSAGES = 4096
AHEAD_BYTES = 1 << 20
"""So much is worth compressing while another group is written; less makes a larger group of its own a moment later."""

Waiting = tuple[Publication, Posted]
Settle = Callable[[Sequence[Waiting], Exception | None, int], None]

log = structlog.get_logger(__name__)


class _Packed(Struct):
    """A group on its way from one thread to the other: its frame, or why there is none."""

    group: list[Waiting]
    frame: Frame | None
    error: Exception | None = None


class Writer:
    """``submit`` never blocks; the caller bounds what is in flight. ``settle(group, error, bytes written)`` is called
    in the loop, once for each group, in their order. All methods but ``join`` are the loop's."""

    def __init__(self, appender: Appender, packer: Packer, loop: asyncio.AbstractEventLoop, settle: Settle) -> None:
        self._appender = appender
        self._packer = packer
        self._loop = loop
        self._settle = settle
        self._gathering: deque[Waiting] = deque()
        self._gathered_bytes = 0
        self._in_hand = 0
        """Groups that are with the threads: two at most."""
        self._arranged = False
        """A group is going to be handed over at the end of this turn."""
        self._groups: queue.SimpleQueue[list[Waiting] | None] = queue.SimpleQueue()
        self._frames: queue.SimpleQueue[_Packed | None] = queue.SimpleQueue()
        self._threads = [
            threading.Thread(
                target=self._run, args=(self._pack_group, lambda: self._frames.put(None)), name="queue-packer"
            ),
            threading.Thread(target=self._run, args=(self._append_frame, appender.close), name="queue-writer"),
        ]

    def start(self) -> None:
        for thread in self._threads:
            thread.daemon = True
            thread.start()

    def submit(self, publication: Publication, done: Posted) -> None:
        self._gathering.append((publication, done))
        self._gathered_bytes += len(publication.body)
        if not self._arranged and self._may_hand_over():
            self._arranged = True
            # Not at once: the rest of this turn's arrivals come along.
            self._loop.call_soon(self._hand_over)

    def flush(self) -> None:
        """Let the threads write all that was submitted, in this order, before they end."""
        while self._gathering:
            self._groups.put(self._next_group())
        self._groups.put(None)

    def join(self) -> None:
        """Wait for the threads, after ``flush``. Blocks; not for the loop."""
        for thread in self._threads:
            thread.join()

    def _may_hand_over(self) -> bool:
        return not self._in_hand or (self._in_hand == 1 and self._gathered_bytes >= AHEAD_BYTES)

    def _hand_over(self) -> None:
        self._arranged = False
        if self._gathering and self._may_hand_over():
            self._in_hand += 1
            self._groups.put(self._next_group())

    def _next_group(self) -> list[Waiting]:
        gathering = self._gathering
        group: list[Waiting] = []
        size = 0
        while gathering and size < GROUP_BYTES and len(group) < GROUP_MESSAGES:
            waiting = gathering.popleft()
            group.append(waiting)
            size += len(waiting[0].body)
        self._gathered_bytes -= size
        return group

    def _settled(self, group: list[Waiting], error: Exception | None, written: int) -> None:
        self._in_hand -= 1
        # The next group first: the disk works while this one is answered.
        self._hand_over()
        self._settle(group, error, written)

    # --- in the threads; nothing of a turn outlives it, or the last bodies would stay in memory while it is idle ---

    def _run(self, turn: Callable[[], bool], end: Callable[[], None]) -> None:
        try:
            while turn():
                pass
        finally:
            end()

    def _pack_group(self) -> bool:
        group = self._groups.get()
        if group is None:
            return False
        try:
            packed = _Packed(group, self._packer.pack([publication for publication, _ in group]))
        except Exception as bug:
            log.exception("queue_writer_failed")
            packed = _Packed(group, None, bug)
        self._frames.put(packed)
        return True

    def _append_frame(self) -> bool:
        packed = self._frames.get()
        if packed is None:
            return False
        written = 0
        error = packed.error
        if packed.frame is not None:
            try:
                self._appender.append(packed.frame)
                written = len(packed.frame.data)
            except TryLater as refusal:
                error = refusal
            except Exception as bug:
                log.exception("queue_writer_failed")
                error = bug
        self._loop.call_soon_threadsafe(self._settled, packed.group, error, written)
        return True
