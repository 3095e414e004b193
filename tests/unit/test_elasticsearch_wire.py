"""Bodies on the wire: what is sent arrives as it is, whatever its size."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from aiohttp import web

from tracardi_lite.backends.store.elasticsearch.connection import NDJSON, Connection
from tracardi_lite.settings import Settings


@asynccontextmanager
async def receiving(received: list[tuple[str, bytes]]) -> AsyncIterator[str]:
    async def take(request: web.Request) -> web.Response:
        received.append((request.headers["content-type"], await request.read()))
        return web.json_response({})

    app = web.Application(client_max_size=1 << 30)
    app.router.add_post("/_bulk", take)
    runner = web.AppRunner(app)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


@pytest.mark.parametrize("size", [1, 256 << 10, (256 << 10) + 1, (1 << 20) + 7, 5 << 20])
async def test_a_body_arrives_whole_and_no_byte_is_added(size: int) -> None:
    received: list[tuple[str, bytes]] = []
    async with receiving(received) as url:
        connection = Connection("elasticsearch:", Settings(elastic_host=url))
        try:
            body = os.urandom(1024) * (size // 1024) + b"x" * (size % 1024)
            assert (await connection.call("POST", "/_bulk", body, kind=NDJSON)).status == 200
            assert received == [(NDJSON, body)]
        finally:
            await connection.close()
