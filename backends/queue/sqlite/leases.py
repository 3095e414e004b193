"""The partitions that one consumer holds: taking, giving up, losing them, and storing their progress.

Everything that stores is serialised by one lock, so that what a cursor passed is stored once; it runs in a task of
its own, so that a cancelled caller does not leave it half known whether it was.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Callable, Collection, Coroutine, Sequence
from typing import Any

import structlog
from msgspec import Struct

from tracardi_lite.backends.queue.sqlite.control import Lease, Save, Standing
from tracardi_lite.backends.queue.sqlite.files import Badge, Files, boot_id, dead_members, forget_members
from tracardi_lite.backends.queue.window import MESSAGES_MAX, Window
from tracardi_lite.errors import LeaseLost, TryLater
from tracardi_lite.ports.queue import DeadLetter

DELAY_MAX_S = 3600.0
"""Longest remaining delay that a new holder believes, since wall clocks jump."""
PEERS_LOOK_S = 1.0
HUNGRY_LOOK_S = 0.25
"""How often a member looks again while it has less than its share, or more."""

log = structlog.get_logger(__name__)


class Held(Struct, eq=False):
    """A partition in this consumer's hands."""

    partition: int
    fence: int
    window: Window
    messages: int
    """Of the partition, ever, up to ``window.next``; likewise events. A jump in the log's counts is a loss."""
    events: int
    tries: dict[int, tuple[int, float]]
    """Offset → tries, when due (monotonic), of messages that an earlier holder put back."""
    is_yielding: bool = False
    """Above this member's share: nothing more is delivered, and it is given up when nothing is out."""

    @property
    def is_isolated(self) -> bool:
        """So many died of it that its messages go out one at a time, each counted as a try before it goes."""
        return self.window.messages_max == 1


