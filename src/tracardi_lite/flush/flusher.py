"""The bulk write: chunks in, one final verdict per item out, however often the store says "not now".

Invariants: verdicts come back in the items' order and none is RETRY; a call that fails as a whole is repeated (every
operation of the store is idempotent). Bounds: a request holds at most ``events`` items and ``bytes`` bytes (or one item
that is larger by itself); after refusals requests shrink by half, down to one item, and double again with each that
goes through. Tries are not counted: while the store is away the queue holds everything, so a flusher waits, for as long
as nobody sets the stop event.

One flusher serves all lanes of a worker, so that each learns from the others' refusals.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from functools import partial
from typing import TypeVar

import structlog

from tracardi_lite.clock import Clock
from tracardi_lite.errors import TryLater
from tracardi_lite.flush.health import WorkerHealth
from tracardi_lite.flush.retry import Backoff, pause
from tracardi_lite.metrics import Metrics
from tracardi_lite.ports.store import EventWrite, Kind, Outcome, RecordWrite, Store, Verdict

log = structlog.get_logger(__name__)

T = TypeVar("T")
Write = TypeVar("Write", EventWrite, RecordWrite)


class Flusher:
    def __init__(
        self,
        store: Store,
        clock: Clock,
        backoff: Backoff,
        health: WorkerHealth,
        metrics: Metrics,
        stop: asyncio.Event,
        *,
        events: int,
        bytes: int,
    ) -> None:
        self._store = store
        self._clock = clock
        self._backoff = backoff
        self._health = health
        self._metrics = metrics
        self._stop = stop
        self._events = self._size = events
        self._bytes = bytes

    @property
    def request_items_max(self) -> int:
        """How many items a request may hold just now."""
        return self._size

    async def create(self, events: Sequence[EventWrite]) -> list[Verdict]:
        """Outcomes STORED, SAME, EXISTS, NEVER. Raises ``Stopped``; what was done by then is harmless."""
        return await self._write("event", self._store.create_events, events)

    async def put(self, kind: Kind, writes: Sequence[RecordWrite]) -> list[Verdict]:
        """Outcomes STORED, CONFLICT, NEVER. Raises ``Stopped``.

        A write whose call failed may have been done: its repetition is a CONFLICT then, and the caller, reading the
        record again, finds it applied.
        """
        return await self._write(kind, self._store.put, writes)

    async def call(self, act: Callable[[], Awaitable[T]]) -> T:
        """Repeat an idempotent call of the store until it does not raise ``TryLater``. Raises ``Stopped``."""
        result = await self._repeat(act)
        self._note_up()
        return result

    async def _repeat(self, act: Callable[[], Awaitable[T]]) -> T:
        failures = 0
        while True:
            try:
                return await act()
            except TryLater as error:
                failures += 1
                await self._wait_out(failures, str(error), error.retry_after_s)

    async def _write(
        self, kind: Kind, act: Callable[[Sequence[Write]], Awaitable[list[Verdict]]], items: Sequence[Write]
    ) -> list[Verdict]:
        verdicts: dict[int, Verdict] = {}
        waiting: Sequence[int] = range(len(items))
        failures = 0
        while waiting:
            refused: list[int] = []
            reason = ""
            for chunk in self._chunks(items, waiting):
                answers = await self._repeat(partial(act, [items[index] for index in chunk]))
                assert len(answers) == len(chunk), "a store gives one verdict per item"
                for index, verdict in zip(chunk, answers, strict=True):
                    if verdict.outcome is Outcome.RETRY:
                        refused.append(index)
                        reason = verdict.reason
                    else:
                        verdicts[index] = verdict
                self._note_chunk(kind, [verdict.outcome for verdict in answers])
            if refused:
                # Once anything goes through the store lives, and the pauses start over.
                failures = failures + 1 if len(refused) == len(waiting) else 1
                await self._wait_out(failures, reason or "refused some items")
            else:
                self._note_up()
            waiting = refused
        return [verdicts[index] for index in range(len(items))]

    def _chunks(self, items: Sequence[Write], waiting: Sequence[int]) -> Iterator[list[int]]:
        """Indices in order, cut by the size that holds when each chunk is drawn."""
        chunk: list[int] = []
        size = 0
        for index in waiting:
            length = len(items[index].doc)
            if chunk and (len(chunk) >= self._size or size + length > self._bytes):
                yield chunk
                chunk, size = [], 0
            chunk.append(index)
            size += length
        if chunk:
            yield chunk

    def _note_chunk(self, kind: Kind, outcomes: list[Outcome]) -> None:
        # Counted by identity, kind by kind: hashing an enum's member is Python code, once per event.
        for outcome in Outcome:
            if count := outcomes.count(outcome):
                self._metrics.verdicts.add(kind, outcome.value, count=count)
                if outcome not in (Outcome.RETRY, Outcome.NEVER):
                    self._health.last_write = self._clock.monotonic()
        if Outcome.RETRY in outcomes:
            self._size = max(1, self._size // 2)
        else:
            self._size = min(self._events, self._size * 2)

    async def _wait_out(self, failures: int, reason: str, at_least_s: float = 0.0) -> None:
        self._metrics.retries.add()
        if self._health.store_down_since is None:
            self._health.store_down_since = self._clock.monotonic()
            log.warning("store_not_now", reason=reason)
        await pause(self._stop, self._clock, self._backoff.pause_s(failures, at_least_s))

    def _note_up(self) -> None:
        if self._health.store_down_since is not None:
            self._health.store_down_since = None
            log.warning("store_back")
