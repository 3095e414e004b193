"""A typed client for Tracardi's collector: batching, retries that cannot count twice, bounded memory.

``AsyncClient`` and ``Client`` (the same for programs without an event loop) over a pure core: ``batching`` decides
when a batch is full, ``retry`` how long to wait, ``wire`` what is sent and what an answer means. Works against
tracardi-lite and against the original. It needs aiohttp and msgspec, and imports nothing of the server.

    async with AsyncClient("http://127.0.0.1:8686", "default") as tracardi:
        await tracardi.track("page-view", {"path": "/"}, session_id="s-1")
"""

from tracardi_lite.client.aio import AsyncClient
from tracardi_lite.client.errors import AttemptFailed, BufferFull, ClientError, DeliveryFailed, Refused, Undelivered
from tracardi_lite.client.options import Options, Stats
from tracardi_lite.client.retry import RetryPolicy
from tracardi_lite.client.sync import Client
from tracardi_lite.client.wire import Event, EventError, Receipt, Times, new_id

__all__ = [
    "AsyncClient",
    "AttemptFailed",
    "BufferFull",
    "Client",
    "ClientError",
    "DeliveryFailed",
    "Event",
    "EventError",
    "Options",
    "Receipt",
    "Refused",
    "RetryPolicy",
    "Stats",
    "Times",
    "Undelivered",
    "new_id",
]
