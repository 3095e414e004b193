"""The ceiling: aiohttp on uvloop that reads the body and answers ``{}``. Run as ``python -m bench.bare PORT``."""

from __future__ import annotations

import sys

import uvloop
from aiohttp import web


async def answer(request: web.Request) -> web.Response:
    await request.read()
    return web.Response(body=b"{}", content_type="application/json")


async def application() -> web.Application:
    app = web.Application(client_max_size=1 << 30)
    app.router.add_post("/track", answer)
    return app


if __name__ == "__main__":
    uvloop.install()
    web.run_app(application(), host="127.0.0.1", port=int(sys.argv[1]), access_log=None, print=None)
