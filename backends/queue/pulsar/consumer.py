"""The port's consumer on a Key_Shared subscription.

Settling: the broker acknowledges whole entries (batches of one key), so outcomes are entered in the ledger, and the
broker is told, when all messages of an entry are settled; first the journal, then the broker. An entry that comes again
although the journal knows it as settled (its acknowledgement was lost in a crash) is acknowledged and not delivered.

Putting back happens here, in the process: the broker sees the message as delivered all the while, so that it keeps back
nothing and gives everything again, in order, if this process dies.

Fencing: Key_Shared gives our keys to others when our connection is gone. Broker and client find that out by
themselves; what we know of it is an interrupted connection or a pause of the process (``Fetcher``). Everything that
was held is then dropped, its acknowledgement raises ``LeaseLost``, and the subscription is joined anew. Between the
loss and our knowing, an acknowledgement may still reach the broker: it removes a message whose effects *are* stored
(that is when it is sent) and that its new holder finds applied, so nothing is lost, and the journal keeps the ledger
from counting it twice unless both settle it within the same moment.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import structlog

from tracardi_lite.backends.queue.pulsar import frame
from tracardi_lite.backends.queue.pulsar.bridge import Bridge
from tracardi_lite.backends.queue.pulsar.client import Blocking
from tracardi_lite.backends.queue.pulsar.fetcher import HELD_BYTES_MAX, HELD_MAX, Arrival, Fetcher
from tracardi_lite.backends.queue.pulsar.ids import EntryId
from tracardi_lite.backends.queue.pulsar.journal import tries_key
from tracardi_lite.backends.queue.pulsar.ledger import Ledger
from tracardi_lite.backends.queue.pulsar.letters import Letters
from tracardi_lite.backends.queue.pulsar.lines import Item, Lines, State
from tracardi_lite.backends.queue.window import MESSAGES_MAX, Budget
from tracardi_lite.clock import Clock
from tracardi_lite.errors import LeaseLost, TryLater
from tracardi_lite.ports.queue import SUBSCRIPTION, DeadLetter, Done, Message

log = structlog.get_logger(__name__)

DUE_POLL_S = 0.05
"""How often a waiting receive looks whether a delay is over."""
FRESH_MS = 50
"""A message younger than this can't have been settled or tried by anybody else yet."""
REJOIN_S = 1.0


class Entry:
    """A batch of the broker's, until each of its messages is settled."""

    __slots__ = ("id", "items", "message_ids", "size")

    def __init__(self, id: EntryId, size: int) -> None:
        self.id = id
        self.size = size
        self.items: dict[int, Item] = {}
        self.message_ids: dict[int, Any] = {}

    @property
    def settled(self) -> bool:
        return len(self.items) == self.size and all(item.state is State.DONE for item in self.items.values())

    def let_go(self) -> None:
        """Settled for good: nobody needs the messages any more. Entry and items know each other, so their bytes would
        stay until the collector comes by, which in a process that makes few cycles is rarely."""
        for item in self.items.values():
            item.message = item.entry = None


