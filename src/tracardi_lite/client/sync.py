"""``Client``: the same client for programs without an event loop; it runs ``AsyncClient`` in a thread of its own."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine, Mapping, Sequence
from datetime import datetime
from types import TracebackType
from typing import Any, Self, TypeVar, Unpack

from tracardi_lite.client.aio import AsyncClient
from tracardi_lite.client.options import Options, Stats
from tracardi_lite.client.wire import Event, Receipt

T = TypeVar("T")


class Client:
    """``with Client(url, source_id) as tracardi: tracardi.track("page-view", {...})``.

    Safe to use from any number of threads; callbacks are called in the client's own thread. Not from inside an event
    loop (it would block it), and not across ``fork``.
    """

    def __init__(self, url: str, source_id: str, **options: Unpack[Options]) -> None:
        self._client = AsyncClient(url, source_id, **options)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    def open(self) -> Self:
        """Called by ``with``. A client is opened once and closed once."""
        if self._thread is not None:
            raise RuntimeError("a client is opened once")
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="tracardi-client", daemon=True)
        self._thread.start()
        self._run(self._client.open())
        return self

    def close(self, timeout_s: float | None = None) -> None:
        """As ``AsyncClient.close``; the thread ends with it."""
        if self._loop is None:
            return
        try:
            self._run(self._client.close(timeout_s))
        finally:
            self._end()

    def __enter__(self) -> Self:
        return self.open()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self._run(self._client.__aexit__(kind, error, trace))
        finally:
            self._end()

    def track(
        self,
        type: str,
        properties: Mapping[str, Any] | None = None,
        *,
        session_id: str | None = None,
        profile_id: str | None = None,
        id: str | None = None,
        time: datetime | None = None,
        context: Mapping[str, Any] | None = None,
        options: Mapping[str, Any] | None = None,
        tags: Sequence[str] = (),
    ) -> str:
        """As ``AsyncClient.track``: buffers one event and returns its id."""
        return self._run(
            self._client.track(
                type,
                properties,
                session_id=session_id,
                profile_id=profile_id,
                id=id,
                time=time,
                context=context,
                options=options,
                tags=tags,
            )
        )

    def send(
        self,
        events: Sequence[Event],
        *,
        session_id: str | None = None,
        profile_id: str | None = None,
        context: Mapping[str, Any] | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> Receipt:
        """As ``AsyncClient.send``: one call now."""
        return self._run(
            self._client.send(events, session_id=session_id, profile_id=profile_id, context=context, options=options)
        )

    def attempt(
        self,
        events: Sequence[Event],
        *,
        session_id: str | None = None,
        profile_id: str | None = None,
        context: Mapping[str, Any] | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> Receipt:
        """As ``AsyncClient.attempt``: one try of one call, exactly as given."""
        return self._run(
            self._client.attempt(events, session_id=session_id, profile_id=profile_id, context=context, options=options)
        )

    def flush(self, timeout_s: float = 30.0) -> None:
        """As ``AsyncClient.flush``."""
        self._run(self._client.flush(timeout_s))

    @property
    def stats(self) -> Stats:
        return self._client.stats

    @property
    def session_id(self) -> str:
        return self._client.session_id

    @property
    def profile_id(self) -> str | None:
        return self._client.profile_id

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        if self._loop is None:
            work.close()
            raise RuntimeError("the client is not open: use `with`")
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def _end(self) -> None:
        loop, self._loop = self._loop, None
        if loop is not None and self._thread is not None:
            loop.call_soon_threadsafe(loop.stop)
            self._thread.join()
            loop.close()
