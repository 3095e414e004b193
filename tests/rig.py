"""A worker on memory backends with faults at its ports, and the audit of what it leaves behind."""

from __future__ import annotations

import asyncio
import itertools
import json
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from types import TracebackType
from typing import Any, Self

import msgspec

from tracardi_lite.backends.cache.memory import MemoryCache
from tracardi_lite.backends.queue.memory import MemoryLog, MemoryQueue
from tracardi_lite.backends.store.memory import MemoryStore
from tracardi_lite.clock import Clock, SystemClock
from tracardi_lite.metrics import Metrics
from tracardi_lite.pipeline.event_types import EventTypes
from tracardi_lite.pipeline.worker import Worker
from tracardi_lite.ports.queue import SUBSCRIPTION, Publication
from tracardi_lite.ports.store import Kind, Query
from tracardi_lite.protocol.envelope import SAVE_ALL, Head, encode_head
from tracardi_lite.settings import Settings
from tracardi_lite.testing.clock import eventually
from tracardi_lite.testing.faults import Crash, Faults, FaultyQueue, FaultyStore

RECEIVED_MS = 1_800_000_000_000
QUICK: dict[str, Any] = {
    "workers": 2,
    "bulk_idle": 0.01,
    "retry_delay": 0.01,
    "retry_delay_max": 0.02,
    "queue_partitions": 4,
    "max_tries": 3,
}


class Rig:
    """``async with Rig() as rig``. Real time unless a clock is given; idle batches are flushed at once."""

    def __init__(self, clock: Clock | None = None, **settings: Any) -> None:
        self.settings = Settings(**{**QUICK, **settings})
        self.clock = clock or SystemClock()
        self.metrics = Metrics()
        self.faults = Faults(clock=self.clock)
        self.store = MemoryStore()
        self.log = MemoryLog(self.settings.queue_partitions)
        self.queue = MemoryQueue(self.log, self.settings, self.clock)
        self.silent: Counter[str | None] = Counter()
        """Messages that hold a visit-ended, by session: they make no system events, and one may open its session."""
        self._numbers = itertools.count()

    async def __aenter__(self) -> Self:
        await self.queue.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.queue.__aexit__(kind, error, trace)

    def worker(self, faults: Faults | None = None) -> Worker:
        """A new one, with the rig's faults or its own."""
        faults = faults or self.faults
        return Worker(
            FaultyQueue(self.queue, faults),
            FaultyStore(self.store, faults),
            MemoryCache(100, self.clock),
            self.settings,
            self.clock,
            EventTypes(),
            self.metrics,
        )

    # what comes in

    async def send(
        self,
        *types: str,
        profile: str | None = "p1",
        session: str | None = "s1",
        events: list[dict[str, Any]] | None = None,
        payload: dict[str, Any] | None = None,
        message: str | None = None,
        save: int = SAVE_ALL,
        key: str | None = None,
        count: int | None = None,
        **head: Any,
    ) -> str:
        """Publish a call, as the door would; the message's id. Events are of the types, or as given."""
        number = next(self._numbers)
        if events is None:
            events = [{"type": type, "properties": {"n": f"{number}-{i}"}} for i, type in enumerate(types)]
        id = message or f"m{number}"
        self.silent[session] += any(event.get("type") == "visit-ended" for event in events)
        body = {"source": {"id": "default"}, "events": events, **(payload or {})}
        fields = {"received_ms": RECEIVED_MS + number, "source": "default", "channel": "Web", "instance": "i", **head}
        made = Head(id=id, session=session, profile=profile, save=save, **fields)
        taken = len(made.only) if made.only is not None else len(events) - len(made.skip)
        publication = Publication(
            key=key or profile or id,
            head=encode_head(made),
            body=json.dumps(body).encode(),
            events=taken if count is None else count,
        )
        await self.queue.publish(publication)
        return id

    # running

    @asynccontextmanager
    async def running(self, worker: Worker | None = None) -> AsyncIterator[Worker]:
        """A worker that works for the body's time, and then drains."""
        worker = worker or self.worker()
        stop = asyncio.Event()
        task = asyncio.create_task(worker.run(stop))
        try:
            yield worker
        finally:
            stop.set()
            await task

    async def drain(self) -> int:
        """Work until nothing is pending, starting anew after every crash; how many there were."""
        crashes = 0
        while await self.pending():
            worker, stop = self.worker(), asyncio.Event()
            task = asyncio.create_task(worker.run(stop))
            await eventually(lambda task=task: task.done() or not self.waits(), what="the queue is drained")  # type: ignore[misc]
            stop.set()
            try:
                await task
            except (Crash, BaseExceptionGroup) as error:
                assert isinstance(error, Crash) or error.subgroup(Crash), error
                crashes += 1
                # Its leases run out.
                for consumer in list(self.queue._consumers):
                    await consumer.close()
        return crashes

    async def settled(self) -> None:
        """Wait until running workers have acknowledged everything."""
        await eventually(lambda: not self.waits(), what="the queue is drained")

    async def pending(self) -> int:
        return (await self.queue.totals()).pending

    def waits(self) -> bool:
        cursors = self.log.subscription(SUBSCRIPTION).cursors
        return any(cursor < part.end for cursor, part in zip(cursors, self.log.partitions, strict=True))

    # what is left behind

    async def records(self, kind: Kind) -> list[dict[str, Any]]:
        page = await self.store.search(kind, Query(limit=1_000_000))
        return [msgspec.json.decode(doc, type=dict[str, Any]) for doc in page.result]

    async def record(self, kind: Kind, id: str) -> dict[str, Any]:
        found = await self.store.find(kind, id)
        assert found is not None, f"no {kind} {id}"
        return msgspec.json.decode(found.doc, type=dict[str, Any])

    async def events(self) -> list[dict[str, Any]]:
        """The clients' events, oldest first."""
        found = [event for event in await self.records("event") if not event["source"]["id"].startswith("@")]
        return sorted(found, key=lambda event: (event["metadata"]["time"]["insert"], event["properties"].get("n", "")))

    async def system_events(self) -> Counter[str]:
        return Counter(e["type"] for e in await self.records("event") if e["source"]["id"].startswith("@"))

    async def audit(self) -> None:
        """What must hold of everything stored, whatever went wrong on the way."""
        problems = [problem async for problem in self._problems()]
        assert not problems, "\n".join(problems)

    async def _problems(self) -> AsyncIterator[str]:
        all_events = await self.records("event")
        clients = [event for event in all_events if not event["source"]["id"].startswith("@")]
        totals = await self.queue.totals()
        went = totals.stored + totals.duplicate + totals.rejected + totals.dead_lettered + totals.pending
        if totals.received + totals.replayed != went:
            yield f"the ledger does not add up: {totals}"
        if totals.stored != len(clients):
            yield f"the ledger has {totals.stored} stored, the store {len(clients)}"
        counted = Counter(event["profile"]["id"] for event in clients if event["profile"])
        profiles = await self.records("profile")
        for profile in profiles:
            if profile["stats"]["counters"]["events"] != counted[profile["id"]]:
                yield f"{profile['id']} counts {profile['stats']} and has {counted[profile['id']]} events"
        if self.settings.system_events:
            for problem in _system_problems(all_events, profiles, await self.records("session"), self.silent):
                yield problem


