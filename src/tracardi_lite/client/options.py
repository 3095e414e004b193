"""What a client can be told, and what it counts."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal, TypedDict

from msgspec import Struct

from tracardi_lite.client.errors import Undelivered
from tracardi_lite.client.retry import RetryPolicy
from tracardi_lite.client.wire import Receipt
from tracardi_lite.clock import Clock


class Options(TypedDict, total=False):
    """Keyword arguments of both clients; sizes in bytes, times in seconds."""

    session_id: str | None
    """Whose events these are when ``track`` is not told. None: the client is a visitor of its own, with a new id."""
    profile_id: str | None
    batch_events: int
    """Send when this many events of one key wait (100)."""
    batch_bytes: int
    """… or this many bytes (256 KiB)."""
    batch_age_s: float
    """… or the oldest has waited this long (1)."""
    buffer_events: int
    """Most events held, waiting and in flight (10,000)."""
    buffer_bytes: int
    """… and most bytes (16 MiB)."""
    overflow: Literal["wait", "raise"]
    """What ``track`` does without room: wait up to ``wait_s``, or raise ``BufferFull`` at once ("wait")."""
    wait_s: float
    """Longest that ``track`` waits for room; then ``BufferFull`` (60)."""
    concurrency: int
    """Calls in flight (4)."""
    timeout_s: float
    """Of one attempt (10)."""
    close_s: float
    """How long leaving ``with`` waits for what is held (10)."""
    retry: RetryPolicy
    compress: bool
    """gzip bodies over 1,400 bytes; tracardi-lite takes them, the original does not (False)."""
    context: Mapping[str, Any]
    """The payload's context, saved into the session ({})."""
    options: Mapping[str, Any]
    """The payload's options, such as ``saveSession`` ({})."""
    headers: Mapping[str, str]
    """Sent with each call ({})."""
    on_receipt: Callable[[Receipt], None] | None
    """Called with each batch's answer, per-event errors included; must not block."""
    on_undelivered: Callable[[Undelivered], None] | None
    """Takes what is given up on; without it, the next ``track``, ``flush`` or ``close`` raises."""
    clock: Clock


class Stats(Struct, frozen=True):
    """Counted in events since the start; ``tracked`` is always the sum of the other four, ``retries`` are calls."""

    tracked: int
    delivered: int
    """Taken by the server."""
    refused: int
    """Reported in ``errors`` of a call that was otherwise taken (226)."""
    undelivered: int
    pending: int
    retries: int
