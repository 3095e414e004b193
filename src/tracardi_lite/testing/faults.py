"""Faults at the ports, on command: slow, failing, partly refusing, delivering twice, gone in the middle of a flush.

``Faults`` is a list of things that will go wrong; ``FaultyStore`` and ``FaultyQueue`` stand around a real backend and
let them. Shipped, so that a backend's author, or an operator with a doubt, can see how the program takes it.
"""

from __future__ import annotations

import asyncio
import copy
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from functools import partial
from types import TracebackType
from typing import Literal, Self, TypeVar

from msgspec import Struct

from tracardi_lite.clock import Clock, SystemClock
from tracardi_lite.ports.queue import (
    Consumer,
    DeadLetter,
    Done,
    Message,
    PartitionBacklog,
    Posted,
    Publication,
    Queue,
    Totals,
)
from tracardi_lite.ports.store import (
    Bar,
    Claim,
    Entry,
    EventWrite,
    Kind,
    Page,
    PartitionInfo,
    Query,
    Record,
    RecordWrite,
    Store,
    Verdict,
)
from tracardi_lite.query import Where

T = TypeVar("T")
Write = EventWrite | RecordWrite
WriteT = TypeVar("WriteT", EventWrite, RecordWrite)


class Crash(BaseException):
    """The process dies here: no handler of the program may stop it."""


class Fault(Struct):
    """Something that goes wrong in calls of one operation."""

    call: str
    """The port's method: ``create_events``, ``ack``, …; ``*`` for any."""
    error: BaseException | None = None
    when: Literal["before", "after"] = "before"
    """``after``: the work is done, and the caller never hears of it."""
    seconds: float = 0.0
    """How long the call takes, on the clock."""
    skip: int = 0
    """How many calls go well first."""
    times: int = 1
    """How many calls it spoils then."""


class Faults:
    """What goes wrong. Empty, everything goes through."""

    def __init__(self, *faults: Fault, clock: Clock | None = None) -> None:
        self.pending: list[Fault] = list(faults)
        self.calls: Counter[str] = Counter()
        self.refuse: Callable[[Write], Verdict | None] = lambda write: None
        """A verdict that the item gets without the store hearing of it; None: the store decides."""
        self.repeat: Callable[[Message], bool] = lambda message: False
        """Which messages are delivered a second time, right after the first."""
        self._clock = clock or SystemClock()

    def add(self, *faults: Fault) -> None:
        self.pending.extend(faults)

    async def around(self, call: str, act: Callable[[], Awaitable[T]]) -> T:
        """Make a call, with the first pending fault for it."""
        self.calls[call] += 1
        fault = self._next(call)
        if fault is None:
            return await act()
        if fault.seconds:
            await self._clock.sleep(fault.seconds)
        if fault.error is not None and fault.when == "before":
            raise fault.error
        result = await act()
        if fault.error is not None:
            raise fault.error
        return result

    def _next(self, call: str) -> Fault | None:
        for fault in self.pending:
            if fault.call not in (call, "*"):
                continue
            if fault.skip:
                fault.skip -= 1
                continue
            fault.times -= 1
            if fault.times <= 0:
                self.pending.remove(fault)
            return fault
        return None


class FaultyStore:
    """A store around another; entering and leaving are the caller's business with the inner one."""

    def __init__(self, store: Store, faults: Faults) -> None:
        self._store = store
        self._faults = faults

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    async def create_events(self, events: Sequence[EventWrite]) -> list[Verdict]:
        return await self._faults.around("create_events", lambda: self._judge(self._store.create_events, events))

    async def put(self, writes: Sequence[RecordWrite]) -> list[Verdict]:
        return await self._faults.around("put", lambda: self._judge(self._store.put, writes))

    async def _judge(
        self, act: Callable[[Sequence[WriteT]], Awaitable[list[Verdict]]], writes: Sequence[WriteT]
    ) -> list[Verdict]:
        """Refuse some items; the store's verdicts for the others, in the items' order."""
        refused = [self._faults.refuse(write) for write in writes]
        passed = [write for write, verdict in zip(writes, refused, strict=True) if verdict is None]
        verdicts = iter(await act(passed) if passed else [])
        return [next(verdicts) if verdict is None else verdict for verdict in refused]

    async def get(self, kind: Kind, keys: Sequence[tuple[str, str]]) -> list[Record | None]:
        return await self._faults.around("get", lambda: self._store.get(kind, keys))

    async def lookup(self, keys: Sequence[str]) -> list[Entry | None]:
        return await self._faults.around("lookup", lambda: self._store.lookup(keys))

    async def claim(self, claims: Sequence[Claim]) -> list[Entry]:
        return await self._faults.around("claim", lambda: self._store.claim(claims))

    async def repoint(self, key: str, expected: Entry, entry: Entry | None) -> bool:
        return await self._faults.around("repoint", lambda: self._store.repoint(key, expected, entry))

    async def find(self, kind: Kind, id: str) -> Record | None:
        return await self._faults.around("find", lambda: self._store.find(kind, id))

    async def delete(self, kind: Kind, id: str) -> bool:
        return await self._faults.around("delete", lambda: self._store.delete(kind, id))

    async def search(self, kind: Kind, query: Query) -> Page:
        return await self._faults.around("search", lambda: self._store.search(kind, query))

    async def count(self, kind: Kind, where: Where | None = None) -> int:
        return await self._faults.around("count", lambda: self._store.count(kind, where))

    async def histogram(
        self, kind: Kind, query: Query, step_ms: int, group_by: str | None = None, top: int = 5
    ) -> list[Bar]:
        return await self._faults.around(
            "histogram", lambda: self._store.histogram(kind, query, step_ms, group_by, top)
        )

    async def refresh(self) -> None:
        await self._faults.around("refresh", self._store.refresh)

    async def partitions(self) -> list[PartitionInfo]:
        return await self._faults.around("partitions", self._store.partitions)

    async def create_partition(self, kind: Kind, name: str) -> bool:
        return await self._faults.around("create_partition", lambda: self._store.create_partition(kind, name))

    async def drop_partition(self, kind: Kind, name: str) -> bool:
        return await self._faults.around("drop_partition", lambda: self._store.drop_partition(kind, name))

    async def ping(self) -> None:
        await self._faults.around("ping", self._store.ping)