def _system_problems(
    events: list[dict[str, Any]],
    profiles: list[dict[str, Any]],
    sessions: list[dict[str, Any]],
    silent: Counter[str | None],
) -> Iterator[str]:
    system = [event for event in events if event["source"]["id"].startswith("@")]
    created = Counter(event["profile"]["id"] for event in system if event["type"] == "profile-created")
    opened = Counter(event["session"]["id"] for event in system if event["type"] == "session-opened")
    visits = Counter(event["session"]["id"] for event in system if event["type"] == "visit-started")
    owners = Counter(event["profile"]["id"] for event in system if event["type"] == "visit-started")
    silent_profiles: Counter[str] = Counter()
    for session in sessions:
        if session["profile"]:
            silent_profiles[session["profile"]["id"]] += silent[session["id"]]
    for profile in profiles:
        id, visit = profile["id"], profile["metadata"]["time"]["visit"]
        if created[id] != 1 and not (silent_profiles[id] and created[id] == 0):
            yield f"{id} was created {created[id]} times"
        if not owners[id] <= visit["count"] <= owners[id] + silent_profiles[id]:
            yield f"{id} has {visit}, events say {owners[id]}"
    for session in sessions:
        id, count = session["id"], session["metadata"]["aux"]["visits"]
        if opened[id] != 1 and not (silent[id] and opened[id] == 0):
            yield f"{id} was opened {opened[id]} times"
        if count - visits[id] not in ((0, 1) if silent[id] else (0,)):
            yield f"{id} has {count} visits, events say {visits[id]}"
