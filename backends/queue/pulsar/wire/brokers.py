"""Which broker serves a topic, and a connection to it; connections are shared by all producers of a process."""

from __future__ import annotations

import asyncio
import ssl
from functools import partial
from typing import NamedTuple
from urllib.parse import urlsplit

from tracardi_lite import tls
from tracardi_lite.backends.queue.pulsar.wire import commands, protobuf
from tracardi_lite.backends.queue.pulsar.wire.connection import Connection, fault
from tracardi_lite.errors import Unavailable

CONNECT_S = 3.0
REDIRECTS_MAX = 20
_REDIRECT, _CONNECT = 0, 1


class Address(NamedTuple):
    host: str
    port: int
    proxy_to: str = ""
    """The broker that a proxy at this host shall pass the connection on to."""


class Brokers:
    """``service_url`` is ``pulsar://host:port``, or more hosts with commas between them; ``context`` is for
    ``pulsar+ssl``."""

    def __init__(self, service_url: str, token: str, context: ssl.SSLContext | None) -> None:
        hosts = service_url.partition("://")[2].split(",")
        self._service = [_address(host, context is not None) for host in hosts]
        self._token = token
        self._context = context
        self._connecting: dict[Address, asyncio.Task[Connection]] = {}

    async def serving(self, topic: str) -> Connection:
        """An open connection to the broker that has the topic. Raises ``Unavailable``."""
        try:
            return await self._serving(topic)
        except ValueError as error:
            raise Unavailable("queue", f"the answer to a look-up of {topic} makes no sense: {error}") from error

    async def _serving(self, topic: str) -> Connection:
        connection, entrance = await self._any()
        authoritative = False
        for _ in range(REDIRECTS_MAX):
            answer = await connection.ask(partial(commands.lookup, topic=topic, authoritative=authoritative))
            verdict = protobuf.number(answer, 3)
            if verdict not in (_REDIRECT, _CONNECT):
                raise fault(entrance.host, protobuf.number(answer, 6), protobuf.text(answer, 7))
            url = protobuf.text(answer, 1 if self._context is None else 2)
            if not url:
                raise Unavailable("queue", f"the broker of {topic} is not there for {self._scheme}")
            broker = _address(urlsplit(url).netloc, self._context is not None)
            if protobuf.number(answer, 8):
                broker = Address(entrance.host, entrance.port, urlsplit(url).netloc)
            connection = await self._connected(broker)
            if verdict == _CONNECT:
                return connection
            authoritative = bool(protobuf.number(answer, 5))
        raise Unavailable("queue", f"{topic} is passed on from broker to broker")

    async def close(self) -> None:
        tasks, self._connecting = list(self._connecting.values()), {}
        for task in tasks:
            if task.done() and not task.cancelled() and task.exception() is None:
                task.result().close()
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    @property
    def _scheme(self) -> str:
        return "pulsar" if self._context is None else "pulsar+ssl"

    async def _any(self) -> tuple[Connection, Address]:
        """To the first host of the service's that answers; the reason of the last one if none does."""
        for address in self._service[:-1]:
            try:
                return await self._connected(address), address
            except Unavailable:
                continue
        return await self._connected(self._service[-1]), self._service[-1]

    async def _connected(self, address: Address) -> Connection:
        task = self._connecting.get(address)
        if task is None or (task.done() and not _is_open(task)):
            task = self._connecting[address] = asyncio.create_task(self._connect(address))
        return await asyncio.shield(task)  # others may wait for the same one

    async def _connect(self, address: Address) -> Connection:
        name = f"{address.host}:{address.port}"
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(CONNECT_S):
                transport, connection = await loop.create_connection(
                    lambda: Connection(address.proxy_to or name, self._token),
                    address.host,
                    address.port,
                    ssl=self._context,
                )
        except (OSError, TimeoutError) as error:
            reason = str(error) or f"no answer within {CONNECT_S:g} s"
            raise tls.fault("queue", "pulsar", error) or Unavailable("queue", f"Pulsar at {name}: {reason}") from error
        try:
            await connection.greet(address.proxy_to)
        except BaseException:
            transport.abort()
            raise
        return connection


def _address(netloc: str, encrypted: bool) -> Address:
    """``ValueError`` for what names no host."""
    place = urlsplit(f"//{netloc}")
    if not place.hostname:
        raise ValueError(f"{netloc!r} is no address")
    return Address(place.hostname, place.port or (6651 if encrypted else 6650))


def _is_open(task: asyncio.Task[Connection]) -> bool:
    return not task.cancelled() and task.exception() is None and task.result().is_open
