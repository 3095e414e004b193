"""What ``create_events`` costs beside Elasticsearch itself.

    tests/services/service start elasticsearch
    .venv/bin/python -m bench.elasticsearch_bulk [URL]

The ceiling is a bare aiohttp client that posts bulk bodies made in advance, ids and lines included, and looks at one
flag of the answer. Ours gets the same documents as ``EventWrite``. Both send 500 events per bulk, 2 in flight, into
partitions of the same template, in turns of a few bulks and in random order, so that both meet the same server:
refreshes, merges, other people's work. A server that has just started is slow: the first rounds are not counted.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from statistics import median
from uuid import uuid4

import aiohttp
import uvloop
from msgspec import Struct

from tracardi_lite.backends.store.elasticsearch import ElasticsearchStore, open_store
from tracardi_lite.ports.store import STORED, EventWrite
from tracardi_lite.settings import Settings

BULK = 500
IN_FLIGHT = 2
BULKS = 40
"""Of a round: 20,000 events, some seconds."""
TURN = 4
WARM_UP, ROUNDS = 2, 5
_WORDS = ("basket", "checkout", "blue", "running", "shoe", "summer", "campaign", "payment", "mobile", "delivery")


class Time(Struct):
    events: int
    wall_s: float
    cpu_s: float
    """Of this process."""

    @property
    def per_second(self) -> float:
        return self.events / self.wall_s

    @property
    def cpu_us(self) -> float:
        return self.cpu_s / self.events * 1e6


def total(times: Sequence[Time]) -> Time:
    return Time(sum(t.events for t in times), sum(t.wall_s for t in times), sum(t.cpu_s for t in times))


def event(random_: random.Random, partition: str) -> EventWrite:
    id, message = str(uuid4()), str(uuid4())
    doc = {
        "id": id,
        "name": "Page view",
        "type": "page-view",
        "metadata": {
            "aux": {"message": message},
            "time": {"insert": "2020-01-15T12:00:00.123+00:00", "create": "2020-01-15T12:00:00.123+00:00"},
            "status": "collected",
            "channel": "Web",
            "valid": True,
        },
        "source": {"id": "bench"},
        "session": {"id": str(random_.randrange(10_000)), "start": "2020-01-15T12:00:00.000+00:00", "duration": 1.5},
        "profile": {"id": str(random_.randrange(10_000)), "primary_id": None},
        "properties": {
            "text": " ".join(random_.choices(_WORDS, k=60)),
            "price": round(random_.random() * 500, 2),
            "path": f"/{random_.randrange(10**6)}",
        },
        "context": {"page": {"url": f"https://shop.example/{random_.randrange(10**6)}"}},
        "traits": {},
        "hit": {"url": "https://shop.example/"},
        "tags": {"values": ["event:behavioral"], "count": 1},
    }
    return EventWrite(
        id=id,
        partition=partition,
        doc=json.dumps(doc).encode(),
        message=message,
        type="page-view",
        source="bench",
        session=None,
        profile=None,
        insert_ms=0,
    )


async def timed(work: Sequence[object], one: Callable[[object], Awaitable[None]]) -> Time:
    """All of ``work``, ``IN_FLIGHT`` at a time."""
    waiting = iter(work)

    async def lane() -> None:
        for each in waiting:
            await one(each)

    wall, cpu = time.perf_counter(), time.process_time()
    await asyncio.gather(*(lane() for _ in range(IN_FLIGHT)))
    return Time(len(work) * BULK, time.perf_counter() - wall, time.process_time() - cpu)


async def rounds(url: str, store: ElasticsearchStore, base: str) -> AsyncIterator[tuple[Time, Time]]:
    random_ = random.Random(7)
    headers = {"content-type": "application/x-ndjson"}
    async with aiohttp.ClientSession(headers=headers) as session:

        async def raw(body: object) -> None:
            async with session.post(f"{url}/_bulk", data=body) as response:
                assert b'"errors":false' in (await response.read())[:100]

        async def ours(events: object) -> None:
            assert await store.create_events(events) == [STORED] * BULK  # type: ignore[arg-type]

        for _ in range(WARM_UP + ROUNDS):
            batches = [[event(random_, "2020-1") for _ in range(BULK)] for _ in range(BULKS)]
            index = f"{base}-2020-2"
            bodies = [
                b"".join(
                    b'{"create":{"_index":"%b","_id":"%b"}}\n%b\n' % (index.encode(), each.id.encode(), each.doc)
                    for each in batch
                )
                for batch in batches
            ]
            for name in ("2020-1", "2020-2"):
                await store.drop_partition("event", name)
                await store.create_partition("event", name)
            mine, its = [], []
            for start in range(0, BULKS, TURN):
                for name in random_.sample(("ours", "bare"), 2):
                    if name == "ours":
                        mine.append(await timed(batches[start : start + TURN], ours))
                    else:
                        its.append(await timed(bodies[start : start + TURN], raw))
            yield total(mine), total(its)
    for name in ("2020-1", "2020-2"):
        await store.drop_partition("event", name)


async def main(url: str) -> None:
    tenant = f"bench-{uuid4().hex[:6]}"
    settings = Settings(elastic_host=url, tenant_name=tenant, elastic_index_shards=1)
    found: list[tuple[Time, Time]] = []
    async with open_store("elasticsearch:", settings) as store:
        async for pair in rounds(url, store, f"09x.{tenant}.tracardi-event"):
            found.append(pair)
            print(f"ours {pair[0].per_second:9,.0f}/s  bare {pair[1].per_second:9,.0f}/s", file=sys.stderr)
    counted = found[WARM_UP:]
    ours, bare = ([pair[which] for pair in counted] for which in (0, 1))
    for name, speeds in (("create_events", ours), ("bare _bulk", bare)):
        per_second, cpu_us = median(each.per_second for each in speeds), median(each.cpu_us for each in speeds)
        print(f"{name:<14} {per_second:9,.0f} events/s {cpu_us:6.1f} µs of client CPU per event")
    print(f"ratio {median(mine.per_second / its.per_second for mine, its in counted):.2f}")
    async with aiohttp.ClientSession() as session:
        await session.delete(f"{url}/_index_template/*{tenant}*")


if __name__ == "__main__":
    uvloop.run(main(sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:19200"))