class Leases:
    def __init__(self, files: Files, subscription: str, ttl_s: float, wake: Callable[[], None]) -> None:
        self.subscription = subscription
        self.held: dict[int, Held] = {}
        self._files = files
        self._ttl_s = ttl_s
        self._wake = wake
        self._member = uuid.uuid4().hex
        self._boot = boot_id()
        self._badge: Badge | None = None
        self._peers: list[str] = []
        self._share = 0
        self._letters: dict[str, DeadLetter] = {}
        """Not yet stored; whatever is stored next takes them along, or a cursor could pass without its letter."""
        self._storing = asyncio.Lock()
        self._nudged = asyncio.Event()
        self._tasks: set[asyncio.Task[Any]] = set()
        self._beat: asyncio.Task[None] | None = None

    async def join(self) -> None:
        self._badge = await self._files.run(lambda: Badge(self._files.folder, self._member))
        await self.sync()
        self._beat = asyncio.create_task(self._heartbeat())

    async def leave(self) -> None:
        """Store what is done, give everything back."""
        if self._beat is not None:
            self._beat.cancel()
            await asyncio.wait([self._beat])
        if self._tasks:
            await asyncio.wait(self._tasks)
        try:
            await self.store()
            await self._files.run(lambda: self._files.control.leave(self._member))
        except (LeaseLost, TryLater) as error:
            log.warning("queue_leave_incomplete", error=str(error))  # the others see that the badge is gone
        finally:
            self.held.clear()
            badge, self._badge = self._badge, None
            if badge is not None:
                await self._files.run(badge.close)

    def nudge(self) -> None:
        """Membership has changed: look soon."""
        self._nudged.set()

    def holding(self, token: tuple[int, int]) -> Held | None:
        """The lease that a message came under, if it is still held."""
        held = self.held.get(token[0])
        return held if held is not None and held.fence == token[1] else None

    def keep(self, letter: DeadLetter) -> None:
        """Store a letter with what is stored next."""
        self._letters[letter.id] = letter

    async def store(self, needed: Collection[Held] = (), letters: Sequence[DeadLetter] = ()) -> None:
        """Store all progress with its outcomes, and the letters first.

        Raises ``TryLater``; and ``LeaseLost``, with nothing stored, if one of ``needed`` is not ours any more.
        """
        for letter in letters:
            self.keep(letter)
        await self._shielded(self._store(needed))

    async def remember(self, tries: Sequence[tuple[int, int, int, int]]) -> None:
        """Keep (partition, offset, tries, due_ms) for whoever holds the partition next."""
        await self._shielded(self._files.run(lambda: self._files.control.put_back(self.subscription, tries)))

    async def sync(self) -> None:
        await self._shielded(self._sync())

    async def _shielded(self, act: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(act)
        self._tasks.add(task)
        task.add_done_callback(self._finished)
        await asyncio.shield(task)

    def _finished(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if not task.cancelled():
            task.exception()  # whoever waited has it; one who was cancelled does not want it

    async def _heartbeat(self) -> None:
        while True:
            try:
                async with asyncio.timeout(self._pause_s()):
                    await self._nudged.wait()
            except TimeoutError:
                pass
            self._nudged.clear()
            try:
                await self.sync()
            except TryLater as error:
                log.warning("queue_lease_not_renewed", error=str(error))
            except LeaseLost:
                pass  # what was held is dropped; the next turn takes anew

    def _pause_s(self) -> float:
        pause = self._ttl_s / 3
        if len(self.held) != self._share or any(held.is_yielding for held in self.held.values()):
            return min(pause, HUNGRY_LOOK_S)
        return min(pause, PEERS_LOOK_S) if self._peers else pause

    async def _store(self, needed: Collection[Held]) -> None:
        async with self._storing:
            # Waiting for the lock, we may have learned that a partition was lost.
            if any(self.held.get(held.partition) is not held for held in needed):
                self._let_go()
                raise LeaseLost("a partition has moved to another consumer")
            await self._store_locked(needed)

    async def _store_locked(self, needed: Collection[Held] = ()) -> None:
        """Those ``needed`` are checked even if their cursors stand still."""
        moved = [held for held in self.held.values() if held.window.moved or held in needed]
        letters = dict(self._letters)
        taken = [Save(held.partition, held.fence, held.window.take()) for held in moved]
        try:
            await self._files.run(lambda: self._files.control.save(self.subscription, taken, list(letters.values())))
        except LeaseLost:
            self._let_go()
            raise
        except BaseException:
            for held, save in zip(moved, taken, strict=True):
                held.window.restore(save.passed)
            raise
        for id in letters:
            if self._letters.get(id) is letters[id]:
                del self._letters[id]
        for held, save in zip(moved, taken, strict=True):
            held.window.messages_max = min(held.window.messages_max + save.passed.messages, MESSAGES_MAX)

    def _let_go(self) -> None:
        """Not knowing what was lost, let go of all: what was done here and could not be said comes again."""
        self.held.clear()
        self._letters.clear()
        self.nudge()

    async def _sync(self) -> None:
        async with self._storing:
            await self._store_locked()
            for held in list(self.held.values()):
                if held.is_yielding and not held.window.out and not held.window.moved:
                    del self.held[held.partition]
            fences = {partition: held.fence for partition, held in self.held.items()}
            standing, starts = await self._files.run(lambda: self._stand(fences))
            for partition in standing.lost:
                self.held.pop(partition, None)
            for lease, start in zip(standing.taken, starts, strict=True):
                self.held[lease.partition] = self._new(lease, start)
            self._share, self._peers = standing.share, standing.peers
            for place, partition in enumerate(sorted(self.held)):
                self.held[partition].is_yielding = place >= standing.share
        self._wake()

    def _stand(self, fences: dict[int, int]) -> tuple[Standing, list[int]]:
        """In the files thread."""
        files = self._files
        dead = dead_members(files.folder)
        now = files.clock.monotonic()
        standing = files.control.sync(self.subscription, self._member, fences, dead, self._boot, now, self._ttl_s)
        forget_members(files.folder, dead)
        starts = []
        for lease in standing.taken:
            end = files.reader.end()
            found = files.reader.find(lease.partition, lease.messages)
            starts.append(max(lease.cursor, end.offset if found is None else found[0]))
        return standing, starts

    def _new(self, lease: Lease, start: int) -> Held:
        now, now_ms = self._files.clock.monotonic(), self._files.clock.now_ms()
        tries = {
            offset: (count, now + min(max(due_ms - now_ms, 0) / 1000, DELAY_MAX_S))
            for offset, (count, due_ms) in lease.tries.items()
        }
        window = Window(start, messages_max=lease.width)
        return Held(lease.partition, lease.fence, window, lease.messages, lease.events, tries)
