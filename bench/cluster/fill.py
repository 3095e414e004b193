"""Fills the topic through the door, as customers do: a call of 100 events is one message."""

from __future__ import annotations

import asyncio
import random

from bench import payloads
from tests.acceptance.program import Program
from tracardi_lite.client import AsyncClient

CONNECTIONS = 12
CHUNKS = 100


async def fill(program: Program, events: int, seed: int) -> None:
    """Returns when all of them are durably queued. Fails on any answer but 200: one attempt each."""
    random_ = random.Random(seed)
    chunks = payloads.chunks(random_, CHUNKS)
    waiting = iter(range(events // payloads.EVENTS))

    async def post(tracardi: AsyncClient) -> None:
        for _ in waiting:
            receipt = await tracardi.attempt(random_.choice(chunks), session_id=payloads.session(random_))
            if receipt.status != 200:
                raise RuntimeError(f"{receipt.status}: {receipt.errors}")

    async with AsyncClient(program.base, "default") as tracardi, asyncio.TaskGroup() as group:
        for _ in range(CONNECTIONS):
            group.create_task(post(tracardi))
