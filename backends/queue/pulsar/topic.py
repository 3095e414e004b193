"""A small compacted topic, read to its end on demand: the journal and the index of dead letters are such.

Reading costs nothing until somebody asks; then what was written since the last time is read, in a thread.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import Any

import pulsar

from tracardi_lite.backends.queue.pulsar.client import Blocking, close_quietly
from tracardi_lite.errors import Unavailable

READ_TIMEOUT_MS = 3000
REFRESH_TIMEOUT_S = 60.0
"""For the first reading of a long topic; what was read by then is kept and the next call goes on."""


class Tail:
    """Calls ``apply(message)`` on the loop, once per message, in the topic's order."""

    def __init__(self, blocking: Blocking, topic: str, apply: Callable[[Any], None]) -> None:
        self._blocking = blocking
        self._topic = topic
        self._apply = apply
        self._reader: Any = None
        self._last: Any = None
        self._reading: asyncio.Task[None] | None = None
        self.bytes = 0
        """Read since the topic was opened."""

    async def refresh(self) -> None:
        """Read to the end as it is now. Callers that wait together share one reading. Raises ``Unavailable``.

        A caller that is cancelled leaves the reading to the others: a message that a thread has read is applied.
        """
        running = self._reading
        if running is not None and not running.done():
            await asyncio.wait([running])
        if self._reading is running:
            self._reading = asyncio.create_task(self._read())
            self._reading.add_done_callback(lambda task: task.cancelled() or task.exception())
        assert self._reading is not None
        await asyncio.shield(self._reading)

    async def close(self) -> None:
        if self._reading is not None:
            await asyncio.wait([self._reading])
        await self._drop()

    async def _drop(self) -> None:
        if self._reader is not None:
            reader, self._reader = self._reader, None
            await self._blocking.run(close_quietly, reader)

    async def _read(self) -> None:
        deadline = time.monotonic() + REFRESH_TIMEOUT_S
        try:
            if self._reader is None:
                self._reader = await self._blocking.run(
                    self._blocking.client.create_reader,
                    self._topic,
                    self._last or pulsar.MessageId.earliest,
                    start_message_id_inclusive=False,
                    is_read_compacted=True,
                )
            more = True
            while more:
                messages, more = await self._blocking.run(burst, self._reader)
                for message in messages:
                    self._last = message.message_id()
                    self.bytes += len(message.data())
                    self._apply(message)
                if time.monotonic() > deadline:
                    raise Unavailable("queue", f"reading {self._topic} takes long")
        except Unavailable:
            await self._drop()
            raise


def burst(reader: Any, limit: int = 1000) -> tuple[list[Any], bool]:
    """The next messages, and whether there may be more."""
    found: list[Any] = []
    while reader.has_message_available():
        try:
            found.append(reader.read_next(READ_TIMEOUT_MS))
        except pulsar.Timeout:
            return found, False
        if len(found) >= limit:
            return found, True
    return found, False
