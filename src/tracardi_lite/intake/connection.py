"""A client's connection on the express lane: where requests begin and end, whose they are, and what may be sent ahead.

One request of a connection is worked on at a time, and answers keep the order of requests. Bounds: a body by
``body_max`` and by what may be in flight, its arrival by ``request_timeout``, a connection without requests by
``IDLE_S``; of what a client sends ahead, ``AHEAD_MAX`` bytes are read, and a client that does not read its answers gets
no further ones.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from time import perf_counter
from typing import Any, Protocol

from aiohttp import web

from tracardi_lite.clock import Clock
from tracardi_lite.errors import Full
from tracardi_lite.intake import http1
from tracardi_lite.intake.door import InFlight
from tracardi_lite.intake.guest import Host

PATHS = ("/track", "/track/")
OURS = b"POST /track"
"""So begins a head whose rest is waited for."""
IDLE_S = 3630.0
"""A connection may be kept that long without a request: longer than load balancers keep theirs, as they ask for."""
AHEAD_MAX = 64 << 10
"""Bytes of further requests that are taken while one is answered; then the socket is not read."""


class Call:
    """One request of the lane, from its head to its answer."""

    __slots__ = ("deadline", "held", "missing", "parts", "posted", "request", "start")

    def __init__(self, request: http1.Request, length: int, deadline: float) -> None:
        self.request = request
        self.start = perf_counter()
        self.posted = 0.0
        self.held = length
        """Bytes of ``in_flight`` that are given back with the answer."""
        self.missing = length
        self.parts: list[bytes] = []
        self.deadline = deadline
        """Monotonic: when the body must be here."""


class Lane(Protocol):
    """What a connection needs of the lane."""

    clock: Clock
    in_flight: InFlight
    body_max: int
    request_timeout_s: float
    closing: bool
    """Nothing new is begun with."""
    guest: Callable[[Host], web.RequestHandler]

    def joined(self, connection: Connection) -> None: ...

    def left(self, connection: Connection) -> None: ...

    def answered(self) -> None: ...

    def take(self, connection: Connection, call: Call, body: bytes) -> None:
        """Admit, publish, and call ``connection.reply`` once, now or later."""
        ...

    def expire(self, connection: Connection, call: Call) -> None:
        """Answer a call whose body did not arrive in time."""
        ...


class Connection(asyncio.Protocol):
    """One client's connection. At any time it waits for a request, or takes or answers one (``_call``), or has passed
    one on (``_guest_busy``), or is the guest's for good (``_given_away``)."""

    __slots__ = (
        "_ahead",
        "_call",
        "_given_away",
        "_guest",
        "_guest_busy",
        "_half_closed",
        "_lane",
        "_last",
        "_looking",
        "_passing",
        "_paused",
        "_transport",
        "_writable",
        "remote",
    )

    def __init__(self, lane: Lane) -> None:
        self._lane = lane
        self._transport: Any = None
        self._call: Call | None = None
        self._ahead = b""
        self._guest: web.RequestHandler | None = None
        self._guest_busy = False
        self._passing = 0
        """Bytes of the request that was passed on, still to come."""
        self._given_away = False
        self._half_closed = False
        self._looking = False
        self._paused = False
        self._writable = True
        self._last = lane.clock.monotonic()
        self.remote: str | None = None

    @property
    def at_work(self) -> bool:
        return self._call is not None

    # --- asyncio's side ---

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        peer = transport.get_extra_info("peername")
        self.remote = str(peer[0]) if isinstance(peer, tuple) else None
        if (raw := transport.get_extra_info("socket")) is not None:
            # A peer that vanished without a word is noticed by the system.
            raw.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        self._lane.joined(self)

    def data_received(self, data: bytes) -> None:
        self._last = self._lane.clock.monotonic()
        if self._given_away:
            assert self._guest is not None
            self._guest.data_received(data)
            return
        if self._passing:
            data = self._pass(data)
        elif self._call is not None and self._call.missing:
            data = self._receive(self._call, data)
        if data:
            self._ahead = self._ahead + data if self._ahead else data
            self._look()

    def eof_received(self) -> bool:
        # Whoever has sent all and closed their side still wants the answers. aiohttp alone doesn't give them.
        self._half_closed = True
        self._look()
        return not self._transport.is_closing()

    def connection_lost(self, exc: Exception | None) -> None:
        call = self._call
        if call is not None and call.missing:
            # Nobody will answer a body that did not arrive.
            self._lane.in_flight.give_back(call.held)
            self._call = None
        self._ahead = b""
        guest, self._guest = self._guest, None
        if guest is not None:
            guest.connection_lost(exc)
        self._lane.left(self)

    def pause_writing(self) -> None:
        self._writable = False
        if self._guest is not None:
            self._guest.pause_writing()

    def resume_writing(self) -> None:
        self._writable = True
        if self._guest is not None:
            self._guest.resume_writing()
        self._look()

    # --- the lane's side ---

    def reply(self, data: bytes, close: bool) -> None:
        """The answer to the call that was taken."""
        self._call = None
        if not self._transport.is_closing():
            self._transport.write(data)
            if close:
                self._transport.close()
            else:
                self._look()
        self._lane.answered()

    def finish(self) -> None:
        """No further requests. What the guest works on is its server's to finish."""
        if self._call is None and not self._guest_busy and not self._given_away:
            self._transport.close()

    def abort(self) -> None:
        """What is not answered by now will not be."""
        if self.at_work:
            self._transport.abort()

    def look(self, now: float) -> None:
        """Is anything overdue?"""
        call = self._call
        if call is not None:
            if call.missing and now > call.deadline:
                self._lane.expire(self, call)
        elif now - self._last > IDLE_S and not self._guest_busy:
            self._transport.close()

    # --- requests ---

    def _look(self) -> None:
        """Begin with the next request, if its turn has come."""
        if self._looking:
            return  # an answer at once comes back here; the loop below goes on
        self._looking = True
        try:
            while self._ahead and self._is_idle() and self._begin():
                pass
        finally:
            self._looking = False
        if self._half_closed and not self._has_more_to_say():
            self._transport.close()
        else:
            self._throttle()

    def _is_idle(self) -> bool:
        return (
            self._call is None
            and not self._guest_busy
            and not self._given_away
            and self._writable
            and not self._transport.is_closing()
        )

    def _has_more_to_say(self) -> bool:
        """Whether a client that sends nothing more is owed anything."""
        if self._call is not None:
            return not self._call.missing
        if self._guest_busy:
            return not self._passing
        return bool(self._ahead) and not self._writable

    def _throttle(self) -> None:
        """Don't read what can't be begun with."""
        too_much = len(self._ahead) > AHEAD_MAX
        if too_much != self._paused and not self._given_away and not self._transport.is_closing():
            self._paused = too_much
            if too_much:
                self._transport.pause_reading()
            else:
                self._transport.resume_reading()

    def _begin(self) -> bool:
        """Whether there was a request to begin with."""
        data = self._ahead
        end = data.find(http1.END, 0, http1.HEAD_MAX)
        if end < 0 and _may_become_ours(data):
            return False
        request = http1.parse(data[:end]) if end > 0 else None
        if request is None:
            self._give_away()
            return True
        body_at = end + len(http1.END)
        length = request.length or 0
        if self._is_ours(request) and self._take_room(length):
            call = self._call = Call(request, length, self._lane.clock.monotonic() + self._lane.request_timeout_s)
            self._ahead = b""
            self._ahead = self._receive(call, data[body_at:])
            return True
        self._passing = body_at + length
        self._guest_busy = True
        self._ahead = b""
        self._ahead = self._pass(data)
        return True

    def _is_ours(self, request: http1.Request) -> bool:
        return (
            request.target in PATHS
            and request.method == "POST"
            and request.length is not None
            and 0 < request.length <= self._lane.body_max
            and "content-encoding" not in request.headers
        )

    def _take_room(self, length: int) -> bool:
        """False when too much is in flight: the guest says so, and reads on past the body."""
        try:
            self._lane.in_flight.take(length)
        except Full:
            return False
        return True

    def _receive(self, call: Call, data: bytes) -> bytes:
        """Take what belongs to the body; what is left belongs to the next request."""
        if len(data) < call.missing:
            if data:
                call.parts.append(data)
                call.missing -= len(data)
            return b""
        rest = data[call.missing :]
        if rest:
            data = data[: call.missing]
        call.missing = 0
        body = data
        if call.parts:
            call.parts.append(data)
            body = b"".join(call.parts)
            call.parts.clear()
        self._lane.take(self, call, body)
        return rest

    # --- the guest ---

    def _pass(self, data: bytes) -> bytes:
        """Let the guest have what belongs to the request that was passed on; what is left belongs to the next one."""
        rest = data[self._passing :]
        if rest:
            data = data[: self._passing]
        self._passing -= len(data)
        self._welcome().data_received(data)
        return rest

    def _give_away(self) -> None:
        self._given_away = True
        data, self._ahead = self._ahead, b""
        if self._paused:
            self._paused = False
            self._transport.resume_reading()
        self._welcome().data_received(data)

    def _welcome(self) -> web.RequestHandler:
        guest = self._guest
        if guest is None:
            guest = self._guest = self._lane.guest(self)
            guest.connection_made(self._transport)
            if not self._writable:
                guest.pause_writing()
        return guest

    def guest_answered(self, goes_on: bool) -> None:
        """The guest has answered what was passed on to it. It may still wait for the rest of a body that it didn't
        read: then that goes on being passed on, before anything else."""
        if self._given_away:
            return
        self._guest_busy = False
        if not goes_on:
            # It closes the connection by itself.
            self._given_away = True
            return
        if self._lane.closing:
            self._transport.close()
            return
        asyncio.get_running_loop().call_soon(self._look)

    def guest_resumed(self) -> None:
        if self._paused:
            self._transport.pause_reading()


def _may_become_ours(data: bytes) -> bool:
    """Whether these may be the first pieces of a head of the lane's. Networks cut where they like, and often in heads
    with large cookies."""
    if len(data) >= http1.HEAD_MAX or data.count(b"\n") != data.count(b"\r\n"):
        return False
    return data.startswith(OURS) or OURS.startswith(data)
