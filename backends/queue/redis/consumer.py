"""A consumer: leases of partitions, a window for each, and records read ahead.

Leases last ``lease_ttl`` by the server's clock and are kept by ``receive`` and ``ack``; the fence of a lease grows
with every change of hands, and every commit checks it. What was read ahead and not delivered is bounded by
``READ_BYTES`` per partition; a message that was put back is read again when it is due.
"""

from __future__ import annotations

import asyncio
import uuid
from collections import deque
from collections.abc import Callable, Sequence

import msgspec
import structlog
from msgspec import Struct, field

from tracardi_lite.backends.queue.redis import scripts
from tracardi_lite.backends.queue.redis.record import Record, entry_id, parse_all
from tracardi_lite.backends.queue.redis.server import Argument, Server, mapped
from tracardi_lite.backends.queue.window import Budget, Passed, Window
from tracardi_lite.clock import Clock
from tracardi_lite.errors import LeaseLost, TryLater
from tracardi_lite.ports.queue import SUBSCRIPTION, DeadLetter, Done, Message

log = structlog.get_logger(__name__)

READ_BYTES = 4 << 20
READ_MIN, READ_MAX = 8, 500
"""Records asked for at once; in between, as many as ``READ_BYTES`` hold of those that came last."""
DUE_POLL_S = 0.05
TEND_SHARE = 3
"""Leases are renewed after this part of their time."""
WATCH_S = 1.0
"""How long a wait for news lasts at the server."""
IMPATIENCE_S = 0.25

_letter = msgspec.msgpack.Encoder()


class _Held(Struct):
    number: int
    fence: int
    window: Window
    ahead: deque[Record] = field(default_factory=deque)
    tries: dict[int, int] = field(default_factory=dict)
    """Of messages that were put back before the lease was taken."""
    size: int = 1024
    """About what a record takes."""