class FaultyConsumer:
    def __init__(self, consumer: Consumer, faults: Faults) -> None:
        self._consumer = consumer
        self._faults = faults

    async def receive(self, max_messages: int, max_bytes: int, timeout_s: float) -> list[Message]:
        received = await self._faults.around(
            "receive", lambda: self._consumer.receive(max_messages, max_bytes, timeout_s)
        )
        delivered = []
        for message in received:
            delivered.append(message)
            if self._faults.repeat(message):
                delivered.append(copy.copy(message))
        return delivered

    async def ack(self, done: Sequence[Done], dead: Sequence[DeadLetter] = ()) -> None:
        await self._faults.around("ack", lambda: self._consumer.ack(done, dead))

    async def nack(self, messages: Sequence[Message], delay_s: float) -> None:
        await self._faults.around("nack", lambda: self._consumer.nack(messages, delay_s))

    async def release(self, messages: Sequence[Message]) -> None:
        await self._faults.around("release", lambda: self._consumer.release(messages))

    async def close(self) -> None:
        await self._faults.around("close", self._consumer.close)


class FaultyQueue:
    """A queue around another; its consumers are faulty too."""

    def __init__(self, queue: Queue, faults: Faults) -> None:
        self._queue = queue
        self._faults = faults
        self._posting: set[asyncio.Task[None]] = set()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        return None

    async def publish(self, publication: Publication) -> None:
        await self._faults.around("publish", lambda: self._queue.publish(publication))

    def post(self, publication: Publication, done: Posted) -> None:
        """As faulty as ``publish``: what happens to one happens to the other."""
        task = asyncio.get_running_loop().create_task(self.publish(publication))
        self._posting.add(task)
        task.add_done_callback(partial(self._posted, done))

    def _posted(self, done: Posted, task: asyncio.Task[None]) -> None:
        self._posting.discard(task)
        if not task.cancelled():
            error = task.exception()
            assert error is None or isinstance(error, Exception), error
            done(error)

    async def note_refused(self, counts: Mapping[str, int]) -> None:
        await self._faults.around("note_refused", lambda: self._queue.note_refused(counts))

    async def subscribe(self, subscription: str) -> FaultyConsumer:
        consumer = await self._faults.around("subscribe", lambda: self._queue.subscribe(subscription))
        return FaultyConsumer(consumer, self._faults)

    async def backlog(self, *, rough: bool = False) -> list[PartitionBacklog]:
        return await self._faults.around("backlog", lambda: self._queue.backlog(rough=rough))

    async def totals(self, *, rough: bool = False) -> Totals:
        return await self._faults.around("totals", lambda: self._queue.totals(rough=rough))

    async def seek(self, subscription: str, to_ms: int | None) -> int:
        return await self._faults.around("seek", lambda: self._queue.seek(subscription, to_ms))

    async def dead_letters(self, limit: int = 100, after: str = "") -> list[DeadLetter]:
        return await self._faults.around("dead_letters", lambda: self._queue.dead_letters(limit, after))

    async def take_dead_letter(self, id: str, *, replay: Publication | None) -> bool:
        return await self._faults.around("take_dead_letter", lambda: self._queue.take_dead_letter(id, replay=replay))

    async def maintain(self) -> None:
        await self._faults.around("maintain", self._queue.maintain)

    async def ping(self) -> None:
        await self._faults.around("ping", self._queue.ping)
