"""Role worker on Pulsar and Elasticsearch: events drained from a full topic, beside raw ``_bulk`` of its documents.

A round fills the topic with calls of 100 events while no worker runs, starts one, lets it take the first of them while
it warms up, and measures over the middle: from the first reading after the warm-up to the first one that finds the
topic nearly empty. The raw client then writes documents that the program has stored, as many as were drained, as many
to a bulk as the worker's batches hold and as many bulks in flight as it has lanes.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from statistics import median

import aiohttp
from msgspec import Struct

from bench import process
from bench.cluster import bulk, pace
from bench.cluster.fill import fill
from bench.cluster.pace import Pace
from bench.cluster.rig import Installation, Servers, installation
from bench.feed import Progress, progress
from bench.table import Figure
from tests.acceptance.program import Program
from tracardi_lite.backends.store.elasticsearch import open_store
from tracardi_lite.backends.store.elasticsearch.names import Names

SHARE = (0.45, 0.8)
CPU_US = (60.0, 25.0)
WARM_UP_ROUNDS = 2
"""Elasticsearch's compiler takes 40 % of its CPU in the first one and still a fifth in the third."""
WARM_UP_SHARE = 0.25
"""Of a round's events: the process imports, connects, fills its caches."""
TAIL_SHARE = 0.1
"""The last of them are left out: lanes run dry one after another."""
POLL_S = 1.0
"""Between two looks. Each has the broker count its backlog and the api add up the ledger, on the cores that the worker
drains with; and since the ledger is exact, a rate does not depend on how often it is looked at."""
SLOWEST_RATE = 500.0
"""Events per second below which a run is given up."""


class Round(Struct, frozen=True):
    worker: Pace
    pss_bytes: int
    raw: Pace


async def measure(servers: Servers, rounds: int, events: int) -> list[Figure]:
    async with installation(servers) as made, made.program("api") as api:
        found = [await _round(made, api, events, number) for number in range(WARM_UP_ROUNDS + rounds)]
    counted = found[WARM_UP_ROUNDS:]
    workers, raws = [each.worker for each in counted], [each.raw for each in counted]
    shares, cpus = pace.shares(workers, raws), [worker.cpu_us for worker in workers]
    peaks = [each.pss_bytes / 2**20 for each in counted]
    return [
        Figure(
            name="role worker, events/s drained as a share of raw _bulk, 100 per post",
            value=median(shares),
            runs=shares,
            least=SHARE[0],
            aim=SHARE[1],
            note=pace.beside(workers, raws, "events"),
        ),
        Figure(
            name="role worker, CPU per event, 100 per post",
            unit="µs",
            value=median(cpus),
            runs=cpus,
            better="less",
            least=CPU_US[0],
            aim=CPU_US[1],
        ),
        Figure(
            name="role worker, memory (PSS) while it drains, peak",
            unit="MiB",
            value=median(peaks),
            runs=peaks,
            better="less",
        ),
    ]


async def backlog(servers: Servers, events: int) -> list[Figure]:
    """How long one worker takes for a backlog of so many, from its start to the last acknowledgement."""
    async with installation(servers) as made, made.program("api") as api:
        await fill(api, events, 1)
        begun = time.monotonic()
        async with made.program("worker") as worker:
            with process.Peak(worker.pid, POLL_S) as peak:
                await reach(api, lambda now: not now.pending, events / SLOWEST_RATE)
            seconds = time.monotonic() - begun
            cpu = process.cpu_seconds(worker.pid)
    note = f"{events / seconds:,.0f} events/s; {cpu / events * 1e6:.0f} µs of CPU each, start included; "
    note += f"memory (PSS) at most {peak.bytes / 2**20:.0f} MiB"
    name = f"time to drain a backlog of {events:,} events, one worker"
    return [Figure(name=name, unit="s", value=seconds, runs=[seconds], better="less", note=note)]


async def reach(api: Program, reached: Callable[[Progress], bool], within_s: float) -> Progress:
    """Reads the ledger each second until it says so.

    It is an api that is asked, since that has nothing else to do: an answer costs some 10 ms of CPU, which would be
    counted as the worker's.
    """
    deadline = time.monotonic() + within_s
    while not reached(now := await progress(api)):
        if time.monotonic() > deadline:
            raise RuntimeError(f"stuck at {now}\n{api.log()}")
        await asyncio.sleep(POLL_S)
    return now


async def _round(made: Installation, api: Program, events: int, number: int) -> Round:
    await fill(api, events, number)
    async with made.program("worker") as worker:
        limit_s = events / SLOWEST_RATE
        warm = await reach(api, lambda now: now.pending <= events * (1 - WARM_UP_SHARE), limit_s)
        cpu = process.cpu_seconds(worker.pid)
        with process.Peak(worker.pid, POLL_S) as peak:
            end = await reach(api, lambda now: now.pending <= events * TAIL_SHARE, limit_s)
        drained = Pace(int(warm.pending - end.pending), end.at_s - warm.at_s, process.cpu_seconds(worker.pid) - cpu)
        await reach(api, lambda now: not now.pending, limit_s)
    return Round(drained, peak.bytes, await _raw(made, drained.count))


async def _raw(made: Installation, events: int) -> Pace:
    settings, url = made.settings, made.servers.elasticsearch
    batch, in_flight = settings.bulk_size, settings.workers
    headers = {"content-type": "application/x-ndjson"}
    async with open_store("elasticsearch:", settings) as store, aiohttp.ClientSession(headers=headers) as http:
        index = Names(settings).base("event")
        found = await bulk.documents(http, url, index, "default", events)
        bodies = bulk.bodies(found, await bulk.emptied(store, settings), batch)
        paced = await bulk.write(http, url, bodies, in_flight, batch)
        await store.drop_partition("event", bulk.PARTITION)
    return paced
