"""The queue in memory: a real one for one process, for trials and tests; what it holds dies with the process.

``publish`` is "durable" as soon as it is appended. Everything happens on the event loop, so that each call is atomic
between its awaits. Bounds: ``queue_bytes_max`` or 1 GiB, whichever is less; retention likewise, 256 MiB.

Consumers are objects of this process and can't die alone, so leases have no time limit here: a partition moves when
its consumer closes, or gives up what is more than its share once nothing of it is being worked on.
"""

from __future__ import annotations

import asyncio
import uuid
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from types import TracebackType
from typing import Self

import msgspec
from msgspec import Struct, field

from tracardi_lite.backends.queue.routing import fair_shares, partition_name, partition_of
from tracardi_lite.backends.queue.window import Budget, Window
from tracardi_lite.clock import Clock, SystemClock
from tracardi_lite.errors import Full, LeaseLost, Unavailable
from tracardi_lite.ports.queue import (
    SUBSCRIPTION,
    DeadLetter,
    Done,
    Message,
    PartitionBacklog,
    Posted,
    Publication,
    Totals,
    wait_posted,
)
from tracardi_lite.settings import Settings

BYTES_MAX = 1 << 30
RETENTION_BYTES_MAX = 256 << 20
REASONS_MAX = 64
"""Names in the count of refused events; further ones are counted as ``other``."""
DUE_POLL_S = 0.05
"""How often a waiting receive looks whether a delay is over."""


class _Record(Struct):
    key: str
    head: bytes
    body: bytes
    events: int
    published_ms: int
    ends_at: int
    """Events of the partition up to this record, itself included, since the beginning."""

    @property
    def size(self) -> int:
        return len(self.head) + len(self.body)


class _Partition(Struct):
    base: int = 0
    """Offset of the first record that is kept."""
    records: deque[_Record] = field(default_factory=deque)
    events: int = 0
    """Ever published."""

    @property
    def end(self) -> int:
        return self.base + len(self.records)

    def events_before(self, offset: int) -> int:
        if offset >= self.end:
            return self.events
        record = self.records[offset - self.base]
        return record.ends_at - record.events


class _Subscription(Struct):
    cursors: list[int]
    fences: list[int]
    owners: dict[int, MemoryConsumer] = field(default_factory=dict)
    members: list[MemoryConsumer] = field(default_factory=list)
    tries: dict[tuple[int, int], tuple[int, float]] = field(default_factory=dict)
    """(partition, offset) of messages that were put back → tries, when due."""


class MemoryLog:
    """The state, apart from the open queue, so that a queue can be closed and opened again on it."""

    def __init__(self, partitions: int) -> None:
        self.incarnation = uuid.uuid4().hex
        self.partitions = [_Partition() for _ in range(partitions)]
        self.subscriptions: dict[str, _Subscription] = {}
        self.letters: dict[str, DeadLetter] = {}
        self.ledger: Counter[str] = Counter()
        self.refused: Counter[str] = Counter()
        self.bytes = 0
        self.subscription(SUBSCRIPTION)

    def subscription(self, name: str) -> _Subscription:
        """A new one starts with everything that is still kept."""
        found = self.subscriptions.get(name)
        if found is None:
            cursors = [partition.base for partition in self.partitions]
            found = self.subscriptions[name] = _Subscription(cursors=cursors, fences=[0] * len(cursors))
        return found


def open_queue(
    url: str, settings: Settings, *, clock: Clock | None = None, log: MemoryLog | None = None
) -> MemoryQueue:
    """``memory:``. A new queue each time, unless ``log`` hands one on."""
    return MemoryQueue(log or MemoryLog(settings.queue_partitions), settings, clock or SystemClock())


