"""A consumer: reads the log forward for all of its partitions at once, and keeps their windows.

One read serves every partition: batches are taken from the lowest offset that any window is to read next. A window
that has no room stays behind, alone, and is read for again when it has; one that is not at a batch's beginning does
not take part in it, so that nothing is passed over.

Within a partition the log's counts go on from batch to batch. Where they jump, messages could not be read any more
(``salvage``): they are entered as dead, with one letter that says how many, and the cursor goes on.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Callable, Sequence

import structlog

from tracardi_lite.backends.queue.sqlite.batch import Record
from tracardi_lite.backends.queue.sqlite.files import Files
from tracardi_lite.backends.queue.sqlite.leases import Held, Leases
from tracardi_lite.backends.queue.sqlite.reader import Batch
from tracardi_lite.backends.queue.window import Budget
from tracardi_lite.errors import LeaseLost
from tracardi_lite.ports.queue import DeadLetter, Done, Message

READ_BYTES = 4 << 20
"""How much is read ahead, decompressed."""
LOOK_S = 1.0
"""How long a waiting receive relies on being woken, by our own publications or by the watcher for others'."""
FETCH_MIN_S = 0.05
"""A receive without a timeout gives the disk this long."""

log = structlog.get_logger(__name__)


class _Reading:
    """A batch being delivered."""

    def __init__(self, batch: Batch) -> None:
        self.batch = batch
        self.at = 0
        self.takes_part: dict[int, Held] | None = None


