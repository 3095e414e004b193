"""Where the time goes in a process of the cluster; the two views are those of ``bench.hotspots``."""

from __future__ import annotations

import asyncio

from bench import hotspots, wrk
from bench.cluster import door, drain
from bench.cluster.fill import fill
from bench.cluster.rig import Servers, installation

PARTS = ("api", "worker")
EVENTS = 400_000
"""More than a worker drains while it is looked at."""


async def measure(servers: Servers, part: str) -> str:
    async with installation(servers) as made, made.program("api") as api:
        if part == "api":
            load = asyncio.create_task(
                asyncio.to_thread(wrk.run, api.base, door.EVENTS_PER_POST, door.WARM_UP_S + hotspots.LOOK_S, 1)
            )
            await asyncio.sleep(door.WARM_UP_S)
            tables = await asyncio.to_thread(hotspots.look, api)
            await load
            return tables
        await fill(api, EVENTS, 1)
        async with made.program("worker") as worker:
            await drain.reach(api, lambda now: now.pending < EVENTS * 0.9, EVENTS / drain.SLOWEST_RATE)
            return await asyncio.to_thread(hotspots.look, worker)
