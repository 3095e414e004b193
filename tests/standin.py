"""A collector in this process that speaks the protocol's answers and does as it is told: fail, stall, merge.

For the clients' tests only, where the point is what a client does when a server misbehaves in a given order; that the
clients and the real program agree is for tests/acceptance. It keeps what it was sent, and counts an event id once.
"""

from __future__ import annotations

import asyncio
import gzip
import json
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

CORS = {"Access-Control-Allow-Origin": "*"}


@dataclass
class Plan:
    """What to do with one call instead of taking it."""

    status: int = 503
    headers: Mapping[str, str] = field(default_factory=dict)
    body: str = '{"detail": "planned"}'
    take: bool = False
    """Keep the events all the same, as when an answer is lost on its way."""
    drop: bool = False
    """Close the connection instead of answering."""


class Collector:
    def __init__(self) -> None:
        self.calls: list[dict[str, Any]] = []
        """Bodies of all calls, refused ones included."""
        self.headers: list[Mapping[str, str]] = []
        self.methods: Counter[str] = Counter()
        self.taken: dict[str, dict[str, Any]] = {}
        """Events by id, once each."""
        self.seen: Counter[str] = Counter()
        """How often each id arrived in a call that was taken."""
        self.plans: list[Plan] = []
        self.plan_all: Plan | None = None
        self.merged: dict[str, str] = {}
        self.profiles: dict[str, str] = {}
        self.gate = asyncio.Event()
        self.gate.set()
        self.in_flight = self.most_in_flight = 0
        self.port = 0
        self._runner: web.AppRunner | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def types(self) -> list[str]:
        return [event["type"] for event in self.taken.values()]

    def merge(self, loser: str, survivor: str) -> None:
        self.merged[loser] = survivor

    async def start(self) -> None:
        """On the same port as before, when it was stopped."""
        app = web.Application()
        app.router.add_route("*", "/track", self._track)
        self.routes(app)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", self.port, reuse_address=True)
        await site.start()
        self.port = self._runner.addresses[0][1]

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    def routes(self, app: web.Application) -> None:
        """For more than the collector: pages, assets."""

    async def _track(self, request: web.Request) -> web.StreamResponse:
        self.methods[request.method] += 1
        if request.method == "OPTIONS":
            asked = {"Access-Control-Allow-Headers": request.headers.get("Access-Control-Request-Headers", "")}
            return web.Response(text="OK", headers=CORS | asked)
        self.in_flight += 1
        self.most_in_flight = max(self.most_in_flight, self.in_flight)
        try:
            return await self._answer(request)
        finally:
            self.in_flight -= 1

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        if body[:2] == b"\x1f\x8b":
            body = gzip.decompress(body)
        call = json.loads(body)
        self.calls.append(call)
        self.headers.append(dict(request.headers))
        await self.gate.wait()
        plan = self.plans.pop(0) if self.plans else self.plan_all
        if plan is not None:
            if plan.take:
                self._take(call)
            if plan.drop:
                assert request.transport is not None
                request.transport.abort()
                await asyncio.sleep(0)
            return web.Response(
                status=plan.status,
                text=plan.body,
                headers=CORS | {"Access-Control-Expose-Headers": "Retry-After"} | dict(plan.headers),
                content_type="application/json",
            )
        errors = self._take(call)
        answer = {
            "task": "task-1",
            "ux": [],
            "response": {},
            "events": [],
            "profile": {"id": self._profile(call)},
            "session": {"id": self._session(call)},
            "errors": errors,
            "warnings": [],
        }
        return web.json_response(answer, status=226 if errors else 200, headers=CORS)

    def _take(self, call: dict[str, Any]) -> list[dict[str, Any]]:
        errors = []
        for index, event in enumerate(call["events"]):
            if event["type"] == "refused":
                errors.append({"index": index, "reason": "invalid", "detail": "this one is refused"})
                continue
            id = event.get("id") or f"made-{len(self.taken)}"
            self.seen[id] += 1
            self.taken.setdefault(id, event)
        return errors

    def _session(self, call: dict[str, Any]) -> str:
        id: str = (call.get("session") or {}).get("id") or f"session-{len(self.calls)}"
        return id

    def _profile(self, call: dict[str, Any]) -> str:
        sent = (call.get("profile") or {}).get("id")
        session = self._session(call)
        id = self.profiles.setdefault(session, sent or f"profile-of-{session}")
        while id in self.merged:
            id = self.merged[id]
        return id


@asynccontextmanager
async def running(collector: Collector | None = None) -> AsyncIterator[Collector]:
    collector = collector or Collector()
    await collector.start()
    try:
        yield collector
    finally:
        collector.gate.set()
        await collector.stop()