class MemoryQueue:
    def __init__(self, log: MemoryLog, settings: Settings, clock: Clock) -> None:
        self._log = log
        self._settings = settings
        self._clock = clock
        self._bytes_max = min(settings.queue_bytes_max, BYTES_MAX)
        self._open = False
        self._consumers: set[MemoryConsumer] = set()

    async def __aenter__(self) -> Self:
        self._open = True
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for consumer in list(self._consumers):
            await consumer.close()
        self._open = False

    async def publish(self, publication: Publication) -> None:
        await wait_posted(self.post, publication)

    def post(self, publication: Publication, done: Posted) -> None:
        self._check_room()
        self._append(publication)
        asyncio.get_running_loop().call_soon(done, None)

    def _append(self, publication: Publication) -> None:
        log = self._log
        partition = log.partitions[partition_of(publication.key, len(log.partitions))]
        partition.events += publication.events
        record = _Record(
            publication.key,
            publication.head,
            publication.body,
            publication.events,
            self._clock.now_ms(),
            partition.events,
        )
        partition.records.append(record)
        log.bytes += record.size
        log.ledger["replayed" if publication.replay else "received"] += publication.events
        for subscription in log.subscriptions.values():
            for member in subscription.members:
                member.wake()

    async def note_refused(self, counts: Mapping[str, int]) -> None:
        for reason, events in counts.items():
            known = reason in self._log.refused or len(self._log.refused) < REASONS_MAX
            self._log.refused[reason if known else "other"] += events

    async def subscribe(self, subscription: str) -> MemoryConsumer:
        self._check_open()
        consumer = MemoryConsumer(self._log, self._log.subscription(subscription), self._clock, self._consumers)
        self._consumers.add(consumer)
        return consumer

    async def backlog(self, *, rough: bool = False) -> list[PartitionBacklog]:
        rows = []
        for name, subscription in self._log.subscriptions.items():
            for number, partition in enumerate(self._log.partitions):
                cursor = subscription.cursors[number]
                waits = cursor < partition.end
                rows.append(
                    PartitionBacklog(
                        partition_name(number),
                        name,
                        partition.end - cursor,
                        partition.events - partition.events_before(cursor),
                        partition.records[cursor - partition.base].published_ms if waits else None,
                    )
                )
        return rows

    async def totals(self, *, rough: bool = False) -> Totals:
        log = self._log
        cursors = log.subscription(SUBSCRIPTION).cursors
        return Totals(
            **log.ledger,
            dead=sum(letter.events for letter in log.letters.values()),
            pending=sum(
                partition.events - partition.events_before(cursor)
                for partition, cursor in zip(log.partitions, cursors, strict=True)
            ),
            refused=dict(log.refused),
        )

    async def seek(self, subscription: str, to_ms: int | None) -> int:
        self._check_open()
        state = self._log.subscription(subscription)
        again = 0
        for number, partition in enumerate(self._log.partitions):
            cursor = state.cursors[number]
            target = partition.base
            for record in islice(partition.records, cursor - partition.base):
                if to_ms is None or record.published_ms >= to_ms:
                    break
                target += 1
            if target == cursor:
                continue
            again += partition.events_before(cursor) - partition.events_before(target)
            state.cursors[number] = target
            state.fences[number] += 1  # whoever holds it starts anew from the cursor
            state.owners.pop(number, None)
        if subscription == SUBSCRIPTION:
            self._log.ledger["replayed"] += again
        for member in state.members:
            member.wake()
        return again

    async def dead_letters(self, limit: int = 100, after: str = "") -> list[DeadLetter]:
        ids = sorted(id for id in self._log.letters if id > after)[:limit]
        return [self._log.letters[id] for id in ids]

    async def take_dead_letter(self, id: str, *, replay: Publication | None) -> bool:
        if id not in self._log.letters:
            return False
        if replay is not None:
            await self.publish(msgspec.structs.replace(replay, replay=True))
        letter = self._log.letters.pop(id)
        self._log.bytes -= len(letter.head) + len(letter.body)
        return True

    async def maintain(self) -> None:
        self._retain()

    def _retain(self) -> None:
        """Drop what all subscriptions have passed and what is too old or too much to keep."""
        log = self._log
        bytes_kept = min(self._settings.queue_retention_bytes, RETENTION_BYTES_MAX)
        horizon_ms = self._clock.now_ms() - self._settings.queue_retention * 1000
        passed = [min(s.cursors[n] for s in log.subscriptions.values()) for n in range(len(log.partitions))]
        kept = sum(
            record.size
            for partition, cursor in zip(log.partitions, passed, strict=True)
            for record in islice(partition.records, cursor - partition.base)
        )
        for partition, cursor in zip(log.partitions, passed, strict=True):
            while partition.base < cursor:
                oldest = partition.records[0]
                if oldest.published_ms > horizon_ms and kept <= bytes_kept:
                    break
                partition.records.popleft()
                partition.base += 1
                kept -= oldest.size
                log.bytes -= oldest.size

    async def ping(self) -> None:
        self._check_room()

    def _check_room(self) -> None:
        self._check_open()
        if self._log.bytes >= self._bytes_max:
            self._retain()
            if self._log.bytes >= self._bytes_max:
                raise Full("queue", "holds as much as it may", retry_after_s=5.0)

    def _check_open(self) -> None:
        if not self._open:
            raise Unavailable("queue", "is closed")