class SqliteConsumer:
    def __init__(
        self,
        files: Files,
        incarnation: str,
        subscription: str,
        lease_ttl_s: float,
        closed: Callable[[SqliteConsumer], None],
    ) -> None:
        self._files = files
        self._incarnation = incarnation
        self._leases = Leases(files, subscription, lease_ttl_s, self.wake)
        self._on_close = closed
        self._woken = asyncio.Event()
        self._buffer: deque[_Reading] = deque()
        self._fetching: asyncio.Task[list[Batch]] | None = None
        self._closed = False

    async def join(self) -> None:
        await self._leases.join()

    def wake(self) -> None:
        """There may be something to receive."""
        self._woken.set()

    def nudge(self) -> None:
        """The members have changed."""
        self._leases.nudge()

    # --- the port ---
    async def receive(self, max_messages: int, max_bytes: int, timeout_s: float) -> list[Message]:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_s
        while True:
            if self._closed:
                raise LeaseLost("the consumer is closed")
            self._woken.clear()
            budget = Budget(max_messages, max_bytes)
            found = await self._again(budget)
            if not budget.spent and not found:
                found = await self._further(budget, max(deadline - loop.time(), 0.0))
            if found:
                return found
            if self._buffer:
                continue
            left = deadline - loop.time()
            if left <= 0:
                return []
            await self._pause(left)

    async def ack(self, done: Sequence[Done], dead: Sequence[DeadLetter] = ()) -> None:
        needed: set[Held] = set()
        for one in done:
            held = self._leases.holding(one.message.token)
            if held is None:
                await self.release([one.message for one in done])
                raise LeaseLost("a partition has moved to another consumer")
            needed.add(held)
        for one in done:
            self._leases.held[one.message.token[0]].window.done(one.message.position[0], one.tally)
        await self._leases.store(needed, dead)
        if any(held.is_yielding and not held.window.out for held in needed):
            self._leases.nudge()
        self._woken.set()

    async def nack(self, messages: Sequence[Message], delay_s: float) -> None:
        due_ms = self._files.clock.now_ms() + int(delay_s * 1000)
        tries = self._put_back(messages, self._files.clock.monotonic() + delay_s, tried=True)
        if tries:
            await self._leases.remember([(partition, offset, count, due_ms) for partition, offset, count in tries])

    async def release(self, messages: Sequence[Message]) -> None:
        tries = self._put_back(messages, 0.0, tried=False)
        counted = [(partition, offset, count, 0) for partition, offset, count in tries if self._is_counted(partition)]
        if counted:
            await self._leases.remember(counted)

    async def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._woken.set()
        self._on_close(self)
        if self._fetching is not None:
            await asyncio.gather(self._fetching, return_exceptions=True)
            self._fetching = None
        self._buffer.clear()
        await self._leases.leave()

    # --- waiting and reading ---
    async def _pause(self, left: float) -> None:
        """Until something happens, or a message that was put back is due."""
        due = min((held.window.next_due for held in self._leases.held.values()), default=float("inf"))
        wait = min(left, LOOK_S, max(due - self._files.clock.monotonic(), 0.001))
        try:
            async with asyncio.timeout(wait):
                await self._woken.wait()
        except TimeoutError:
            pass

    async def _again(self, budget: Budget) -> list[Message]:
        """Messages that were put back and whose time has come."""
        now = self._files.clock.monotonic()
        eligible: dict[int, Held] = {}
        for held in self._leases.held.values():
            if not held.is_yielding and len(eligible) < budget.messages:
                for offset in held.window.eligible(now, budget.messages - len(eligible)):
                    eligible[offset] = held
        if not eligible:
            return []
        records = await self._files.run(lambda: self._files.reader.records(eligible, READ_BYTES))
        found: list[Message] = []
        for offset, record in records.items():
            held = eligible[offset]
            if self._leases.held.get(held.partition) is not held or not held.window.waits(offset):
                continue
            if self._waits_its_turn(held):
                continue
            if record is None:
                self._mourn(held, offset, 1, held.window.lose_waiting(offset))
            elif not budget.takes(record.size):
                break
            else:
                found.append(self._message(held, record, held.window.redeliver(offset)))
        return await self._counted(found)

    async def _further(self, budget: Budget, wait_s: float) -> list[Message]:
        """Messages not delivered before."""
        if not self._buffer:
            await self._fetch(wait_s)
        found: list[Message] = []
        while self._buffer and not budget.spent:
            if not self._deliver(self._buffer[0], budget, found):
                break
            self._buffer.popleft()
        if found and not self._buffer:
            self._read_ahead()
        return await self._counted(found)

    async def _fetch(self, wait_s: float) -> None:
        """Fill the buffer. The task outlives a cancelled or impatient caller, and the next one gets its result."""
        self._read_ahead()
        if self._fetching is None:
            return
        await asyncio.wait([self._fetching], timeout=max(wait_s, FETCH_MIN_S))
        if self._fetching is not None and self._fetching.done():
            fetched, self._fetching = self._fetching, None
            self._buffer.extend(_Reading(batch) for batch in fetched.result())

    def _read_ahead(self) -> None:
        if self._fetching is None:
            wanted = [held.window.next for held in self._leases.held.values() if not self._stops(held)]
            if wanted:
                lowest = min(wanted)
                self._fetching = asyncio.create_task(
                    self._files.run(lambda: self._files.reader.read(lowest, READ_BYTES))
                )

    def _deliver(self, reading: _Reading, budget: Budget, found: list[Message]) -> bool:
        """Go on in a batch; True when it is through."""
        if reading.takes_part is None:
            reading.takes_part = self._begin(reading.batch)
        takes_part = reading.takes_part
        records = reading.batch.records
        while reading.at < len(records):
            record = records[reading.at]
            held = takes_part.get(record.partition)
            if held is not None:
                if self._stops(held):
                    del takes_part[record.partition]
                elif record.offset >= held.window.next:
                    if not budget.takes(record.size):
                        return False
                    self._offer(held, record, found)
            reading.at += 1
            if budget.spent:
                break
        if reading.at < len(records):
            return False
        for held in takes_part.values():
            held.window.skip_to(reading.batch.end)
        return True

    def _begin(self, batch: Batch) -> dict[int, Held]:
        """Who takes part: the windows that have read everything before it."""
        takes_part = {
            partition: held
            for partition, held in self._leases.held.items()
            if batch.after <= held.window.next < batch.end
        }
        ahead: Counter[int] = Counter()
        ahead_events: Counter[int] = Counter()
        for record in batch.records:
            held = takes_part.get(record.partition)
            if held is not None and record.offset >= held.window.next:
                ahead[record.partition] += 1
                ahead_events[record.partition] += record.events
        for partition, held in takes_part.items():
            messages = batch.counts.messages[partition] - ahead[partition]
            events = batch.counts.events[partition] - ahead_events[partition]
            if messages > held.messages:
                offset = held.window.next
                held.window.lose(offset, messages - held.messages, events - held.events)
                self._mourn(held, offset, messages - held.messages, events - held.events)
                held.messages, held.events = messages, events
        return takes_part

    def _stops(self, held: Held) -> bool:
        if self._leases.held.get(held.partition) is not held or held.is_yielding or not held.window.has_room:
            return True
        return self._waits_its_turn(held)

    def _waits_its_turn(self, held: Held) -> bool:
        """Of all isolated partitions one message is out at a time, or the wrong one would get the blame."""
        return held.is_isolated and any(other.is_isolated and other.window.out for other in self._leases.held.values())

    def _offer(self, held: Held, record: Record, found: list[Message]) -> None:
        held.messages += 1
        held.events += record.events
        tries, due = held.tries.pop(record.offset, (0, 0.0)) if held.tries else (0, 0.0)
        if held.window.offer(record.offset, record.key, record.events, record.size, tries, due):
            found.append(self._message(held, record, 0))

    def _message(self, held: Held, record: Record, tries: int) -> Message:
        return Message(
            key=record.key,
            head=record.head,
            body=record.body,
            events=record.events,
            stream=f"{self._incarnation}/{held.partition}",
            position=(record.offset,),
            published_ms=record.published_ms,
            tries=tries,
            token=(held.partition, held.fence),
        )

    # --- trouble ---
    async def _counted(self, found: list[Message]) -> list[Message]:
        """Before a message of an isolated partition goes out, its try is counted: it may be its worker's last act."""
        risky = [
            (message.token[0], message.position[0], message.tries + 1, 0)
            for message in found
            if self._is_counted(message.token[0])
        ]
        if risky:
            try:
                await self._leases.remember(risky)
            except BaseException:
                self._put_back(found, 0.0, tried=False)
                raise
        return found

    def _is_counted(self, partition: int) -> bool:
        held = self._leases.held.get(partition)
        return held is not None and held.is_isolated

    def _put_back(self, messages: Sequence[Message], due: float, *, tried: bool) -> list[tuple[int, int, int]]:
        """(partition, offset, tries) of those that this consumer still had; the others come again elsewhere."""
        back = []
        for message in messages:
            held = self._leases.holding(message.token)
            if held is not None:
                tries = held.window.put_back(message.position[0], due, tried=tried)
                if tries is not None:
                    back.append((held.partition, message.position[0], tries))
        self._woken.set()
        return back

    def _mourn(self, held: Held, offset: int, messages: int, events: int) -> None:
        """Leave a letter for messages that can't be read any more; it is stored before the cursor passes them."""
        log.error("queue_messages_lost", partition=held.partition, offset=offset, messages=messages, events=events)
        now_ms = self._files.clock.now_ms()
        self._leases.keep(
            DeadLetter(
                id=f"{now_ms:015}-lost-{held.partition}-{offset}",
                key="",
                head=b"",
                body=b"",
                events=events,
                reason=f"{messages} messages were in a damaged part of the queue",
                died_ms=now_ms,
            )
        )
