"""One connection to a broker, or to a proxy in front of it: handshake, questions by number, producers' receipts.

It is kept alive from both sides; a peer that has not answered a ping within ``KEEP_ALIVE_S`` is given up. A connection
is used once: whoever learns that it is lost makes another.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Callable
from typing import Protocol, cast

from tracardi_lite.backends.queue.pulsar.wire import commands, protobuf
from tracardi_lite.backends.queue.pulsar.wire.commands import Fault, Kind
from tracardi_lite.backends.queue.pulsar.wire.protobuf import Value
from tracardi_lite.errors import Unavailable

ANSWER_S = 5.0
"""For an answer to a question."""
KEEP_ALIVE_S = 15.0
MESSAGE_BYTES_MAX = 5 << 20
"""Pulsar's default, of brokers that don't say theirs."""

_REFUSED_US = {Fault.AUTHENTICATION: "AuthenticationError", Fault.AUTHORIZATION: "AuthorizationError"}


class Producing(Protocol):
    """What a producer is told by its connection. Must not raise."""

    def received(self, sequence: int, ledger: int, entry: int) -> None:
        """The broker keeps the entry with this sequence number, there."""

    def refused(self, sequence: int, code: int, text: str) -> None:
        """It does not; ``code`` is its ``ServerError``."""

    def detached(self, reason: str) -> None:
        """This producer is open here no more. What has no receipt has an unknown fate."""


class Connection(asyncio.Protocol):
    def __init__(self, peer: str, token: str) -> None:
        self._peer = peer
        self._token = token
        self._transport: asyncio.Transport | None = None
        self._splitter = commands.Splitter()
        self._requests = itertools.count(1)
        self._asked: dict[int, asyncio.Future[dict[int, Value]]] = {}
        self._greeted: asyncio.Future[dict[int, Value]] = asyncio.get_running_loop().create_future()
        self._producers: dict[int, Producing] = {}
        self._outgoing: list[bytes] = []
        self._heard = True
        self._timer: asyncio.TimerHandle | None = None
        self._reason = "closed the connection"
        self.message_bytes_max = MESSAGE_BYTES_MAX
        """The broker's ``maxMessageSize``, once it has greeted."""

    @property
    def is_open(self) -> bool:
        return self._transport is not None and not self._transport.is_closing()

    async def greet(self, proxy_to: str) -> None:
        """Introduce ourselves; the first thing to do. Raises ``Unavailable``, as all that waits here does."""
        self.write(commands.connect(self._token, proxy_to))
        fields = await self._within(self._greeted)
        self.message_bytes_max = protobuf.number(fields, 3, MESSAGE_BYTES_MAX)
        self._keep_alive()

    async def ask(self, question: Callable[[int], bytes]) -> dict[int, Value]:
        """The answer to what ``question`` makes of a number; an ERROR is raised."""
        if not self.is_open:
            raise Unavailable("queue", f"Pulsar at {self._peer}: {self._reason}")
        number = next(self._requests)
        future = self._asked[number] = asyncio.get_running_loop().create_future()
        try:
            self.write(question(number))
            return await self._within(future)
        finally:
            self._asked.pop(number, None)

    async def open_producer(self, producing: Producing, topic: str, id: int, name: str, epoch: int) -> str:
        """The producer's name. From now on ``producing`` is told, even before this has returned."""
        self._producers[id] = producing
        try:
            answer = await self.ask(lambda request: commands.producer(request, topic, id, name, epoch))
            return protobuf.text(answer, 2)
        except ValueError as error:
            self._producers.pop(id, None)
            raise Unavailable("queue", f"Pulsar at {self._peer} has named no producer: {error}") from error
        except BaseException:
            self._producers.pop(id, None)
            raise

    def close_producer(self, id: int) -> None:
        """Its ``Producing`` is told nothing more."""
        self._producers.pop(id, None)
        self.write(commands.close_producer(next(self._requests), id))

    def write(self, data: bytes) -> None:
        """What is written in one turn of the loop goes out together: a call of the kernel costs more than a message,
        and a topic's partitions, each with a producer of its own, mostly share a broker.

        What is written to a connection that is lost goes nowhere; ``detached`` tells of it.
        """
        self._outgoing.append(data)
        if len(self._outgoing) == 1:
            asyncio.get_running_loop().call_soon(self._write_out)

    def close(self) -> None:
        """Give it up when what was written has gone out."""
        self._write_out()
        if self._transport is not None:
            self._reason = "closed by us"
            self._transport.close()

    def abort(self, reason: str) -> None:
        """Give it up at once."""
        if self.is_open:
            self._reason = reason
            assert self._transport is not None
            self._transport.abort()

    # --- asyncio.Protocol ---
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's does not inherit from it

    def data_received(self, data: bytes) -> None:
        self._heard = True
        try:
            for said in self._splitter.feed(data):
                self._hear(said.kind, said.fields)
        except ValueError as error:
            self.abort(f"does not speak Pulsar's protocol: {error}")

    def connection_lost(self, error: Exception | None) -> None:
        if self._timer is not None:
            self._timer.cancel()
        reason = str(error) if error is not None else self._reason
        self._transport = None
        for future in (self._greeted, *self._asked.values()):
            if not future.done():
                future.set_exception(Unavailable("queue", f"Pulsar at {self._peer}: {reason}"))
                future.exception()  # nobody may be waiting any more
        producers, self._producers = self._producers, {}
        for producing in producers.values():
            producing.detached(reason)

    # --- inside ---
    def _write_out(self) -> None:
        outgoing, self._outgoing = self._outgoing, []
        if outgoing and self._transport is not None:
            self._transport.write(b"".join(outgoing))

    def _hear(self, kind: int, fields: dict[int, Value]) -> None:
        if kind == commands.SEND_RECEIPT:
            producing = self._producers.get(protobuf.number(fields, 1))
            if producing is not None:
                place = protobuf.decode(protobuf.raw(fields, 3))
                producing.received(protobuf.number(fields, 2), protobuf.number(place, 1), protobuf.number(place, 2))
            return
        match kind:
            case Kind.SEND_ERROR:
                producing = self._producers.get(protobuf.number(fields, 1))
                if producing is not None:
                    producing.refused(protobuf.number(fields, 2), protobuf.number(fields, 3), protobuf.text(fields, 4))
            case Kind.PING:
                self.write(commands.pong())
            case Kind.AUTH_CHALLENGE:
                self.write(commands.auth_response(self._token))
            case Kind.CONNECTED:
                _answer(self._greeted, fields)
            case Kind.PRODUCER_SUCCESS | Kind.SUCCESS:
                self._answer(protobuf.number(fields, 1), fields)
            case Kind.LOOKUP_RESPONSE:
                self._answer(protobuf.number(fields, 4), fields)
            case Kind.ERROR:
                self._fail(protobuf.number(fields, 1), protobuf.number(fields, 2), protobuf.text(fields, 3))
            case Kind.CLOSE_PRODUCER:
                producing = self._producers.pop(protobuf.number(fields, 1), None)
                if producing is not None:
                    producing.detached("the broker closes the topic, to move it")

    def _answer(self, request: int, fields: dict[int, Value]) -> None:
        future = self._asked.get(request)
        if future is not None:
            _answer(future, fields)

    def _fail(self, request: int, code: int, text: str) -> None:
        """An error without a question of ours is one of the handshake."""
        future = self._asked.get(request, self._greeted)
        if not future.done():
            future.set_exception(fault(self._peer, code, text))

    async def _within(self, future: asyncio.Future[dict[int, Value]]) -> dict[int, Value]:
        try:
            async with asyncio.timeout(ANSWER_S):
                return await future
        except TimeoutError as error:
            raise Unavailable("queue", f"Pulsar at {self._peer}: no answer within {ANSWER_S:g} s") from error

    def _keep_alive(self) -> None:
        if not self._heard:
            self.abort(f"no answer to a ping within {KEEP_ALIVE_S:g} s")
            return
        self._heard = False
        self.write(commands.ping())
        self._timer = asyncio.get_running_loop().call_later(KEEP_ALIVE_S, self._keep_alive)


def fault(peer: str, code: int, text: str) -> Unavailable:
    """What the broker's error means to whoever asked."""
    if code in _REFUSED_US:
        return Unavailable("queue", f"Pulsar refuses us: {_REFUSED_US[Fault(code)]}; see PULSAR_AUTH_TOKEN", 5.0)
    return Unavailable("queue", f"Pulsar at {peer}: {first_line(text) or f'error {code}'}")


def first_line(text: str) -> str:
    """Of a broker's text, which goes on with its stack; the first line says it all."""
    return text.partition("\n")[0]


def _answer(future: asyncio.Future[dict[int, Value]], fields: dict[int, Value]) -> None:
    if not future.done():
        future.set_result(fields)