class MemoryConsumer:
    def __init__(
        self, log: MemoryLog, subscription: _Subscription, clock: Clock, register: set[MemoryConsumer]
    ) -> None:
        self._log = log
        self._subscription = subscription
        self._clock = clock
        self._register = register
        self._windows: dict[int, tuple[int, Window]] = {}
        self._woken = asyncio.Event()
        self._closed = False
        self._turn = 0
        subscription.members.append(self)
        for member in subscription.members:
            member.wake()

    def wake(self) -> None:
        self._woken.set()

    async def receive(self, max_messages: int, max_bytes: int, timeout_s: float) -> list[Message]:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_s
        while True:
            if self._closed:
                raise LeaseLost("the consumer is closed")
            self._woken.clear()
            self._share()
            found = self._collect(max_messages, max_bytes)
            left = deadline - loop.time()
            if found or left <= 0:
                return found
            due = any(window.next_due != float("inf") for _, window in self._windows.values())
            try:
                async with asyncio.timeout(min(left, DUE_POLL_S) if due else left):
                    await self._woken.wait()
            except TimeoutError:
                pass

    async def ack(self, done: Sequence[Done], dead: Sequence[DeadLetter] = ()) -> None:
        settled = [(self._window(one.message), one) for one in done]
        if any(window is None for window, _ in settled):
            await self.release([one.message for window, one in settled if window is not None])
            raise LeaseLost("a partition has moved to another consumer")
        for letter in dead:
            earlier = self._log.letters.get(letter.id)
            if earlier is not None:
                self._log.bytes -= len(earlier.head) + len(earlier.body)
            self._log.letters[letter.id] = letter
            self._log.bytes += len(letter.head) + len(letter.body)
        for window, one in settled:
            assert window is not None
            window.done(one.message.position[0], one.tally)
        self._save()
        self._share()

    async def nack(self, messages: Sequence[Message], delay_s: float) -> None:
        self._put_back(messages, self._clock.monotonic() + delay_s, tried=True)

    async def release(self, messages: Sequence[Message]) -> None:
        self._put_back(messages, 0.0, tried=False)

    async def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._register.discard(self)
        state = self._subscription
        state.members.remove(self)
        for number in [number for number, owner in state.owners.items() if owner is self]:
            self._give_up(number)
        self._windows.clear()
        self._woken.set()
        for member in state.members:
            member.wake()

    def _share(self) -> None:
        """Give up what is more than this member's share and not being worked on; take what is free of it."""
        state = self._subscription
        for number, (fence, _) in list(self._windows.items()):
            if state.fences[number] != fence or state.owners.get(number) is not self:
                del self._windows[number]
        shares = fair_shares(len(self._log.partitions), len(state.members))
        share = shares[state.members.index(self)]
        for number in self._excess(share):
            if not self._windows[number][1].out:
                del self._windows[number]
                self._give_up(number)
                for member in state.members:
                    if member is not self:
                        member.wake()
        for number in range(len(self._log.partitions)):
            if len(self._windows) >= share:
                break
            if number not in state.owners:
                state.owners[number] = self
                state.fences[number] += 1
                self._windows[number] = (state.fences[number], Window(state.cursors[number]))

    def _excess(self, share: int) -> list[int]:
        return sorted(self._windows)[share:]

    def _give_up(self, number: int) -> None:
        self._subscription.fences[number] += 1
        self._subscription.owners.pop(number, None)

    def _collect(self, max_messages: int, max_bytes: int) -> list[Message]:
        state = self._subscription
        share = fair_shares(len(self._log.partitions), len(state.members))[state.members.index(self)]
        yielding = set(self._excess(share))
        numbers = [number for number in self._windows if number not in yielding]
        budget = Budget(max_messages, max_bytes)
        found: list[Message] = []
        for step in range(len(numbers)):
            found.extend(self._next_of(numbers[(self._turn + step) % len(numbers)], budget))
            if budget.spent:
                break
        self._turn += 1
        self._save()
        return found

    def _next_of(self, number: int, budget: Budget) -> Iterator[Message]:
        fence, window = self._windows[number]
        partition = self._log.partitions[number]
        for offset in window.eligible(self._clock.monotonic(), budget.messages):
            if not budget.takes(partition.records[offset - partition.base].size):
                return
            yield self._message(number, fence, offset, window.redeliver(offset))
        while not budget.spent and window.has_room and window.next < partition.end:
            offset = window.next
            record = partition.records[offset - partition.base]
            if not budget.takes(record.size):
                return
            tries, due = self._subscription.tries.get((number, offset), (0, 0.0))
            if window.offer(offset, record.key, record.events, record.size, tries, due):
                yield self._message(number, fence, offset, 0)

    def _message(self, number: int, fence: int, offset: int, tries: int) -> Message:
        partition = self._log.partitions[number]
        record = partition.records[offset - partition.base]
        return Message(
            key=record.key,
            head=record.head,
            body=record.body,
            events=record.events,
            stream=f"{self._log.incarnation}/{number}",
            position=(offset,),
            published_ms=record.published_ms,
            tries=tries,
            token=(number, fence),
        )

    def _window(self, message: Message) -> Window | None:
        """The window that delivered it, if this consumer still holds that very lease."""
        number, fence = message.token
        held = self._windows.get(number)
        if held is None or held[0] != fence or self._subscription.fences[number] != fence:
            return None
        return held[1]

    def _put_back(self, messages: Sequence[Message], due: float, *, tried: bool) -> None:
        """What was lost already comes again elsewhere, so it is passed over here."""
        for message in messages:
            window = self._window(message)
            tries = None if window is None else window.put_back(message.position[0], due, tried=tried)
            if tries and tried:
                self._subscription.tries[message.token[0], message.position[0]] = (tries, due)
        self.wake()

    def _save(self) -> None:
        """Store the cursors that moved, with the outcomes of what they passed, in one step."""
        state = self._subscription
        for number, (_, window) in self._windows.items():
            if not window.moved:
                continue
            passed = window.take()
            if state.tries:
                for offset in range(state.cursors[number], passed.cursor):
                    state.tries.pop((number, offset), None)
            state.cursors[number] = passed.cursor
            if state is self._log.subscriptions.get(SUBSCRIPTION):
                ledger = self._log.ledger
                ledger["stored"] += passed.stored
                ledger["duplicate"] += passed.duplicate
                ledger["rejected"] += passed.rejected
                ledger["dead_lettered"] += passed.dead
