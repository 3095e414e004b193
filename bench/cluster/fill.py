"""Fills the topic through the door, as customers do: a call of 100 events is one message."""

from __future__ import annotations

import asyncio
import random

import aiohttp

from bench import payloads
from tests.acceptance.program import Program

CONNECTIONS = 12
CHUNKS = 100


async def fill(program: Program, events: int, seed: int) -> None:
    """Returns when all of them are durably queued. Fails on any answer but 200."""
    random_ = random.Random(seed)
    chunks = payloads.chunks(random_, CHUNKS)
    waiting = iter(range(events // payloads.EVENTS))

    async def post(http: aiohttp.ClientSession) -> None:
        for _ in waiting:
            body = payloads.post(random_, random_.choice(chunks))
            async with http.post(f"{program.base}/track", data=body) as answer:
                if answer.status != 200:
                    raise RuntimeError(f"{answer.status}: {await answer.text()}")
                await answer.read()

    async with (
        aiohttp.ClientSession(headers={"Content-Type": "application/json"}) as http,
        asyncio.TaskGroup() as group,
    ):
        for _ in range(CONNECTIONS):
            group.create_task(post(http))
