"""The queue port: what stands between the answer to a client and the work for it.

The contract, which ``tracardi_lite.testing.queue_suite`` proves of every backend:

* ``publish`` returns only when the message is durable (fsync'd, or the broker's receipt). If it raises, the
  message may or may not be there; the caller answers 503 and the client's retry is made harmless by ids.
  ``post`` does the same without a task: it tells ``done`` instead of returning.
* A key (profile id) always lands in the same partition. Messages of a key are delivered in the order in which
  they were published, one consumer at a time, and a message is never delivered while an earlier one of its key
  waits for redelivery: watermarks downstream rely on it.
* Delivery is at least once. What was neither acknowledged nor dead-lettered comes again, after a crash to
  whichever consumer holds the partition then. ``tries`` counts earlier deliveries that ended in ``nack`` and
  survives a restart of the consumer.
* ``ack`` is fenced: when the partition has moved to another consumer it raises ``LeaseLost`` and moves nothing.
* ``(stream, position)`` names a message for ever: positions of one stream grow in publish order, and a stream
  name is never used again for other messages (a wiped queue gets new ones).
* The ledger adds up at every moment, across restarts and processes:
  ``received + replayed == stored + duplicate + rejected + dead_lettered + pending``, where the queue knows all
  but ``rejected`` by itself (see ``Totals``).
* Cancelling any call leaves the backend usable; a cancelled ``publish`` may still become durable.

Errors: ``Full`` (a bound or the disk; Retry-After inside), ``Unavailable`` (away), ``LeaseLost``.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any, Protocol, Self

from msgspec import Struct

TOPIC = "persistent://tracardi/system/functions"
SUBSCRIPTION = "tracardi-function-subscription"
"""The workers' subscription: it exists from the first publish on, and the ledger's outcomes are its."""


class Publication(Struct):
    key: str
    """Routes to a partition and orders within it: the profile id, or the message id when there is none."""
    head: bytes
    body: bytes
    events: int
    """How many events it carries, for the ledger and backlogs. At least 0."""
    replay: bool = False
    """True when it was received before (a dead letter sent again): it counts as replayed, not as received."""


Posted = Callable[[Exception | None], None]
"""Told once what became of a publication that was posted: None when it is durable, else why it most likely is not."""


class Message(Struct):
    key: str
    head: bytes
    body: bytes
    events: int
    stream: str
    """Which ordered log it stands in, unique for ever: e.g. ``<incarnation>/<partition>``."""
    position: tuple[int, ...]
    """Compares within a stream."""
    published_ms: int
    tries: int = 0
    token: Any = None
    """The backend's own handle; nobody else looks at it."""


class Tally(Struct):
    """What became of one message's events; their sum is the message's ``events`` (dead ones included)."""

    stored: int = 0
    duplicate: int = 0
    rejected: int = 0
    """Not stored on purpose (``saveEvents: false`` and its kin), counted under reason ``not_saved``."""
    dead: int = 0


class Done(Struct):
    """A message and the outcome that goes into the ledger in the same commit as the acknowledgement."""

    message: Message
    tally: Tally


class DeadLetter(Struct):
    """A message, or some of its events, that can't be processed; kept with the reason until replayed or dropped."""

    id: str
    key: str
    head: bytes
    body: bytes
    events: int
    """How many events died with it: the length of ``indices``, or all."""
    reason: str
    died_ms: int
    indices: list[int] | None = None
    """Which of the body's ``events[]``; None: all of them."""
    tries: int = 0


class PartitionBacklog(Struct):
    partition: str
    """As the protocol names it: ``persistent://tracardi/system/functions-partition-0``."""
    subscription: str
    messages: int
    events: int
    oldest_ms: int | None = None
    """Publish time of the oldest unacknowledged message, ms since the epoch; None when empty or unknown."""


class Totals(Struct):
    """The queue's part of the ledger, in events, since the installation, over all processes."""

    received: int = 0
    """Published, replays not counted."""
    replayed: int = 0
    """Published again from dead letters, or made pending again by ``seek``."""
    stored: int = 0
    duplicate: int = 0
    rejected: int = 0
    dead_lettered: int = 0
    """Ever written to the dead letters (replayed ones included)."""
    dead: int = 0
    """In the dead letters now."""
    pending: int = 0
    """Published and not yet acknowledged, counted from the log itself."""
    refused: Mapping[str, int] = {}
    """Refused at the door, by reason (``note_refused``)."""


