"""The port that is listened on: the express lane in front, aiohttp's server behind it, opened and closed as one."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from functools import partial
from typing import Any

from aiohttp import web

from tracardi_lite.intake.express import Lane
from tracardi_lite.intake.guest import Guest, Handler, Host

MakeGuest = Callable[[Host], web.RequestHandler]


class Site:
    """``make_lane`` is given what makes aiohttp's handlers; None: all requests are aiohttp's, as on a worker's port.

    Closing takes ``timeout_s`` at most."""

    def __init__(self, app: web.Application, timeout_s: float, make_lane: Callable[[MakeGuest], Lane] | None) -> None:
        # The lane is closed first, then aiohttp, which waits for as long as it may twice: for handlers to end, and to
        # have been cancelled.
        self._lane_timeout_s = timeout_s / 2 if make_lane is not None else 0.0
        rest_s = timeout_s - self._lane_timeout_s
        self._runner = web.AppRunner(app, access_log=None, handle_signals=False, shutdown_timeout=rest_s / 2)
        self._make_lane = make_lane
        self._lane: Lane | None = None
        self._server: asyncio.AbstractServer | None = None

    async def open(self, listening: socket.socket, backlog: int) -> None:
        """Serve on a socket that is bound."""
        await self._runner.setup()
        loop = asyncio.get_running_loop()
        manager = self._runner.server
        assert manager is not None, "set up"
        serve: Callable[[], asyncio.Protocol] = partial(Handler, manager, loop)
        if self._make_lane is not None:
            self._lane = self._make_lane(partial(_guest, manager, loop))
            serve = self._lane.serve
        self._server = await loop.create_server(serve, sock=listening, backlog=backlog)

    async def close(self) -> None:
        """Stop accepting, finish what was begun, close. Can be called twice."""
        server, self._server = self._server, None
        if server is not None:
            server.close()
        lane, self._lane = self._lane, None
        if lane is not None:
            await lane.close(self._lane_timeout_s)
        await self._runner.cleanup()


def _guest(manager: Any, loop: asyncio.AbstractEventLoop, host: Host) -> web.RequestHandler:
    return Guest(manager, loop, host)
