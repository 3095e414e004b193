"""The edge to ``pulsar-client``: making a client, running its blocking calls in threads, turning its errors into ours.

The client writes its own log lines from C++ threads; they are switched off, since what matters is said by us, once per
change of state, and a Python logger called from those threads can deadlock with the interpreter's lock.
"""

from __future__ import annotations

import asyncio
import os
import ssl
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import pulsar

from tracardi_lite.errors import Misconfigured, Unavailable
from tracardi_lite.settings import Settings

T = TypeVar("T")

OPERATION_TIMEOUT_S = 5
"""For each attempt to open a producer, a consumer or a reader."""
CONNECT_TIMEOUT_MS = 3000
THREADS = 16
"""Blocking calls at once: opening the producers of a topic takes one each."""

_HOPELESS = (pulsar.AuthenticationError, pulsar.AuthorizationError)


class Blocking:
    """A client and the threads in which its blocking calls run."""

    def __init__(self, service_url: str, settings: Settings) -> None:
        authentication = None
        if settings.pulsar_auth_token:
            authentication = pulsar.AuthenticationToken(settings.pulsar_auth_token)
        self._threads = ThreadPoolExecutor(THREADS, "pulsar")
        self._service_url = service_url
        try:
            self.client = pulsar.Client(
                service_url,
                authentication=authentication,
                operation_timeout_seconds=OPERATION_TIMEOUT_S,
                connection_timeout_ms=CONNECT_TIMEOUT_MS,
                # Its own default is another bundle (certifi's), which a machine's own authorities are not in.
                tls_trust_certs_file_path=settings.pulsar_ca_file or ssl.get_default_verify_paths().cafile,
                tls_allow_insecure_connection=not settings.pulsar_verify_certs,
                tls_validate_hostname=settings.pulsar_verify_certs,
                logger=pulsar.FileLogger(pulsar.LoggerLevel.Error, os.devnull),
            )
        except (pulsar.PulsarException, ValueError, RuntimeError) as error:
            raise Misconfigured("pulsar_host", f"{service_url!r}: {error}") from error

    async def run(self, call: Callable[..., T], *arguments: Any, **options: Any) -> T:
        """The call's result, from a thread; its errors as ours. Cancelling leaves the thread to finish by itself."""
        loop = asyncio.get_running_loop()
        try:
            return await loop.run_in_executor(self._threads, lambda: call(*arguments, **options))
        except _HOPELESS as error:
            raise Unavailable("queue", f"Pulsar refuses us: {name_of(error)}; see PULSAR_AUTH_TOKEN", 5.0) from error
        except pulsar.PulsarException as error:
            raise Unavailable("queue", f"Pulsar at {self._service_url}: {name_of(error)}") from error

    async def close(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            await loop.run_in_executor(self._threads, self._close)
        finally:
            self._threads.shutdown(wait=False)

    def _close(self) -> None:
        try:
            self.client.close()
        except pulsar.PulsarException:
            self.client.shutdown()  # away, or partly closed: nothing is left to say goodbye to


def partitions_of(client: Any, topic: str) -> list[str]:
    """The partitions' names, the topic's own where it has none, nothing where there is no such tenant or namespace."""
    try:
        return list(client.get_topic_partitions(topic))
    except pulsar.exceptions.TopicNotFound:
        return []


def name_of(error: BaseException) -> str:
    """``ConnectError``, rather than the client's ``Pulsar error: ConnectError`` or an empty text."""
    return type(error).__name__


@asynccontextmanager
async def reader(blocking: Blocking, topic: str, start: Any, *, compacted: bool = False) -> AsyncIterator[Any]:
    """A reader from a message id on, the one itself included."""
    opened = await blocking.run(
        blocking.client.create_reader,
        topic,
        start,
        start_message_id_inclusive=True,
        is_read_compacted=compacted,
    )
    try:
        yield opened
    finally:
        await blocking.run(close_quietly, opened)


def close_quietly(thing: Any) -> None:
    """Close a producer, consumer or reader that may be closed or broken already."""
    try:
        thing.close()
    except (pulsar.PulsarException, ValueError):
        return