class Consumer(Protocol):
    """One worker process's hold on the partitions that it is given. Not for use by two tasks at once."""

    async def receive(self, max_messages: int, max_bytes: int, timeout_s: float) -> list[Message]:
        """The next messages, of any leased partitions, in order within each; [] after ``timeout_s``.

        At least one message when there is any, however large. Takes, gives and renews leases as needed.
        """
        ...

    async def ack(self, done: Sequence[Done], dead: Sequence[DeadLetter] = ()) -> None:
        """Mark as processed and enter the outcomes in the ledger; with ``dead``, keep those letters first.

        One durable-enough step: after a crash either all of it happened or the messages come again. Messages may
        be acknowledged in any order; the ledger counts each once.
        """
        ...

    async def nack(self, messages: Sequence[Message], delay_s: float) -> None:
        """Put back, to come again after ``delay_s`` with ``tries`` + 1; later ones of the same keys are held back.

        The caller decides when ``tries`` is too many, and acks with a dead letter then.
        """
        ...

    async def release(self, messages: Sequence[Message]) -> None:
        """Put back at once, without counting a try: at shutdown, or when a batch was taken and not begun."""
        ...

    async def close(self) -> None:
        """Give all leases back, so that others need not wait for them to expire."""
        ...


class Queue(Protocol):
    """An open queue. Entered as an async context manager; leaving it flushes and closes."""

    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    async def publish(self, publication: Publication) -> None:
        """Durable when it returns. Raises ``Full`` or ``Unavailable``."""
        ...

    def post(self, publication: Publication, done: Posted) -> None:
        """``publish`` for a caller that has thousands on the way: no task waits, ``done`` is called on the loop.

        Never before ``post`` returns, and exactly once, unless ``post`` raises (``Full``, ``Unavailable``): then not
        at all. ``done`` must be quick and must not raise. Publications that are posted one after another by one caller
        keep their order within a key.
        """
        ...

    async def note_refused(self, counts: Mapping[str, int]) -> None:
        """Add events refused at the door to the ledger, by reason (bounded set of names). May lag a crash."""
        ...

    async def subscribe(self, subscription: str) -> Consumer:
        """Join the consumers of a subscription; partitions are shared out among its members."""
        ...

    async def backlog(self, *, rough: bool = False) -> list[PartitionBacklog]:
        """A row per partition and subscription, counting messages (never batches).

        ``rough``: without what a process that was killed just now had no time to say. Cheap enough for every replica to
        ask every few seconds.
        """
        ...

    async def totals(self, *, rough: bool = False) -> Totals:
        """``rough``: see ``backlog``."""
        ...

    async def seek(self, subscription: str, to_ms: int | None) -> int:
        """Deliver again everything retained since ``to_ms`` (None: from the start). Returns the events made pending."""
        ...

    async def dead_letters(self, limit: int = 100, after: str = "") -> list[DeadLetter]:
        """Oldest first, ids greater than ``after``; at most ``limit``.

        Sorted by id: whoever makes ids lets them begin with something that grows with time, and derives them from the
        message, so that a redelivered message that dies again replaces its letter.
        """
        ...

    async def take_dead_letter(self, id: str, *, replay: Publication | None) -> bool:
        """Remove one; with ``replay``, publish that first (a crash between the two repeats it: harmless, ids are
        derived from the same message id). False when there is none."""
        ...

    async def maintain(self) -> None:
        """Retention by age and size of what every subscription has acknowledged. Called every minute or so."""
        ...

    async def ping(self) -> None:
        """Raise ``Unavailable`` or ``Full`` if a publish would most likely fail now."""
        ...


async def wait_posted(post: Callable[[Publication, Posted], None], publication: Publication) -> None:
    """``publish`` made of ``post``, for backends whose one primitive that is."""
    future: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    def done(error: Exception | None) -> None:
        if future.done():
            return  # whoever waited was cancelled
        if error is None:
            future.set_result(None)
        else:
            future.set_exception(error)

    post(publication, done)
    await future
