"""Freshness: from the answer to a post until a search in Elasticsearch finds its event.

Single events, evenly spread over the period of a refresh, on a cluster that has nothing else to do. What is measured is
the sum of two settings: ``BULK_IDLE``, for which a lane waits for more, and the index's ``refresh_interval``.
"""

from __future__ import annotations

import asyncio
import time
from statistics import median, quantiles

import aiohttp

from bench.cluster.rig import Servers, installation
from bench.table import Figure
from tracardi_lite.backends.store.elasticsearch.names import Names

POSTS = 60
EVERY_S = 0.35
POLL_S = 0.1
WITHIN_S = 60.0


async def measure(servers: Servers) -> list[Figure]:
    async with installation(servers) as made, made.program("api") as api, made.program("worker"):
        index = Names(made.settings).base("event")
        posted: dict[str, float] = {}
        found: dict[str, float] = {}
        async with aiohttp.ClientSession() as http, asyncio.TaskGroup() as group:
            group.create_task(_post(http, api.base, posted))
            group.create_task(_look(http, f"{servers.elasticsearch}/{index}", posted, found))
    ages = [found[id] - at for id, at in posted.items()]
    note = f"p95 {quantiles(ages, n=20)[-1]:.1f} s, at most {max(ages):.1f} s, {POSTS} events"
    return [
        Figure(name="freshness: answered → searchable", unit="s", value=median(ages), runs=[], better="less", note=note)
    ]


async def _post(http: aiohttp.ClientSession, base: str, posted: dict[str, float]) -> None:
    for number in range(POSTS):
        id = f"fresh-{number}"
        call = {"source": {"id": "default"}, "session": {"id": id}, "events": [{"type": "page-view", "id": id}]}
        async with http.post(f"{base}/track", json=call) as answer:
            answer.raise_for_status()
        posted[id] = time.monotonic()
        await asyncio.sleep(EVERY_S)


async def _look(http: aiohttp.ClientSession, index: str, posted: dict[str, float], found: dict[str, float]) -> None:
    deadline = time.monotonic() + POSTS * EVERY_S + WITHIN_S
    while len(found) < POSTS:
        if time.monotonic() > deadline:
            raise RuntimeError(f"{POSTS - len(found)} of {POSTS} events are not found")
        await asyncio.sleep(POLL_S)
        missing = [id for id in posted if id not in found]
        body = {"size": POSTS, "_source": False, "query": {"terms": {"id": missing}}}
        async with http.post(f"{index}/_search?ignore_unavailable=true", json=body) as answer:
            if answer.status == 404:
                continue  # the first event is still to make the index
            answer.raise_for_status()
            hits = (await answer.json())["hits"]["hits"]
        now = time.monotonic()
        found.update({hit["_id"]: now for hit in hits})
