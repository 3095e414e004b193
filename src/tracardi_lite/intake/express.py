"""The express lane: ``POST /track`` without a task, a request object or a response object per call.

aiohttp serves every route; on the hot one, most of a single event's cost would be its machinery. So each connection
begins here (``connection``). A plain ``POST /track`` is read, admitted, posted to the queue and answered by callbacks.
Any other request is passed on, byte for byte, to a handler of aiohttp's that shares the connection (``guest``), and
when that has answered, the connection is looked at here again. What is not plain makes the connection aiohttp's for
good. So this lane knows one call, and everything unusual is a complete server's.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from functools import partial
from time import perf_counter
from typing import Any

import structlog
from aiohttp import web

from tracardi_lite.clock import Clock
from tracardi_lite.errors import BadInput, TryLater
from tracardi_lite.intake import answer, http1, steps
from tracardi_lite.intake.connection import Call, Connection
from tracardi_lite.intake.door import Admitted, Door, Incoming, InFlight
from tracardi_lite.intake.guest import Host
from tracardi_lite.metrics import Metrics
from tracardi_lite.ports.queue import Queue
from tracardi_lite.settings import Settings

log = structlog.get_logger(__name__)

SWEEP_S = 1.0
"""How often it is looked for what is overdue, while there are connections."""


class Lane:
    """What the connections share. ``serve`` is the factory of protocols for ``loop.create_server``."""

    def __init__(
        self,
        settings: Settings,
        door: Door,
        queue: Queue,
        in_flight: InFlight,
        metrics: Metrics,
        clock: Clock,
        guest: Callable[[Host], web.RequestHandler],
    ) -> None:
        self.clock = clock
        self.in_flight = in_flight
        self.body_max = settings.body_max
        self.request_timeout_s = settings.request_timeout
        self.guest = guest
        self.closing = False
        self._door = door
        self._queue = queue
        self._metrics = metrics
        self._connections: set[Connection] = set()
        self._tasks: set[asyncio.Task[None]] = set()
        self._date = http1.Clock()
        self._sweeping: asyncio.TimerHandle | None = None
        self._emptied = asyncio.Event()

    def serve(self) -> Connection:
        return Connection(self)

    async def close(self, timeout_s: float) -> None:
        """Close what is idle; let what is being answered be answered, for that long at most; hang up on the rest."""
        self.closing = True
        if self._sweeping is not None:
            self._sweeping.cancel()
        for connection in list(self._connections):
            connection.finish()
        try:
            async with asyncio.timeout(timeout_s):
                while self.at_work():
                    self._emptied.clear()
                    await self._emptied.wait()
        except TimeoutError:
            log.warning("requests_not_finished", requests=self.at_work())
            for connection in list(self._connections):
                connection.abort()
            for task in self._tasks:
                task.cancel()

    def at_work(self) -> int:
        """How many calls this lane is taking or answering now."""
        return sum(connection.at_work for connection in self._connections)

    # --- for connections ---

    def joined(self, connection: Connection) -> None:
        self._connections.add(connection)
        if self.closing:
            connection.finish()
        elif self._sweeping is None:
            self._sweeping = asyncio.get_running_loop().call_later(SWEEP_S, self._sweep)

    def left(self, connection: Connection) -> None:
        self._connections.discard(connection)
        self._emptied.set()

    def answered(self) -> None:
        if self.closing:
            self._emptied.set()

    def take(self, connection: Connection, call: Call, body: bytes) -> None:
        """Admit and post; ``connection.reply`` is called once, now or later."""
        incoming = Incoming(body, call.request.headers, connection.remote)
        work = self._door.track(incoming)
        try:
            waits_for = next(work)
        except StopIteration as end:
            self._post(connection, call, end.value)
        except Exception as error:
            self._fail(connection, call, error)
        else:
            task = asyncio.create_task(self._later(connection, call, steps.finish(work, waits_for)))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def expire(self, connection: Connection, call: Call) -> None:
        error = BadInput(408, f"The body did not arrive within {self.request_timeout_s:g} s.")
        self._fail(connection, call, error)

    async def _later(self, connection: Connection, call: Call, admission: Any) -> None:
        try:
            admitted = await admission
        except Exception as error:
            self._fail(connection, call, error)
        else:
            self._post(connection, call, admitted)

    def _post(self, connection: Connection, call: Call, admitted: Admitted | None) -> None:
        if admitted is None:
            self._reply(connection, call, answer.Reply(200, b"null"))
            return
        call.posted = perf_counter()
        try:
            self._queue.post(admitted.publication, partial(self._posted, connection, call, admitted))
        except Exception as error:
            self._fail(connection, call, error)

    def _posted(self, connection: Connection, call: Call, admitted: Admitted, error: Exception | None) -> None:
        if error is not None:
            self._fail(connection, call, error)
            return
        self._metrics.publish_seconds.observe(perf_counter() - call.posted)
        self._reply(connection, call, answer.Reply(*self._door.answer(admitted)))

    def _fail(self, connection: Connection, call: Call, error: Exception) -> None:
        if isinstance(error, TryLater):
            self._metrics.unavailable.add(error.part)
        elif not isinstance(error, BadInput):
            log.error("request_failed", path=call.request.target, exc_info=error)
        self._reply(connection, call, answer.refusal(error))

    def _reply(self, connection: Connection, call: Call, reply: answer.Reply) -> None:
        self.in_flight.give_back(call.held)
        close = call.request.close or reply.close or self.closing
        headers = {**answer.common(call.request.headers, call.start), **reply.headers}
        self._metrics.requests.add("track", answer.CLASSES[reply.status // 100])
        self._metrics.request_seconds.observe(perf_counter() - call.start)
        connection.reply(http1.response(reply.status, reply.body, headers, self._date.date(), close=close), close)

    def _sweep(self) -> None:
        now = self.clock.monotonic()
        for connection in list(self._connections):
            connection.look(now)
        loop = asyncio.get_running_loop()
        self._sweeping = loop.call_later(SWEEP_S, self._sweep) if self._connections else None
