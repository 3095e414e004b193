"""A client that keeps a running program as busy as it can be without a growing backlog."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from msgspec import Struct

from bench import payloads
from tests.acceptance.program import Program
from tracardi_lite.client import AsyncClient

BACKLOG_EVENTS = 20_000
"""Events that may wait in the queue: some flushes' worth, so that lanes are never hungry and the backlog is bounded."""
CONNECTIONS = 12
CHUNKS = 100
POLL_S = 0.1


class Progress(Struct, frozen=True):
    """The ledger at a moment of the monotonic clock."""

    at_s: float
    stored: float
    pending: float


async def progress(program: Program) -> Progress:
    samples = await program.metrics()

    def total(name: str) -> float:
        return sum(value for sample, value in samples.items() if sample.partition("{")[0] == name)

    return Progress(
        time.monotonic(),
        total("tracardi_lite_events_stored_total"),
        total("tracardi_lite_events_pending"),
    )


class Feed:
    """Posts 100 events per call while fewer than BACKLOG_EVENTS wait."""

    def __init__(self, program: Program, seed: int) -> None:
        self.program = program
        self.last = Progress(0, 0, 0)
        self._random = random.Random(seed)
        self._chunks = payloads.chunks(self._random, CHUNKS)
        self._room = asyncio.Event()
        self._room.set()

    async def stored(self, events: float, within_s: float) -> Progress:
        """Waits until that many more have been stored."""
        goal = (await progress(self.program)).stored + events
        deadline = time.monotonic() + within_s
        while self.last.stored < goal:
            assert time.monotonic() < deadline, f"stuck at {self.last}"
            await asyncio.sleep(POLL_S)
        return self.last

    async def watch(self) -> None:
        while True:
            self.last = await progress(self.program)
            if self.last.pending < BACKLOG_EVENTS:
                self._room.set()
            else:
                self._room.clear()
            await asyncio.sleep(POLL_S)

    async def post(self, tracardi: AsyncClient) -> None:
        """With the client's ``attempt``: a refusal or a cut connection must end the measurement, not slow it. Ids are
        the server's to make, as for a page's events."""
        while True:
            await self._room.wait()
            events = self._random.choice(self._chunks)
            receipt = await tracardi.attempt(events, session_id=payloads.session(self._random))
            if receipt.status != 200:
                raise RuntimeError(f"{receipt.status}: {receipt.errors}")


@asynccontextmanager
async def feed(program: Program, seed: int) -> AsyncIterator[Feed]:
    """Feeds while entered. A post that fails ends it with that failure."""
    feeding = Feed(program, seed)
    async with AsyncClient(program.base, "default") as tracardi:
        jobs = [asyncio.create_task(feeding.post(tracardi)) for _ in range(CONNECTIONS)]
        jobs.append(asyncio.create_task(feeding.watch()))
        try:
            yield feeding
        finally:
            for job in jobs:
                job.cancel()
            ended = await asyncio.gather(*jobs, return_exceptions=True)
        for error in ended:
            if isinstance(error, Exception) and not isinstance(error, asyncio.CancelledError):
                raise error


async def drain(program: Program, within_s: float = 120) -> None:
    """Waits until nothing is pending."""
    deadline = time.monotonic() + within_s
    while (now := await progress(program)).pending:
        assert time.monotonic() < deadline, f"not drained: {now}"
        await asyncio.sleep(POLL_S)
