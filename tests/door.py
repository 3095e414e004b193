"""A running collector over memory backends, entered both ways: through the express lane, and through aiohttp alone."""

from __future__ import annotations

import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
from aiohttp import ClientSession, web

from tracardi_lite.backends.cache.memory import MemoryCache
from tracardi_lite.backends.queue.memory import open_queue
from tracardi_lite.backends.store.memory import open_store
from tracardi_lite.clock import Clock, SystemClock
from tracardi_lite.errors import Unavailable
from tracardi_lite.intake import door as intake_door
from tracardi_lite.intake import server
from tracardi_lite.intake.admission import Admission
from tracardi_lite.intake.bindings import Bindings
from tracardi_lite.intake.collector import Collector
from tracardi_lite.intake.express import Lane
from tracardi_lite.intake.health import Health
from tracardi_lite.intake.refusals import Refusals
from tracardi_lite.intake.site import MakeGuest, Site
from tracardi_lite.intake.sources import Sources
from tracardi_lite.metrics import Metrics
from tracardi_lite.pipeline.event_types import EventTypes
from tracardi_lite.pipeline.merging.keys import key_finder
from tracardi_lite.pipeline.user_agent import is_bot
from tracardi_lite.ports.queue import Message
from tracardi_lite.ports.registry import EventSource, Redirect
from tracardi_lite.protocol.envelope import Head, decode_head
from tracardi_lite.protocol.identity import Identity
from tracardi_lite.settings import Settings


@dataclass
class Rules:
    """The part of the registry that the collector asks."""

    sources: dict[str, EventSource] = field(default_factory=dict)
    redirects: dict[str, Redirect] = field(default_factory=dict)
    away: bool = False
    asked: int = 0

    async def source(self, id: str) -> EventSource | None:
        self.asked += 1
        if self.away:
            raise Unavailable("registry", "away")
        return self.sources.get(id)

    async def redirect(self, id: str) -> Redirect | None:
        return self.redirects.get(id)


class Door:
    """A running collector and what is behind it."""

    client: ClientSession
    site: Site
    host: str
    port: int

    def __init__(self, settings: Settings, queue: Any, store: Any, rules: Rules) -> None:
        self.settings = settings
        self.queue = queue
        self.store = store
        self.rules = rules
        self.identity = Identity(["a secret of the test"])
        self.refusals = Refusals()
        self.metrics = Metrics()
        self.lanes: list[Lane] = []
        """The express lane, when there is one."""

    @property
    def lane(self) -> Lane:
        (lane,) = self.lanes
        return lane

    async def post(self, body: Any, path: str = "/track", **kwargs: Any) -> tuple[int, Any]:
        data = body if isinstance(body, bytes) else msgspec.json.encode(body)
        headers = {"Content-Type": "application/json"} | kwargs.pop("headers", {})
        async with self.client.post(path, data=data, headers=headers, **kwargs) as response:
            return response.status, await response.json(content_type=None)

    async def queued(self) -> list[tuple[Head, Any, Message]]:
        """Everything that was published and not read yet."""
        consumer = await self.queue.subscribe("tracardi-function-subscription")
        messages: list[Message] = []
        while more := await consumer.receive(1000, 1 << 30, 0.0 if messages else 1.0):
            messages += more
            if len(messages) >= sum(row.messages for row in await self.queue.backlog()):
                break
        await consumer.close()
        return [(decode_head(m.head), msgspec.json.decode(m.body), m) for m in messages]


def rest(**config: Any) -> EventSource:
    return EventSource(id="web", type=["rest"], channel="Web", config=config or None)


@asynccontextmanager
async def opened(
    tmp_path: Path,
    *,
    queue: Any = None,
    store: Any = None,
    express: bool = True,
    clock: Clock | None = None,
    host: str = "127.0.0.1",
    closing_s: float = 5.0,
    send_buffer: int = 0,
    **changes: Any,
) -> AsyncIterator[Door]:
    settings = Settings(data_dir=tmp_path, queue_url="memory:", store_url="memory:", **changes)
    rules = Rules({"web": rest(), "hook": EventSource(id="hook", type=["webhook"])})
    clock = clock or SystemClock()
    async with open_queue("memory:", settings) as real_queue, open_store("memory:", settings) as real_store:
        door = Door(settings, queue or real_queue, store or real_store, rules)
        metrics = door.metrics
        bindings = Bindings(
            door.store, MemoryCache(100, clock), clock, metrics, 1000, profile_ttl_s=60, session_ttl_s=60
        )
        sources = Sources(rules, clock, settings.source_cache_ttl, check=settings.enable_event_source_check)  # type: ignore[arg-type]
        admission = Admission(door.identity, bindings, clock, "test")
        behind = intake_door.Door(settings, sources, admission, door.refusals, is_bot)
        in_flight = intake_door.InFlight(metrics.in_flight_bytes, settings.in_flight_max)
        collector = Collector(
            settings,
            door.queue,
            rules,  # type: ignore[arg-type]
            behind,
            admission,
            door.identity,
            in_flight,
            metrics,
            find_key=key_finder(EventTypes()),
        )
        app = web.Application(client_max_size=settings.body_max)
        app.add_routes(collector.routes())

        async def exposition() -> bytes:
            return metrics.render()

        server.add_health_routes(app, Health(clock), exposition)
        server.finish(app)

        def make_lane(guest: MakeGuest) -> Lane:
            door.lanes.append(Lane(settings, behind, door.queue, in_flight, metrics, clock, guest))
            return door.lane

        door.site = Site(app, closing_s, make_lane if express else None)
        listening = socket.create_server((host, 0), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
        listening.setblocking(False)
        if send_buffer:
            # Of the system's, per connection: otherwise it takes megabytes of answers that nobody reads.
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send_buffer)
        await door.site.open(listening, 2000)
        door.host, door.port = listening.getsockname()[:2]
        address = f"[{door.host}]" if ":" in host else door.host
        try:
            async with ClientSession(f"http://{address}:{door.port}") as door.client:
                yield door
        finally:
            await door.site.close()


def payload(*types: str, **fields: Any) -> dict[str, Any]:
    return {"source": {"id": "web"}, "session": {"id": "s-1"}, "events": [{"type": t} for t in types], **fields}
