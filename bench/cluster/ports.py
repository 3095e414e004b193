"""The two backends by themselves, without the program around them: what a missed figure is to be blamed on.

``queue.post`` beside a bare ``send_async`` producer, and ``create_events`` beside raw ``_bulk``. Both sides run in
this process, in turns, against the same servers, so that both meet the same weather.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from statistics import median

import aiohttp

from bench.cluster import bulk, drain, pace, producer
from bench.cluster.fill import fill
from bench.cluster.pace import Pace
from bench.cluster.rig import Installation, Servers, installation
from bench.table import Figure
from tracardi_lite import wiring
from tracardi_lite.backends.store.elasticsearch import open_store
from tracardi_lite.backends.store.elasticsearch.names import Names
from tracardi_lite.errors import TryLater
from tracardi_lite.ports.queue import Publication, Queue
from tracardi_lite.ports.store import STORED, EventWrite

WARM_UP_ROUNDS = 1
TURN_BULKS = 4
"""Before the other side has its turn, in random order: refreshes and merges hit both alike."""


async def queue(servers: Servers, rounds: int, seconds: float) -> list[Figure]:
    ours: list[Pace] = []
    bares: list[Pace] = []
    async with installation(servers) as made, wiring.open_queue(made.settings) as queue:
        for _ in range(WARM_UP_ROUNDS + rounds):
            bares.append(
                await asyncio.to_thread(
                    producer.produce, servers.pulsar, made.topic, made.settings.queue_partitions, seconds
                )
            )
            ours.append(await _post(queue, seconds))
    return [_figure("queue.post as a share of a bare send_async producer", ours, bares, "messages")]


async def store(servers: Servers, rounds: int, events: int) -> list[Figure]:
    ours: list[Pace] = []
    bares: list[Pace] = []
    async with installation(servers) as made:
        found = await _documents(made, events)
        for _ in range(WARM_UP_ROUNDS + rounds):
            mine, its = await _write_in_turns(made, found)
            ours.append(mine)
            bares.append(its)
    return [_figure("create_events as a share of raw _bulk", ours, bares, "events")]


def _figure(name: str, ours: list[Pace], bares: list[Pace], of: str) -> Figure:
    ours, bares = ours[WARM_UP_ROUNDS:], bares[WARM_UP_ROUNDS:]
    runs = pace.shares(ours, bares)
    return Figure(name=name, value=median(runs), runs=runs, note=pace.beside(ours, bares, of))


async def _post(queue: Queue, seconds: float) -> Pace:
    """As the door does it: each that is told of posts the next."""
    numbers = producer.keys()
    ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    sent, under_way = 0, producer.IN_FLIGHT
    cpu, begun = time.process_time(), time.perf_counter()

    def post() -> None:
        key = f"{next(numbers):032x}"
        queue.post(Publication(key=key, head=producer.HEAD, body=producer.BODY, events=1), posted)

    def posted(error: Exception | None) -> None:
        nonlocal sent, under_way
        sent += 1
        if error is None and time.perf_counter() - begun < seconds:
            try:
                post()
                return
            except TryLater as refused:
                error = refused
        under_way -= 1
        if error is not None and not ended.done():
            ended.set_exception(error)
        if not under_way and not ended.done():
            ended.set_result(None)

    for _ in range(producer.IN_FLIGHT):
        post()
    await ended
    return Pace(sent, time.perf_counter() - begun, time.process_time() - cpu)


async def _documents(made: Installation, events: int) -> list[bulk.Document]:
    """Real ones: the program's, of a topic that it has drained."""
    async with made.program("api") as api, made.program("worker"):
        await fill(api, events, 0)
        await drain.reach(api, lambda now: not now.pending, events / drain.SLOWEST_RATE)
    async with aiohttp.ClientSession() as http:
        index = Names(made.settings).base("event")
        return await bulk.documents(http, made.servers.elasticsearch, index, "default", events)


async def _write_in_turns(made: Installation, found: Sequence[bulk.Document]) -> tuple[Pace, Pace]:
    settings, url = made.settings, made.servers.elasticsearch
    batch, in_flight = settings.bulk_size, settings.workers
    headers = {"content-type": "application/x-ndjson"}
    async with open_store("elasticsearch:", settings) as store, aiohttp.ClientSession(headers=headers) as http:
        index = await bulk.emptied(store, settings)
        bodies = bulk.bodies(found, index, batch)
        await store.drop_partition("event", OURS)
        await store.create_partition("event", OURS)
        writes = [_writes(found[start : start + batch]) for start in range(0, len(bodies) * batch, batch)]

        async def ours(events: Sequence[EventWrite]) -> None:
            if await store.create_events(events) != [STORED] * len(events):
                raise RuntimeError("not every event is stored")

        mine: list[Pace] = []
        its: list[Pace] = []
        for start in range(0, len(bodies), TURN_BULKS):
            turn = slice(start, start + TURN_BULKS)
            for name in random.sample(("ours", "bare"), 2):
                if name == "ours":
                    mine.append(await _timed(writes[turn], ours, in_flight, batch))
                else:
                    its.append(await bulk.write(http, url, bodies[turn], in_flight, batch))
        for partition in (OURS, bulk.PARTITION):
            await store.drop_partition("event", partition)
    return pace.together(mine), pace.together(its)


OURS = "2020-2"
"""The partition of ``create_events``, beside the raw one's."""


def _writes(documents: Sequence[bulk.Document]) -> list[EventWrite]:
    return [
        EventWrite(
            id=id,
            partition=OURS,
            doc=doc,
            message=id,
            type="page-view",
            source="default",
            session=None,
            profile=None,
            insert_ms=0,
        )
        for id, doc in documents
    ]


async def _timed(
    batches: Sequence[Sequence[EventWrite]],
    write: Callable[[Sequence[EventWrite]], Awaitable[None]],
    in_flight: int,
    batch: int,
) -> Pace:
    waiting = iter(batches)

    async def lane() -> None:
        for each in waiting:
            await write(each)

    cpu, begun = time.process_time(), time.perf_counter()
    await asyncio.gather(*(lane() for _ in range(in_flight)))
    return Pace(len(batches) * batch, time.perf_counter() - begun, time.process_time() - cpu)