class RedisConsumer:
    def __init__(
        self,
        server: Server,
        incarnation: str,
        partitions: int,
        subscription: str,
        ttl_s: float,
        clock: Clock,
        on_close: Callable[[RedisConsumer], None],
    ) -> None:
        self._server = server
        self._incarnation = incarnation
        self._partitions = partitions
        self.subscription = subscription
        self._ttl_s = ttl_s
        self._clock = clock
        self._on_close = on_close
        self._me = uuid.uuid4().hex
        self._held: dict[int, _Held] = {}
        self._share = 0
        self._tended = float("-inf")
        self._nudged = True
        self._woken = asyncio.Event()
        self._hungry = asyncio.Event()
        self._watcher: asyncio.Task[None] | None = None
        self._turn = 0
        self._closed = False

    def wake(self) -> None:
        self._woken.set()

    def nudge(self) -> None:
        """The members of this process have changed: look at the leases soon."""
        self._nudged = True
        self._woken.set()

    async def join(self) -> None:
        await self._server.run(scripts.SUBSCRIBE, self.subscription, self._partitions)
        await self._tend()
        self._watcher = asyncio.create_task(self._watch())

    # --- the port ---
    async def receive(self, max_messages: int, max_bytes: int, timeout_s: float) -> list[Message]:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_s
        while True:
            if self._closed:
                raise LeaseLost("the consumer is closed")
            self._woken.clear()
            await self._tend_if_due()
            found = await self._collect(Budget(max_messages, max_bytes)) if max_messages > 0 else []
            left = deadline - loop.time()
            if found or left <= 0:
                return found
            self._hungry.set()
            due = any(held.window.next_due != float("inf") for held in self._held.values())
            wait_s = min(left, DUE_POLL_S if due else self._ttl_s / TEND_SHARE, IMPATIENCE_S)
            try:
                async with asyncio.timeout(wait_s):
                    await self._woken.wait()
            except TimeoutError:
                pass

    async def ack(self, done: Sequence[Done], dead: Sequence[DeadLetter] = ()) -> None:
        settled = [(self._holding(one.message), one) for one in done]
        if any(held is None for held, _ in settled):
            await self.release([one.message for held, one in settled if held is not None])
            raise LeaseLost("a partition has moved to another consumer")
        needed = {held.number for held, _ in settled if held is not None}
        for held, one in settled:
            assert held is not None
            held.window.done(one.message.position[0], one.tally)
        await self._commit(needed, dead)
        await self._tend_if_due()

    async def nack(self, messages: Sequence[Message], delay_s: float) -> None:
        due = self._clock.monotonic() + delay_s
        tried: dict[int, dict[str, int]] = {}
        for message in messages:
            held = self._holding(message)
            tries = None if held is None else held.window.put_back(message.position[0], due, tried=True)
            if held is not None and tries:
                tried.setdefault(held.number, {})[str(message.position[0])] = tries
        self.wake()
        try:
            with mapped():
                for number, counts in tried.items():
                    key = self._server.key("tries", self.subscription, number)
                    await self._server.redis.hset(key, mapping=counts)
        except TryLater as error:
            log.warning("tries_not_kept", messages=len(messages), reason=error.reason)

    async def release(self, messages: Sequence[Message]) -> None:
        for message in messages:
            held = self._holding(message)
            if held is not None:
                held.window.put_back(message.position[0], 0.0, tried=False)
        self.wake()

    async def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._on_close(self)
        self._woken.set()
        self._hungry.set()
        if self._watcher is not None:
            self._watcher.cancel()
            await asyncio.gather(self._watcher, return_exceptions=True)
        self._held.clear()
        try:
            await self._server.run(scripts.LEAVE, self.subscription, self._me, self._partitions)
        except TryLater as error:
            log.info("leases_run_out", reason=error.reason)

    # --- leases ---
    async def _tend_if_due(self) -> None:
        excess = len(self._held) > self._share and any(not held.window.out for held in self._held.values())
        if self._nudged or excess or self._clock_s() - self._tended > self._ttl_s / TEND_SHARE:
            await self._tend()

    async def _tend(self) -> None:
        """Renew what is held, give back what is more than the share and idle, take what is free."""
        self._nudged = False
        giving = self._excess()
        for number in giving:
            del self._held[number]
        answer = await self._server.run(
            scripts.TEND, self.subscription, self._me, int(self._ttl_s * 1000), self._partitions, *giving
        )
        self._tended = self._clock_s()
        self._share = int(answer[0])
        numbers = [int(number) for number in answer[1:]]
        now_held = {n: (fence, cursor) for n, fence, cursor in zip(*[iter(numbers)] * 3, strict=True)}
        for number in [n for n, held in self._held.items() if now_held.get(n, (0, 0))[0] != held.fence]:
            del self._held[number]
        for number, (fence, cursor) in now_held.items():
            if number not in self._held:
                held = self._held[number] = _Held(number, fence, Window(cursor))
                held.tries = await self._tries(number)

    def _excess(self) -> list[int]:
        """Of what is more than the share, what nothing is being worked on."""
        over = len(self._held) - self._share
        idle = [number for number, held in self._held.items() if not held.window.out and not held.window.moved]
        return idle[: max(over, 0)] if self._share else []

    async def _tries(self, number: int) -> dict[int, int]:
        with mapped():
            found = await self._server.redis.hgetall(self._server.key("tries", self.subscription, number))
        return {int(offset): int(tries) for offset, tries in found.items()}

    def _holding(self, message: Message) -> _Held | None:
        """The lease that delivered it, if it is still held here, as far as we know."""
        number, fence = message.token
        held = self._held.get(number)
        return held if held is not None and held.fence == fence and not self._closed else None

    async def _commit(self, needed: set[int], dead: Sequence[DeadLetter]) -> None:
        """Store cursors with the outcomes of what they passed, in one step, if the leases hold."""
        moved = [held for held in self._held.values() if held.number in needed or held.window.moved]
        taken: list[tuple[_Held, Passed]] = [(held, held.window.take()) for held in moved]
        arguments: list[Argument] = [len(dead)]
        for letter in dead:
            arguments += [letter.id, _letter.encode(letter), letter.events]
        for held, passed in taken:
            arguments += [held.number, held.fence, passed.cursor, passed.events]
            arguments += [passed.stored, passed.duplicate, passed.rejected, passed.dead]
        main = int(self.subscription == SUBSCRIPTION)
        try:
            holds = await self._server.run(scripts.COMMIT, self.subscription, self._me, main, *arguments)
        except BaseException:
            # It may have been done. Then the fence still holds, and doing it again would count twice: start anew.
            for held, _ in taken:
                self._held.pop(held.number, None)
            self._nudged = True
            await asyncio.shield(self._give_up([held.number for held, _ in taken]))
            raise
        if not holds:
            for held, _ in taken:
                self._held.pop(held.number, None)
            self._nudged = True
            raise LeaseLost("a partition has moved to another consumer")

    async def _give_up(self, numbers: Sequence[int]) -> None:
        """Let go of leases whose state is unknown here, so that whoever takes them next starts from the cursor."""
        try:
            await self._server.run(
                scripts.TEND, self.subscription, self._me, int(self._ttl_s * 1000), self._partitions, *numbers
            )
        except TryLater:
            return  # they run out

    # --- reading ---
    async def _collect(self, budget: Budget) -> list[Message]:
        yielding = set(self._excess())
        numbers = [number for number in self._held if number not in yielding]
        await self._read_ahead(numbers)
        found: list[Message] = []
        try:
            for step in range(len(numbers)):
                held = self._held.get(numbers[(self._turn + step) % len(numbers)])
                if held is None:
                    continue
                await self._again(held, budget, found)
                self._further(held, budget, found)
                if budget.spent:
                    break
        except BaseException:
            await self.release(found)  # cancelled, or the server went: they were not delivered
            raise
        self._turn += 1
        return found

    async def _read_ahead(self, numbers: Sequence[int]) -> None:
        """Fill up what is empty, in one round trip."""
        empty = [self._held[n] for n in numbers if not self._held[n].ahead and self._held[n].window.has_room]
        if not empty:
            return
        with mapped():
            pipeline = self._server.redis.pipeline(transaction=False)
            for held in empty:
                count = min(max(READ_BYTES // held.size, READ_MIN), READ_MAX)
                pipeline.xrange(self._server.key("s", held.number), entry_id(held.window.next), "+", count)
            answers = await pipeline.execute()
        for held, entries in zip(empty, answers, strict=True):
            records = parse_all(entries)
            if records and not held.ahead and self._held.get(held.number) is held:
                held.size = sum(record.size for record in records) // len(records) + 1
                held.ahead.extend(record for record in records if record.offset >= held.window.next)

    async def _again(self, held: _Held, budget: Budget, found: list[Message]) -> None:
        """Messages that were put back and whose time has come, read again."""
        offsets = held.window.eligible(self._clock.monotonic(), budget.messages)
        if not offsets or budget.spent:
            return
        with mapped():
            pipeline = self._server.redis.pipeline(transaction=False)
            for offset in offsets:
                pipeline.xrange(self._server.key("s", held.number), entry_id(offset), entry_id(offset))
            answers = await pipeline.execute()
        if self._held.get(held.number) is not held:
            return
        for offset, entries in zip(offsets, answers, strict=True):
            records = parse_all(entries)
            if not records or not held.window.waits(offset):
                continue
            if not budget.takes(records[0].size):
                return
            found.append(self._message(held, records[0], held.window.redeliver(offset)))

    def _further(self, held: _Held, budget: Budget, found: list[Message]) -> None:
        while held.ahead and not budget.spent and held.window.has_room:
            record = held.ahead[0]
            if not budget.takes(record.size):
                return
            held.ahead.popleft()
            tries = held.tries.pop(record.offset, 0)
            if held.window.offer(record.offset, record.key, record.events, record.size, tries):
                found.append(self._message(held, record, 0))
            else:
                self._woken.set()  # it may be due at once

    def _message(self, held: _Held, record: Record, tries: int) -> Message:
        return Message(
            key=record.key,
            head=record.head,
            body=record.body,
            events=record.events,
            stream=f"{self._incarnation}/{held.number}",
            position=(record.offset,),
            published_ms=record.published_ms,
            tries=tries,
            token=(held.number, held.fence),
        )

    # --- news from other processes ---
    async def _watch(self) -> None:
        """Wake ``receive`` when another process has published, by waiting at the server while nothing is there."""
        while not self._closed:  # the client may take a cancellation for a lost connection
            await self._hungry.wait()
            self._hungry.clear()
            streams = {
                self._server.key("s", held.number): f"{held.window.next}-0"
                for held in self._held.values()
                if not held.ahead and held.window.has_room
            }
            if not streams:
                continue
            try:
                with mapped():
                    news = await self._server.redis.xread(streams, count=1, block=int(WATCH_S * 1000))
            except TryLater:
                if not self._closed:
                    await asyncio.sleep(WATCH_S)
            else:
                if news:
                    self._woken.set()

    def _clock_s(self) -> float:
        """Leases run by real time, whatever clock the delays follow."""
        return asyncio.get_running_loop().time()
