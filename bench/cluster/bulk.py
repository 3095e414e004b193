"""The ceiling of storing: bulk bodies made in advance, posted by a bare client that looks at one flag of each answer.

The documents are those that the program has stored in this very run, read back and written again under the same ids
into an empty index of the same template.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

import aiohttp
import msgspec
from msgspec import Raw, Struct

from bench.cluster.pace import Pace
from tracardi_lite.backends.store.elasticsearch.names import Names
from tracardi_lite.ports.store import Store
from tracardi_lite.settings import Settings

PARTITION = "2020-1"
"""Of a month long ago, which nothing else writes to."""
PAGE = 5000


class _Hit(Struct):
    id: str = msgspec.field(name="_id")
    source: Raw = msgspec.field(name="_source")


class _Hits(Struct):
    hits: list[_Hit]


class _Page(Struct):
    scroll_id: str = msgspec.field(name="_scroll_id")
    hits: _Hits


Document = tuple[str, bytes]


async def documents(http: aiohttp.ClientSession, url: str, index: str, source: str, most: int) -> list[Document]:
    """Events of a source, by id, in the order in which they were indexed."""
    found: list[Document] = []
    async with http.post(f"{url}/{index}/_refresh") as response:
        response.raise_for_status()
    body = {"size": PAGE, "sort": ["_doc"], "query": {"term": {"source.id": source}}}
    target = f"{url}/{index}/_search?scroll=1m"
    while len(found) < most:
        async with http.post(target, json=body) as response:
            response.raise_for_status()
            page = msgspec.json.decode(await response.read(), type=_Page)
        if not page.hits.hits:
            break
        found += [(hit.id, bytes(hit.source)) for hit in page.hits.hits]
        target, body = f"{url}/_search/scroll", {"scroll": "1m", "scroll_id": page.scroll_id}
    return found[:most]


def bodies(documents: Sequence[Document], index: str, batch: int) -> list[bytes]:
    """One bulk for each ``batch`` of them; what is left over is left out."""
    lines = [
        b'{"create":{"_index":"%b","_id":"%b"}}\n%b\n' % (index.encode(), id.encode(), doc) for id, doc in documents
    ]
    return [b"".join(lines[start : start + batch]) for start in range(0, len(lines) - batch + 1, batch)]


async def emptied(store: Store, settings: Settings) -> str:
    """An index for the ceiling, empty; its name."""
    await store.drop_partition("event", PARTITION)
    await store.create_partition("event", PARTITION)
    return Names(settings).index("event", PARTITION)


async def write(http: aiohttp.ClientSession, url: str, bodies: Sequence[bytes], in_flight: int, batch: int) -> Pace:
    """All of them, so many at a time; the CPU is this process's."""
    waiting = iter(bodies)

    async def lane() -> None:
        for body in waiting:
            async with http.post(f"{url}/_bulk", data=body) as response:
                answer = await response.read()
                if b'"errors":false' not in answer[:100]:
                    raise RuntimeError(f"{response.status}: {answer[:500]!r}")

    cpu, begun = time.process_time(), time.perf_counter()
    await asyncio.gather(*(lane() for _ in range(in_flight)))
    return Pace(len(bodies) * batch, time.perf_counter() - begun, time.process_time() - cpu)
