"""The port that is listened on: the express lane in front, aiohttp's server behind it, opened and closed as one."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from functools import partial
from typing import Any

from aiohttp import web

from tracardi_lite.intake.express import Lane
from tracardi_lite.intake.guest import Guest

# Of aiohttp's handlers. Compressed bodies are expanded by those that take them, see ``compression``.
HANDLING: dict[str, Any] = {"access_log": None, "auto_decompress": False}

MakeGuest = Callable[[Callable[[bool], None]], web.RequestHandler]


class Site:
    """``make_lane`` is given what makes aiohttp's handlers; None: all requests are aiohttp's, as on a worker's port."""

    def __init__(self, app: web.Application, timeout_s: float, make_lane: Callable[[MakeGuest], Lane] | None) -> None:
        # The lane's timeout comes first, and both have to fit SHUTDOWN_TIMEOUT.
        self._timeout_s = timeout_s
        self._runner = web.AppRunner(app, handle_signals=False, shutdown_timeout=timeout_s, **HANDLING)
        self._make_lane = make_lane
        self._lane: Lane | None = None
        self._server: asyncio.AbstractServer | None = None

    async def open(self, listening: socket.socket, backlog: int) -> None:
        """Serve on a socket that is bound."""
        await self._runner.setup()
        if self._make_lane is None:
            await web.SockSite(self._runner, listening, backlog=backlog).start()
            return
        loop = asyncio.get_running_loop()
        manager = self._runner.server
        assert manager is not None, "set up"
        self._lane = self._make_lane(partial(_guest, manager, loop))
        self._server = await loop.create_server(self._lane.serve, sock=listening, backlog=backlog)

    async def close(self) -> None:
        """Stop accepting, finish what was begun, close. Can be called twice."""
        server, self._server = self._server, None
        if server is not None:
            server.close()
        lane, self._lane = self._lane, None
        if lane is not None:
            await lane.close(self._timeout_s)
        await self._runner.cleanup()


def _guest(manager: Any, loop: asyncio.AbstractEventLoop, on_answered: Callable[[bool], None]) -> web.RequestHandler:
    return Guest(manager, loop=loop, on_answered=on_answered, **HANDLING)
