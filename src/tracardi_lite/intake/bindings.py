"""Which profile a session or profile id means, as the door knows it: without writing, and mostly without waiting.

Two layers: what this process has answered or looked up lately, and the store's directory, asked for many keys in one
call per turn of the loop. What the door has answered and no worker has stored yet is remembered here, so that the next
answer agrees; what the store says wins over that as soon as it says something.

Bounds: ``size`` entries, least recently used first out. A look-up that takes over ``LOOKUP_S`` counts as failed; after
a failure the store is left alone for ``PAUSE_S``, and callers decide by the ids alone.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict

from tracardi_lite.clock import Clock
from tracardi_lite.errors import TryLater
from tracardi_lite.ports.store import Entry, Store

# How long an entry serves before the store is asked again: the longest that an answer may lag behind a merge elsewhere.
FRESH_S = 2.0
# How long an answer that no worker has confirmed is remembered: longer than any flush, shorter than a visit.
REMEMBER_S = 1800.0
LOOKUP_S = 1.0
PAUSE_S = 1.0
# Merges point from alias to survivor; chains are shortened when they are made, so this is for faults only.
ALIAS_HOPS_MAX = 8


class Unknown(Exception):
    """The directory can't be asked now."""


class Bindings:
    def __init__(self, store: Store, clock: Clock, size: int) -> None:
        self._store = store
        self._clock = clock
        self._size = size
        self._known: OrderedDict[str, tuple[str, float, float]] = OrderedDict()
        self._waiting: dict[str, asyncio.Future[Entry | None]] = {}
        self._batch: list[str] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._paused_until = 0.0

    def peek(self, key: str) -> str | None:
        """The profile that ``s:<session>`` or ``p:<profile>`` means, if that was answered or looked up just now."""
        entry = self._known.get(key)
        if entry is not None and entry[1] > self._clock.monotonic():
            return entry[0]
        return None

    def remember(self, key: str, profile: str) -> None:
        """The door answers ``profile`` for this key."""
        now = self._clock.monotonic()
        self._known[key] = (profile, now + FRESH_S, now + REMEMBER_S)
        self._known.move_to_end(key)
        if len(self._known) > self._size:
            self._known.popitem(last=False)

    def forget(self, key: str) -> None:
        self._known.pop(key, None)

    async def resolve(self, keys: list[str]) -> list[str | None]:
        """What each key means, None where nothing is known. Raises ``Unknown`` when the store can't be asked
        and some key was never answered here."""
        now = self._clock.monotonic()
        missing = [key for key in keys if (entry := self._known.get(key)) is None or entry[1] <= now]
        found: dict[str, str | None] = {}
        if missing:
            try:
                for key, entry_ in zip(missing, await self._lookup(missing), strict=True):
                    found[key] = await self._survivor(entry_) if entry_ is not None else None
            except TryLater as error:
                if any(self._remembered(key) is None for key in missing):
                    raise Unknown from error
        answers: list[str | None] = []
        for key in keys:
            answer = found.get(key) or self._remembered(key)
            if answer is not None:
                self._confirm(key, answer, stored=found.get(key) is not None)
            answers.append(answer)
        return answers

    def _remembered(self, key: str) -> str | None:
        entry = self._known.get(key)
        return entry[0] if entry is not None and entry[2] > self._clock.monotonic() else None

    def _confirm(self, key: str, profile: str, *, stored: bool) -> None:
        now = self._clock.monotonic()
        old = self._known.get(key)
        until = now + REMEMBER_S if stored or old is None else old[2]
        self._known[key] = (profile, now + FRESH_S, until)
        self._known.move_to_end(key)
        if len(self._known) > self._size:
            self._known.popitem(last=False)

    async def _survivor(self, entry: Entry) -> str | None:
        """Follow aliases to the profile that an entry means now; None for a session without one."""
        target = entry.target
        for _ in range(ALIAS_HOPS_MAX):
            if not target:
                return None
            (next_,) = await self._lookup([f"p:{target}"])
            if next_ is None or next_.target == target:
                return target
            target = next_.target
        return target

    async def _lookup(self, keys: list[str]) -> list[Entry | None]:
        """Join the look-up of this turn of the loop."""
        now = self._clock.monotonic()
        if now < self._paused_until:
            raise TryLater("store", "the directory did not answer just now", self._paused_until - now)
        futures = []
        loop = asyncio.get_running_loop()
        for key in keys:
            future = self._waiting.get(key)
            if future is None:
                if not self._batch:
                    loop.call_soon(self._start)
                future = self._waiting[key] = loop.create_future()
                self._batch.append(key)
            futures.append(future)
        # Gathered under a shield: a client that hangs up must not cancel a look-up that others share.
        return await asyncio.shield(asyncio.gather(*futures))

    def _start(self) -> None:
        keys, self._batch = self._batch, []
        task = asyncio.create_task(self._ask(keys))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _ask(self, keys: list[str]) -> None:
        try:
            async with asyncio.timeout(LOOKUP_S):
                entries = await self._store.lookup(keys)
        except (TryLater, TimeoutError) as error:
            self._paused_until = self._clock.monotonic() + PAUSE_S
            fault = error if isinstance(error, TryLater) else TryLater("store", "the directory is slow", PAUSE_S)
            self._settle(keys, None, fault)
        except Exception as error:
            # A bug; those who wait for the answer show it.
            self._settle(keys, None, error)
        else:
            self._settle(keys, entries, None)

    def _settle(self, keys: list[str], entries: list[Entry | None] | None, fault: BaseException | None) -> None:
        for position, key in enumerate(keys):
            future = self._waiting.pop(key)
            if future.done():
                continue
            if entries is not None:
                future.set_result(entries[position])
            else:
                assert fault is not None
                future.set_exception(fault)
                # Nobody may be left to fetch it; that is no fault of its own.
                future.exception()
