"""Stands between the store and Elasticsearch, and answers for it when told to."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import aiohttp
from aiohttp import web

Fault = Callable[[str, bytes], web.Response | None]
"""From path and body to an answer of its own; None: Elasticsearch's."""


class Proxy:
    """``faults`` are asked in turn, each for one bulk; after them everything goes through."""

    def __init__(self, target: str) -> None:
        self.target = target
        self.faults: list[Fault] = []
        self.bulks: list[int] = []
        """How many items each bulk had."""
        self.url = ""

    async def _handle(self, request: web.Request) -> web.Response:
        body = await request.read()
        if request.path.endswith("_bulk"):
            self.bulks.append(body.count(b'{"create"') + body.count(b'{"index"'))
            if self.faults and (answer := self.faults.pop(0)(request.path, body)) is not None:
                return answer
        headers = {"content-type": request.headers.get("content-type", "application/json")}
        async with self._session.request(
            request.method, self.target + request.raw_path, data=body or None, headers=headers
        ) as response:
            return web.Response(status=response.status, body=await response.read(), content_type="application/json")

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Proxy]:
        app = web.Application(client_max_size=1 << 30)
        app.router.add_route("*", "/{path:.*}", self._handle)
        runner = web.AppRunner(app)
        async with aiohttp.ClientSession() as self._session:
            await runner.setup()
            try:
                site = web.TCPSite(runner, "127.0.0.1", 0)
                await site.start()
                self.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
                yield self
            finally:
                await runner.cleanup()


def whole(status: int, type: str) -> Fault:
    """The whole request gets this error."""
    return lambda path, body: web.json_response({"error": {"type": type, "reason": "test"}}, status=status)


def items(*statuses: int) -> Fault:
    """Each item of a bulk gets its status, none of them is done."""

    def answer(path: str, body: bytes) -> web.Response:
        error = {"type": "es_rejected_execution_exception", "reason": "queue full"}
        found = [{"create": {"status": status, "error": error}} for status in statuses]
        return web.json_response({"errors": True, "items": found})

    return answer


def larger_than(limit: int) -> Fault:
    """413 for a body that is larger; as long as it stays in ``faults``."""
    return lambda path, body: web.Response(status=413) if len(body) > limit else None


def garbage(path: str, body: bytes) -> web.Response:
    return web.Response(text=json.dumps({"hello": 1}), content_type="application/json")
