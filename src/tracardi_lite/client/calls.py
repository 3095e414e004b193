"""One call to ``POST /track``, attempted until there is an answer or the policy says stop. No batching here."""

from __future__ import annotations

import gzip
import random
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import aiohttp
from msgspec import Struct

from tracardi_lite.client import retry, wire
from tracardi_lite.client.batching import Key
from tracardi_lite.client.errors import AttemptFailed, DeliveryFailed, Refused, Undelivered
from tracardi_lite.client.wire import Receipt
from tracardi_lite.clock import Clock

_COMPRESS_FROM = 1400
"""Bytes that fit one packet anyway; compressing them saves nothing."""


class Failure(Struct, frozen=True):
    """An attempt that may be repeated."""

    reason: str
    status: int | None = None
    retry_after_s: float | None = None
    perhaps_taken: bool = True
    cause: Exception | None = None


class Caller:
    """Sends a body, and sends it again. Made for one server; holds no events between calls."""

    def __init__(
        self,
        http: aiohttp.ClientSession,
        url: str,
        *,
        policy: retry.RetryPolicy,
        clock: Clock,
        compress: bool,
        draw: Callable[[], float] = random.random,
    ) -> None:
        self._http = http
        self._url = url.rstrip("/") + "/track"
        self._policy = policy
        self._clock = clock
        self._compress = compress
        self._draw = draw
        self.retries = 0

    async def call(
        self,
        *,
        source_id: str,
        key: Key,
        profile_id: Callable[[], str | None],
        ids: Sequence[str],
        items: Sequence[bytes],
        context: Mapping[str, Any],
        options: Mapping[str, Any],
    ) -> Receipt:
        """``profile_id`` is asked before each attempt, since another call may have learned of a merge meanwhile.

        Raises ``Refused`` for a 4xx that will not change, ``DeliveryFailed`` when the policy's bounds are used up.
        """
        begun = self._clock.monotonic()
        tried = 0
        while True:
            sent = profile_id()
            body = wire.encode_payload(
                source_id=source_id,
                session_id=key.session_id,
                profile_id=sent,
                events=items,
                context=context,
                options=options,
            )
            tried += 1
            outcome = await self._attempt(body, ids, sent, tried)
            if isinstance(outcome, Receipt):
                return outcome
            elapsed = self._clock.monotonic() - begun
            pause = self._policy.pause(tried, elapsed, self._draw(), outcome.retry_after_s)
            if pause is None:
                reason = f"gave up after {tried} attempt{'s' if tried > 1 else ''}: {outcome.reason}"
                raise DeliveryFailed([undelivered(key, items, reason, outcome.status)])
            self.retries += 1
            await self._clock.sleep(pause)

    async def once(
        self,
        *,
        source_id: str,
        session_id: str | None,
        profile_id: str | None,
        ids: Sequence[str],
        items: Sequence[bytes],
        context: Mapping[str, Any],
        options: Mapping[str, Any],
    ) -> Receipt:
        """One attempt. Raises ``Refused`` or ``AttemptFailed``, the latter from what went wrong on the way."""
        body = wire.encode_payload(
            source_id=source_id,
            session_id=session_id,
            profile_id=profile_id,
            events=items,
            context=context,
            options=options,
        )
        outcome = await self._attempt(body, ids, profile_id, 1)
        if isinstance(outcome, Receipt):
            return outcome
        raise AttemptFailed(
            outcome.reason,
            status=outcome.status,
            retry_after_s=outcome.retry_after_s,
            perhaps_taken=outcome.perhaps_taken,
        ) from outcome.cause

    async def _attempt(self, body: bytes, ids: Sequence[str], sent: str | None, tried: int) -> Receipt | Failure:
        headers = {"Content-Type": "application/json"}
        if self._compress and len(body) >= _COMPRESS_FROM:
            body = gzip.compress(body, compresslevel=1)
            headers["Content-Encoding"] = "gzip"
        try:
            async with self._http.post(self._url, data=body, headers=headers) as response:
                answer = await response.read()
        except (aiohttp.ClientError, OSError) as error:  # a timeout is an OSError
            reached = not isinstance(error, aiohttp.ClientConnectorError)
            return Failure(f"{type(error).__name__}: {error}".rstrip(": "), perhaps_taken=reached, cause=error)
        if response.status < 300:
            try:
                return wire.decode_receipt(response.status, answer, event_ids=ids, sent=sent, attempts=tried)
            except wire.NotAnAnswer as error:
                return Failure(str(error), response.status, cause=error)
        if retry.is_temporary(response.status):
            after = retry.retry_after_s(response.headers.get("Retry-After"), datetime.now(UTC))
            return Failure(f"HTTP {response.status}", response.status, after, perhaps_taken=response.status >= 500)
        raise Refused(response.status, wire.decode_detail(answer))


def undelivered(key: Key, items: Sequence[bytes], reason: str, status: int | None = None) -> Undelivered:
    events = tuple(wire.decode_event(item) for item in items)
    return Undelivered(events, key.session_id, key.profile_id, reason, status)