class PulsarConsumer:
    def __init__(
        self,
        blocking: Blocking,
        bridge: Bridge,
        topic: str,
        subscription: str,
        ledger: Ledger,
        letters: Letters,
        clock: Clock,
        on_close: Callable[[PulsarConsumer], None],
    ) -> None:
        self._blocking = blocking
        self._bridge = bridge
        self._topic = topic
        self.subscription = subscription
        self._ledger = ledger
        self._letters = letters
        self._clock = clock
        self._on_close = on_close
        self._epoch = 0
        """Grows whenever what is held must be taken as lost."""
        self._sought = ""
        self._fetcher: Fetcher | None = None
        self._lines = Lines()
        self._entries: dict[EntryId, Entry] = {}
        self._seen: dict[int, tuple[int, int]] = {}
        """By partition: the furthest (ledger, entry) that came."""
        self._finished: list[Entry] = []
        self._bursts: deque[tuple[Fetcher, Sequence[Arrival]]] = deque()
        self._arrived = asyncio.Event()
        self._woken = asyncio.Event()
        self._intake: asyncio.Task[None] | None = None
        self._rejoining: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._problem: TryLater | None = None
        self._closed = False

    # --- joining and leaving ---
    async def join(self) -> None:
        """Take part in the subscription. Raises ``Unavailable``."""
        await self._ledger.refresh()
        self._sought = self._ledger.journal.epochs.get(self.subscription, "")
        fetcher = Fetcher(
            self._blocking,
            self._bridge,
            self._topic,
            self.subscription,
            self._on_burst,
            self._on_away,
            lambda: not self._entries,
        )
        try:
            await fetcher.start()
        except BaseException:
            await asyncio.shield(fetcher.stop())
            raise
        self._fetcher = fetcher
        self._problem = None
        if self._intake is None:
            self._intake = asyncio.create_task(self._take_in())

    async def leave(self) -> None:
        """Drop what is held and step out; ``join`` comes back with nothing."""
        self._drop()
        fetcher, self._fetcher = self._fetcher, None
        if fetcher is not None:
            await fetcher.stop()

    async def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._on_close(self)
        tasks = [task for task in (self._rejoining, self._intake) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, *self._tasks, return_exceptions=True)
        await self.leave()
        self._woken.set()

    def _drop(self) -> None:
        self._epoch += 1
        self._lines = Lines()
        self._entries.clear()
        self._seen.clear()
        self._finished.clear()
        self._bursts.clear()

    def _on_away(self, fetcher: Fetcher) -> None:
        if fetcher is self._fetcher:
            self._rejoin("connection lost")

    def _rejoin(self, why: str) -> None:
        if self._closed or (self._rejoining is not None and not self._rejoining.done()):
            return
        log.warning("pulsar_rejoin", subscription=self.subscription, reason=why, held=len(self._entries))
        self._drop()
        self._rejoining = asyncio.create_task(self._come_back())

    async def _come_back(self) -> None:
        while True:
            try:
                await self.leave()
                await self.join()
            except TryLater as error:
                self._problem = error
                self._woken.set()
                await asyncio.sleep(REJOIN_S)
            else:
                log.warning("pulsar_rejoined", subscription=self.subscription)
                return

    # --- what comes in ---
    def _on_burst(self, fetcher: Fetcher, burst: Sequence[Arrival]) -> None:
        self._bursts.append((fetcher, burst))
        self._arrived.set()

    async def _take_in(self) -> None:
        while True:
            await self._arrived.wait()
            self._arrived.clear()
            count = len(self._bursts)
            if self._may_have_been_elsewhere():
                try:
                    await self._ledger.refresh()
                except TryLater as error:
                    # Tries may be too low then, and what was settled may be processed again, without effect.
                    log.warning("journal_not_read", reason=error.reason)
                if self._ledger.journal.epochs.get(self.subscription, "") != self._sought:
                    self._rejoin("somebody went back in the log")
                    continue
            for _ in range(min(count, len(self._bursts))):
                fetcher, burst = self._bursts.popleft()
                if fetcher is self._fetcher and not fetcher.lost:
                    for arrival in burst:
                        self._admit(arrival)
                fetcher.taken += len(burst)  # now they are held, so that the fetcher never takes us for idle
            self._tend_room()
            self._woken.set()

    def _may_have_been_elsewhere(self) -> bool:
        now_ms = self._clock.now_ms()
        return any(
            now_ms - arrival.published_ms > FRESH_MS
            or arrival.entry[1:] <= self._seen.get(arrival.entry.partition, (-1, -1))
            for _, burst in self._bursts
            for arrival in burst
        )

    def _admit(self, arrival: Arrival) -> None:
        id = arrival.entry
        if self._ledger.journal.settled(self.subscription, id):
            if self._fetcher is not None:
                self._bridge.call(self._acknowledge_again, self._fetcher, arrival.message_id)
            return
        entry = self._entries.get(id)
        if entry is None:
            entry = self._entries[id] = Entry(id, arrival.size)
        known = arrival.index in entry.items
        entry.message_ids[arrival.index] = arrival.message_id
        if known:
            return
        position = (id.ledger, id.entry, arrival.index)
        tries = 0
        if self._ledger.journal.tries:
            tries = self._ledger.journal.tries.get(tries_key(self.subscription, id.partition, position), 0)
        item = Item(arrival.key, position, len(arrival.payload), tries)
        item.message = arrival
        item.entry = entry
        entry.items[arrival.index] = item
        self._lines.offer(item)
        if id[1:] > self._seen.get(id.partition, (-1, -1)):
            self._seen[id.partition] = (id.ledger, id.entry)

    def _acknowledge_again(self, fetcher: Fetcher, message_id: Any) -> None:
        task = asyncio.ensure_future(fetcher.acknowledge([message_id]))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def _tend_room(self) -> None:
        lines = self._lines
        room = lines.ready < HELD_MAX and lines.waiting < MESSAGES_MAX and lines.waiting_bytes < HELD_BYTES_MAX
        if self._fetcher is not None:
            self._fetcher.set_room(room)

    # --- the port ---
    async def receive(self, max_messages: int, max_bytes: int, timeout_s: float) -> list[Message]:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_s
        while True:
            if self._closed:
                raise LeaseLost("the consumer is closed")
            self._woken.clear()
            self._notice_pause()
            if max_messages > 0:
                found = self._lines.take(self._clock.monotonic(), Budget(max_messages, max_bytes))
                if found:
                    self._tend_room()
                    return [self._message(item) for item in found]
            left = deadline - loop.time()
            if left <= 0:
                if self._problem is not None:
                    raise self._problem
                return []
            try:
                async with asyncio.timeout(min(left, DUE_POLL_S) if self._lines.has_trouble else left):
                    await self._woken.wait()
            except TimeoutError:
                pass

    async def ack(self, done: Sequence[Done], dead: Sequence[DeadLetter] = ()) -> None:
        self._notice_pause()
        held = [one for one in done if self._holds(one.message)]
        if len(held) < len(done):
            await self.release([one.message for one in held])
            raise LeaseLost("messages may have moved to another consumer")
        epoch = self._epoch
        if dead:
            await self._letters.keep(dead)
            if epoch != self._epoch:
                raise LeaseLost("the connection was lost meanwhile")
        for one in held:
            item: Item = one.message.token[1]
            if item.state is not State.OUT:
                continue  # settled before
            tally = one.tally
            assert tally.stored + tally.duplicate + tally.rejected + tally.dead == one.message.events
            item.tally = tally
            self._lines.done(item)
            if item.entry.settled:
                self._finished.append(item.entry)
        await self._commit()

    async def nack(self, messages: Sequence[Message], delay_s: float) -> None:
        due = self._clock.monotonic() + delay_s
        tried: dict[str, bytes] = {}
        for item in self._out(messages):
            self._lines.put_back(item, due, tried=True)
            tried[self._tries_key(item)] = str(item.tries).encode()
        self._woken.set()
        try:
            await self._ledger.write(tried)
        except TryLater as error:
            log.warning("tries_not_kept", messages=len(tried), reason=error.reason)

    async def release(self, messages: Sequence[Message]) -> None:
        for item in self._out(messages):
            self._lines.put_back(item, 0.0, tried=False)
        self._woken.set()

    # --- inside ---
    def _notice_pause(self) -> None:
        fetcher = self._fetcher
        if fetcher is not None:
            fetcher.check_pause()
            if fetcher.lost:
                self._rejoin("paused, or the connection was lost")

    def _holds(self, message: Message) -> bool:
        return not self._closed and bool(message.token[0] == self._epoch)

    def _out(self, messages: Sequence[Message]) -> list[Item]:
        """Those that are out here; what was lost comes again elsewhere, so it is passed over."""
        items = [message.token[1] for message in messages if self._holds(message)]
        return [item for item in items if item.state is State.OUT]

    def _message(self, item: Item) -> Message:
        arrival: Arrival = item.message
        try:
            framed = frame.decode(arrival.payload)
        except ValueError:
            # Not ours: whoever decodes the head makes it a dead letter.
            framed = frame.Framed(b"", 0, False, b"", arrival.payload)
        return Message(
            key=item.key,
            head=framed.head,
            body=framed.body,
            events=framed.events,
            stream=f"{self._ledger.journal.incarnation}/{item.entry.id.partition}",
            position=item.position,
            published_ms=arrival.published_ms,
            tries=item.tries,
            token=(self._epoch, item),
        )

    async def _commit(self) -> None:
        """Enter the outcomes of finished entries in the journal, then tell the broker."""
        fetcher, finished, self._finished = self._fetcher, self._finished, []
        if not finished or fetcher is None:
            return
        epoch = self._epoch
        # Settled by another consumer meanwhile: counted there.
        ours = [entry for entry in finished if not self._ledger.journal.settled(self.subscription, entry.id)]
        try:
            await self._enter(ours)
        except BaseException:
            if epoch == self._epoch:
                self._finished = finished + self._finished
            raise
        tried = {self._tries_key(item): None for entry in ours for item in entry.items.values() if item.tries}
        for entry in finished:
            self._entries.pop(entry.id, None)
        await fetcher.acknowledge([id for entry in finished for id in entry.message_ids.values()])
        for entry in finished:
            entry.let_go()
        if tried:
            await self._ledger.write(tried)

    async def _enter(self, entries: Sequence[Entry]) -> None:
        ids = [entry.id for entry in entries]
        counts = self._ledger.counts
        outcomes = [(entry.id.partition, item.tally) for entry in entries for item in entry.items.values()]
        main = self.subscription == SUBSCRIPTION
        if main:
            counts.settle(outcomes, 1)
        try:
            await self._ledger.report(self.subscription, ids)
        except BaseException:
            # Its fate may be unknown; the next report tells the sums anew either way.
            if main:
                counts.settle(outcomes, -1)
            raise
        self._ledger.journal.note_settled(self.subscription, ids)

    def _tries_key(self, item: Item) -> str:
        return "t:" + tries_key(self.subscription, item.entry.id.partition, item.position)
