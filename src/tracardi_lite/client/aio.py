"""``AsyncClient``: a buffer that is bounded, one task that hands out batches, a few that deliver them.

Bounds: ``buffer_events`` and ``buffer_bytes`` of events held, ``concurrency`` calls in flight, ``RetryPolicy`` per
call, ``wait_s`` for room, ``close_s`` for closing. Order: a key's batches go one after the other, so a profile's events
arrive as they were tracked. Not thread-safe: use ``Client`` from other threads.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from types import TracebackType
from typing import Any, Self, TypeVar, Unpack
from urllib.parse import urlsplit
from uuid import UUID, uuid5

import aiohttp

from tracardi_lite import __version__
from tracardi_lite.client import calls, wire
from tracardi_lite.client.batching import Batch, Batcher, Key
from tracardi_lite.client.calls import Caller
from tracardi_lite.client.errors import BufferFull, ClientError, DeliveryFailed, Refused, Undelivered
from tracardi_lite.client.identity import Aliases
from tracardi_lite.client.options import Options, Stats
from tracardi_lite.client.retry import RetryPolicy
from tracardi_lite.client.wire import Event, Receipt, Times
from tracardi_lite.clock import SystemClock

T = TypeVar("T")
_log = logging.getLogger("tracardi_lite.client")


class AsyncClient:
    """``async with AsyncClient(url, source_id) as tracardi: await tracardi.track("page-view", {...})``.

    Whose event it is: with ``session_id``, that session's, with ``profile_id`` alone, that profile's, in a session that
    this client makes for it; with neither, the client's own (``self.session_id``, ``self.profile_id``), which
    follow the server's answers. A profile id that the server has answered with another one (a merge) is replaced in
    later calls.
    """

    def __init__(self, url: str, source_id: str, **options: Unpack[Options]) -> None:
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError(f"the server's address must be like http://host:8686, not {url!r}")
        self._url = url
        self._source_id = source_id
        self._seed = UUID(wire.new_id())
        self.session_id = options.get("session_id") or str(self._seed)
        self.profile_id = options.get("profile_id")
        self._batcher = Batcher(
            events_max=options.get("batch_events", 100),
            bytes_max=options.get("batch_bytes", 256 * 1024),
            age_max_s=options.get("batch_age_s", 1.0),
            hold_events=options.get("buffer_events", 10_000),
            hold_bytes=options.get("buffer_bytes", 16 * 1024 * 1024),
        )
        self._overflow = options.get("overflow", "wait")
        self._wait_s = options.get("wait_s", 60.0)
        self._concurrency = options.get("concurrency", 4)
        self._timeout_s = options.get("timeout_s", 10.0)
        self._close_s = options.get("close_s", 10.0)
        self._policy = options.get("retry", RetryPolicy())
        self._compress = options.get("compress", False)
        self._context = options.get("context", {})
        self._options = options.get("options", {})
        self._headers = options.get("headers", {})
        self._on_receipt = options.get("on_receipt")
        self._on_undelivered = options.get("on_undelivered")
        self._clock = options.get("clock") or SystemClock()
        self._aliases = Aliases()
        self._wake = asyncio.Event()
        self._settled = asyncio.Condition()
        self._deliveries: set[asyncio.Task[None]] = set()
        self._failed: list[Undelivered] = []
        self._tracked = self._delivered = self._refused = self._lost = 0
        self._http: aiohttp.ClientSession | None = None
        self._caller: Caller | None = None
        self._pump: asyncio.Task[None] | None = None
        self._closed = False

    # --- life ---

    async def open(self) -> Self:
        """Called by ``async with``. A client is opened once and closed once."""
        if self._http is not None or self._closed:
            raise RuntimeError("a client is opened once")
        self._http = aiohttp.ClientSession(
            timeout=aiohttp.ClientTimeout(total=self._timeout_s),
            headers={"User-Agent": f"tracardi-lite/{__version__}"} | dict(self._headers),
            connector=aiohttp.TCPConnector(limit=0),  # bounded by `concurrency`, and by those who call `send`
            cookie_jar=aiohttp.DummyCookieJar(),
        )
        self._caller = Caller(self._http, self._url, policy=self._policy, clock=self._clock, compress=self._compress)
        self._pump = asyncio.create_task(self._hand_out(), name="tracardi-client")
        return self

    async def close(self, timeout_s: float | None = None) -> None:
        """Take no more, deliver what is held for at most ``timeout_s`` (default: ``close_s``), give up on the rest.

        Raises ``DeliveryFailed`` with what was given up on, unless ``on_undelivered`` takes it. Closing twice is fine.
        """
        if self._closed:
            return
        self._closed = True
        try:
            await self._drain(self._close_s if timeout_s is None else timeout_s)
        finally:
            tasks = [task for task in (self._pump, *self._deliveries) if task is not None]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            for batch in self._batcher.drain():
                self._give_up(calls.undelivered(batch.key, batch.items, "closed before it was delivered"))
            async with self._settled:
                self._settled.notify_all()
            if self._http is not None:
                await self._http.close()
        self._raise_failed()

    async def __aenter__(self) -> Self:
        return await self.open()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            await self.close()
            return
        # What went wrong inside matters more than what it left behind.
        try:
            await self.close()
        except DeliveryFailed as failed:
            _log.error("%s", failed)

    # --- sending ---

    async def track(
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
        """Buffer one event; the event's id. It is sent with others, soon; it is kept in memory only until then.

        Raises ``BufferFull`` without room (see ``overflow``), ``DeliveryFailed`` when earlier events were given up on
        and nobody took them, ``ValueError`` or ``TypeError`` for what can't be sent. This event is then not taken.
        """
        event = Event(
            type,
            dict(properties or {}),
            id or wire.new_id(),
            Times() if time is None else Times(time),
            dict(context or {}),
            dict(options or {}),
            list(tags),
        )
        item = wire.encode_event(event)
        if len(item) > self._batcher.hold_bytes:
            raise ValueError(f"an event of {len(item)} bytes is larger than the whole buffer")
        self._must_be_open()
        self._raise_failed()
        if not self._batcher.fits(len(item)):
            await self._room(len(item))
            self._must_be_open()
        self._tracked += 1
        if self._batcher.add(self._key(session_id, profile_id), event.id, item, self._clock.monotonic()):
            self._wake.set()
        return event.id

    async def send(
        self,
        events: Sequence[Event],
        *,
        session_id: str | None = None,
        profile_id: str | None = None,
        context: Mapping[str, Any] | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> Receipt:
        """One call with these events now, past the buffer, with the same retries; the server's receipt.

        Raises ``Refused`` or ``DeliveryFailed``. Cancelled, it may or may not have arrived: send the same events again.
        """
        if not all(event.id for event in events):
            raise ValueError("only `attempt` sends events without ids: what may be sent again needs one")
        if not events:
            raise ValueError("no events to send")
        caller = self._must_be_open()
        key = self._key(session_id, profile_id)
        receipt = await caller.call(
            source_id=self._source_id,
            key=key,
            profile_id=lambda: self._profile_of(key),
            ids=[event.id for event in events],
            items=[wire.encode_event(event) for event in events],
            context=self._context if context is None else context,
            options=self._options if options is None else options,
        )
        self._learn(key, receipt)
        return receipt

    async def attempt(
        self,
        events: Sequence[Event],
        *,
        session_id: str | None = None,
        profile_id: str | None = None,
        context: Mapping[str, Any] | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> Receipt:
        """One try of one call, exactly as given, for programs that keep their own record of what was answered.

        Without a session id the server makes a session, and an id for each event whose own is "". Nothing is retried,
        and neither the client's own session nor a merge it has learned of comes in. Raises ``Refused`` or
        ``AttemptFailed``.
        """
        if not events:
            raise ValueError("no events to send")
        return await self._must_be_open().once(
            source_id=self._source_id,
            session_id=session_id,
            profile_id=profile_id,
            ids=[event.id for event in events],
            items=[wire.encode_event(event) for event in events],
            context=self._context if context is None else context,
            options=self._options if options is None else options,
        )

    async def flush(self, timeout_s: float = 30.0) -> None:
        """Wait until everything tracked before has its answer. Raises ``DeliveryFailed`` for what was given up on,
        ``TimeoutError`` when there are still events in flight after ``timeout_s``; they stay in flight."""
        self._must_be_open()
        if not await self._drain(timeout_s):
            raise TimeoutError(f"{self._batcher.held_events} events are still pending after {timeout_s:g} s")
        self._raise_failed()

    @property
    def stats(self) -> Stats:
        return Stats(
            tracked=self._tracked,
            delivered=self._delivered,
            refused=self._refused,
            undelivered=self._lost,
            pending=self._batcher.held_events,
            retries=self._caller.retries if self._caller else 0,
        )

    # --- inside ---

    async def _hand_out(self) -> None:
        """Give due batches to deliveries, then wait for the next due time, a settled batch or a new event."""
        while True:
            self._wake.clear()
            now = self._clock.monotonic()
            for batch in self._batcher.take(now, self._concurrency - len(self._deliveries)):
                task = asyncio.create_task(self._deliver(batch))
                self._deliveries.add(task)
                task.add_done_callback(self._delivered_one)
            busy = len(self._deliveries) >= self._concurrency
            await self._woken(None if busy else self._batcher.due_in_s(now))

    async def _woken(self, within_s: float | None) -> None:
        if within_s is None:
            await self._wake.wait()
            return
        alarm = asyncio.create_task(self._ring(within_s))
        try:
            await self._wake.wait()
        finally:
            alarm.cancel()

    async def _ring(self, after_s: float) -> None:
        await self._clock.sleep(after_s)
        self._wake.set()

    async def _deliver(self, batch: Batch) -> None:
        assert self._caller is not None
        try:
            receipt = await self._caller.call(
                source_id=self._source_id,
                key=batch.key,
                profile_id=lambda: self._profile_of(batch.key),
                ids=batch.ids,
                items=batch.items,
                context=self._context,
                options=self._options,
            )
        except DeliveryFailed as failed:
            for lost in failed.undelivered:
                self._give_up(lost)
        except ClientError as error:
            status = error.status if isinstance(error, Refused) else None
            self._give_up(calls.undelivered(batch.key, batch.items, str(error), status))
        except Exception as error:
            # A mistake in here must show, and must neither hold the buffer's room nor lose the events silently.
            _log.exception("a delivery failed unexpectedly")
            self._give_up(calls.undelivered(batch.key, batch.items, repr(error)))
        else:
            refused = min(len(receipt.errors), len(batch.ids))
            self._refused += refused
            self._delivered += len(batch.ids) - refused
            self._learn(batch.key, receipt)
            self._tell(self._on_receipt, receipt)
        self._batcher.settle(batch)
        async with self._settled:
            self._settled.notify_all()

    def _delivered_one(self, task: asyncio.Task[None]) -> None:
        self._deliveries.discard(task)
        self._wake.set()

    async def _drain(self, timeout_s: float) -> bool:
        number = self._batcher.close_open()
        self._wake.set()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s), self._settled:
                await self._settled.wait_for(lambda: self._batcher.settled(number))
        return self._batcher.settled(number)

    async def _room(self, size: int) -> None:
        if self._overflow == "raise":
            raise BufferFull(f"{self._batcher.held_events} events are held")
        try:
            async with asyncio.timeout(self._wait_s), self._settled:
                await self._settled.wait_for(lambda: self._closed or self._batcher.fits(size))
        except TimeoutError:
            raise BufferFull(f"no room within {self._wait_s:g} s") from None

    def _key(self, session_id: str | None, profile_id: str | None) -> Key:
        if session_id:
            return Key(session_id, profile_id or None)
        if profile_id and profile_id != self.profile_id:
            # A session belongs to one profile, whatever a call says; so each profile gets one of its own.
            return Key(str(uuid5(self._seed, profile_id)), profile_id)
        return Key(self.session_id, None)

    def _profile_of(self, key: Key) -> str | None:
        if key.profile_id is None:
            return self.profile_id if key.session_id == self.session_id else None
        return self._aliases.survivor(key.profile_id)

    def _learn(self, key: Key, receipt: Receipt) -> None:
        if receipt.profile_id is None:
            return
        if key.session_id == self.session_id and key.profile_id in (None, self.profile_id):
            self.profile_id = receipt.profile_id
            self.session_id = receipt.session_id or self.session_id
        if receipt.sent_profile_id is not None:
            self._aliases.learn(receipt.sent_profile_id, receipt.profile_id)

    def _give_up(self, lost: Undelivered) -> None:
        self._lost += len(lost.events)
        if self._on_undelivered is None:
            self._failed.append(lost)
        else:
            self._tell(self._on_undelivered, lost)

    def _raise_failed(self) -> None:
        if self._failed:
            failed, self._failed = self._failed, []
            raise DeliveryFailed(failed)

    def _tell(self, callback: Callable[[T], None] | None, value: T) -> None:
        """A callback's mistake is the caller's to see, in its log; it must not stop the delivery of other events."""
        if callback is None:
            return
        try:
            callback(value)
        except Exception:
            _log.exception("a callback of the client failed")

    def _must_be_open(self) -> Caller:
        if self._caller is None or self._closed:
            raise RuntimeError("the client is not open: use `async with`")
        return self._caller
