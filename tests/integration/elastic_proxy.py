"""Stands between the store and Elasticsearch, and answers for it when told to."""

from __future__ import annotations

import io
import json
import random
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
from aiohttp import web

Fault = Callable[[str, bytes], web.Response | None]
"""From path and body to an answer of its own; None: Elasticsearch's."""


Forward = Callable[[bytes], Awaitable[web.Response]]
"""Asks Elasticsearch, with this body."""

REJECTED = {"type": "es_rejected_execution_exception", "reason": "queue full"}


class Crowd:
    """Elasticsearch with too much to do: some requests get 429 as a whole, and some items of a bulk do."""

    WHOLE, BULK, ITEM = 0.2, 0.5, 0.5
    """The parts of the requests, of the other bulks, and of such a bulk's items, that are rejected."""

    def __init__(self, random_: random.Random) -> None:
        self._random = random_
        self.requests = 0
        self.items = 0

    async def answer(self, path: str, body: bytes, forward: Forward) -> web.Response:
        if not path.endswith(("_bulk", "_mget")):
            return await forward(body)
        if self._random.random() < self.WHOLE:
            self.requests += 1
            return web.json_response({"error": REJECTED, "status": 429}, status=429)
        if path.endswith("_bulk") and self._random.random() < self.BULK:
            return await self._bulk(operations(body), forward)
        return await forward(body)

    async def _bulk(self, operations: list[tuple[str, bytes]], forward: Forward) -> web.Response:
        taken = [self._random.random() >= self.ITEM for _ in operations]
        answers: list[dict[str, Any]] = []
        if any(taken):
            kept = b"".join(lines for (_, lines), take in zip(operations, taken, strict=True) if take)
            response = await forward(kept)
            if response.status != 200:
                return response
            assert isinstance(response.body, bytes)
            answers = json.loads(response.body)["items"]
        self.items += taken.count(False)
        left = iter(answers)
        found = [
            next(left) if take else {act: {"status": 429, "error": REJECTED}}
            for (act, _), take in zip(operations, taken, strict=True)
        ]
        return web.json_response({"took": 1, "errors": True, "items": found})


class Proxy:
    """``faults`` are asked in turn, each for one bulk; after them everything goes through, or to the ``crowd``.

    It stands in for Elasticsearch's own security, too: ``tls`` ends at it, and ``authorization`` is asked for.
    """

    def __init__(self, target: str, tls: ssl.SSLContext | None = None, authorization: str = "") -> None:
        self.target = target
        self.authorization = authorization
        self._tls = tls
        self.faults: list[Fault] = []
        self.crowd: Crowd | None = None
        self.bulks: list[int] = []
        """How many items each bulk had."""
        self.url = ""

    async def _handle(self, request: web.Request) -> web.Response:
        body = await request.read()
        if self.authorization and request.headers.get("authorization") != self.authorization:
            return refusal(401, "security_exception")
        if request.path.endswith("_bulk"):
            self.bulks.append(body.count(b'{"create"') + body.count(b'{"index"'))
            if self.faults and (answer := self.faults.pop(0)(request.path, body)) is not None:
                return answer
        headers = {"content-type": request.headers.get("content-type", "application/json")}

        async def forward(body: bytes) -> web.Response:
            url, data = self.target + request.raw_path, self.sent(request, body)
            # As a file: bytes of more than 1 MiB, a bulk after a long outage, make aiohttp warn, which fails here.
            content = io.BytesIO(data) if data else None
            try:
                async with self._session.request(request.method, url, data=content, headers=headers) as response:
                    found = await response.read()
            except aiohttp.ClientError:  # it is away
                return web.Response(status=502)
            if response.ok:
                found = self.received(request, found)
            return web.Response(status=response.status, body=found, content_type="application/json")

        return await (forward(body) if self.crowd is None else self.crowd.answer(request.path, body, forward))

    def sent(self, request: web.Request, body: bytes) -> bytes:
        """What goes on to Elasticsearch; for proxies that change it."""
        return body

    def received(self, request: web.Request, body: bytes) -> bytes:
        """And what comes back, of a success."""
        return body

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Proxy]:
        app = web.Application(client_max_size=1 << 30)
        app.router.add_route("*", "/{path:.*}", self._handle)
        runner = web.AppRunner(app)
        async with aiohttp.ClientSession() as self._session:
            await runner.setup()
            try:
                site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=self._tls)
                await site.start()
                port = runner.addresses[0][1]
                # Certificates are for names; see ``certificates.NAME``.
                self.url = f"https://localhost:{port}" if self._tls else f"http://127.0.0.1:{port}"
                yield self
            finally:
                await runner.cleanup()


def operations(body: bytes) -> list[tuple[str, bytes]]:
    """A bulk's operations: what each does, and its lines."""
    found = []
    lines = iter(body.splitlines(keepends=True))
    for action in lines:
        [act] = json.loads(action)
        found.append((act, action if act == "delete" else action + next(lines)))
    return found


def whole(status: int, type: str) -> Fault:
    """The whole request gets this error."""
    return lambda path, body: refusal(status, type)


def refusal(status: int, type: str) -> web.Response:
    return web.json_response({"error": {"type": type, "reason": "test"}}, status=status)


def items(*statuses: int) -> Fault:
    """Each item of a bulk gets its status, none of them is done."""

    def answer(path: str, body: bytes) -> web.Response:
        found = [{"create": {"status": status, "error": REJECTED}} for status in statuses]
        return web.json_response({"errors": True, "items": found})

    return answer


def larger_than(limit: int) -> Fault:
    """413 for a body that is larger; as long as it stays in ``faults``."""
    return lambda path, body: web.Response(status=413) if len(body) > limit else None


def garbage(path: str, body: bytes) -> web.Response:
    return web.Response(text=json.dumps({"hello": 1}), content_type="application/json")
