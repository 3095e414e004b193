"""Two workers against one, from a full topic into a store that is slow and not busy.

A proxy in front of the real Elasticsearch lets each ``_bulk`` wait for ``PAUSE_S`` before it passes it on, as a store
would that is far away or spread over many nodes. So the cores of one machine do not limit what two workers can do, and
what is compared is the program: whether keys are shared out well, and whether the workers get in each other's way. Each
run gets a topic of its own that holds more than is drained; when all workers are at it, the next so many events are
timed.
"""

from __future__ import annotations

import asyncio
from contextlib import AsyncExitStack
from statistics import median

from aiohttp import web

from bench.cluster.drain import SLOWEST_RATE, reach
from bench.cluster.fill import fill
from bench.cluster.rig import Servers, installation
from bench.feed import progress
from bench.table import Figure
from tests.acceptance.program import Program, until
from tests.integration.elastic_proxy import Proxy

GAIN = (1.8, 1.95)
PAUSE_S = 0.25
TOPIC_SHARE = 8
"""How many times more the topic holds than is timed: a worker fetches ahead, and none may run dry."""
AT_WORK_S = 60.0
STORED = 'tracardi_lite_store_verdicts_total{kind="event",outcome="stored"}'


class SlowStore(Proxy):
    async def _handle(self, request: web.Request) -> web.Response:
        if request.path.endswith("_bulk"):
            await asyncio.sleep(PAUSE_S)
        try:
            return await super()._handle(request)
        except ConnectionResetError:
            return web.Response(status=502)  # for nobody: a worker was killed, which is how a run ends


async def measure(servers: Servers, rounds: int, events: int) -> list[Figure]:
    gains, ones, twos = [], [], []
    for number in range(rounds):
        ones.append(await _rate(servers, 1, events, number))
        twos.append(await _rate(servers, 2, events, number))
        gains.append(twos[-1] / ones[-1])
    note = f"{median(twos):,.0f} and {median(ones):,.0f} events/s, each bulk {PAUSE_S:g} s slower"
    name = "2 workers against 1, slow store"
    return [Figure(name=name, value=median(gains), runs=gains, least=GAIN[0], aim=GAIN[1], note=note)]


async def _rate(servers: Servers, count: int, events: int, seed: int) -> float:
    """Events per second that so many workers drain together."""
    async with AsyncExitStack() as stack:
        slow = await stack.enter_async_context(SlowStore(servers.elasticsearch).running())
        made = await stack.enter_async_context(installation(servers))
        api = await stack.enter_async_context(made.program("api"))
        await fill(api, TOPIC_SHARE * events, seed)
        workers = await asyncio.gather(
            *(
                stack.enter_async_context(made.program("worker", f"worker-{number}", ELASTIC_HOST=slow.url))
                for number in range(count)
            )
        )
        await asyncio.gather(*(_at_work(worker) for worker in workers))
        begin = await progress(api)
        end = await reach(api, lambda now: now.pending <= begin.pending - events, events / SLOWEST_RATE)
        return (begin.pending - end.pending) / (end.at_s - begin.at_s)


async def _at_work(worker: Program) -> None:
    async def stored() -> bool:
        return (await worker.metrics()).get(STORED, 0) > 0

    await until(f"{worker.name} stores", stored, AT_WORK_S, worker.log)
