"""aiohttp's protocol as a guest on a connection of the express lane: it serves what the lane passes on to it."""

from __future__ import annotations

import asyncio
from typing import Any, Protocol

from aiohttp import hdrs, web

from tracardi_lite.intake.http1 import SERVER


class Host(Protocol):
    """Who has the guest, and shares the connection's transport with it."""

    def guest_answered(self, goes_on: bool) -> None:
        """A request was answered; unless the connection ``goes_on``, the guest closes it."""
        ...

    def guest_resumed(self) -> None:
        """The guest has let the transport be read again. It does that after every body, asked or not."""
        ...


class Handler(web.RequestHandler):
    """aiohttp's protocol for one connection, whose own answers, to what was no HTTP, don't tell its version."""

    __slots__ = ()

    def __init__(self, manager: web.Server, loop: asyncio.AbstractEventLoop, **options: Any) -> None:
        # The types don't say that there may be no log of accesses.
        options["access_log"] = None
        # Compressed bodies are expanded by those that take them, see ``compression``.
        options["auto_decompress"] = False
        super().__init__(manager, loop=loop, **options)

    def handle_error(self, *args: Any, **kwargs: Any) -> web.StreamResponse:
        response = super().handle_error(*args, **kwargs)
        response.headers[hdrs.SERVER] = SERVER
        return response


class Guest(Handler):
    """A handler that tells its host what it does."""

    __slots__ = ("_host",)

    def __init__(self, manager: web.Server, loop: asyncio.AbstractEventLoop, host: Host) -> None:
        # Idle connections are closed by the lane: this one may look idle while the lane is at work.
        super().__init__(manager, loop, keepalive_timeout=10 * 365 * 86400)
        self._host = host

    async def finish_response(
        self, request: web.BaseRequest, resp: web.StreamResponse, start_time: float | None
    ) -> tuple[web.StreamResponse, bool]:
        resp, reset = await super().finish_response(request, resp, start_time)
        self._host.guest_answered(not reset and bool(resp.keep_alive))
        return resp, reset

    def resume_reading(self, resume_parser: bool = True) -> None:
        super().resume_reading(resume_parser)
        self._host.guest_resumed()
