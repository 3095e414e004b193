"""aiohttp's protocol as a guest on a connection of the express lane: it serves what the lane passes on to it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from aiohttp import web


class Guest(web.RequestHandler):
    """aiohttp's protocol for one connection, that says when it has answered a request."""

    __slots__ = ("_on_answered",)

    def __init__(
        self,
        manager: web.Server,
        *,
        loop: asyncio.AbstractEventLoop,
        on_answered: Callable[[bool], None],
        **options: Any,
    ) -> None:
        # Idle connections are closed by the lane: this one may look idle while the lane is at work.
        super().__init__(manager, loop=loop, keepalive_timeout=10 * 365 * 86400, **options)
        self._on_answered = on_answered

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        resp, reset = await super().finish_response(request, resp, start_time)
        self._on_answered(not reset and bool(resp.keep_alive))
        return resp, reset
