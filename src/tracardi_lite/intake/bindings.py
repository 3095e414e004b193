"""Which profile a session or profile id means, as the door knows it: without writing, and mostly without waiting.

Three layers: what this process has answered or looked up lately, the cache if it is one that processes share, and the
store's directory; the latter two are asked for many keys in one call per turn of the loop. What the door has answered
and no worker has stored yet is remembered here, so that the next answer agrees; what the store says wins over that as
soon as it says something.

A key that moves (a merge, on whichever process) is heard of before it does, and not trusted for ``HOLD_S``: then it is
looked up with each call, which soon leads elsewhere. Where word may get lost, ``FRESH_S`` is the longest that an answer
lags behind.

Bounds: ``size`` entries, least recently used first out; ``MOVING_MAX`` keys on the move. A look-up that takes over
``LOOKUP_S`` counts as failed; after a failure the store is left alone for ``PAUSE_S``, and callers decide by the ids
alone.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Collection, Coroutine, Sequence
from typing import Any

import msgspec

from tracardi_lite.clock import Clock
from tracardi_lite.errors import TryLater
from tracardi_lite.metrics import Metrics
from tracardi_lite.ports.cache import HOLD_S, Cache
from tracardi_lite.ports.store import Entry, Store

# How long an entry serves before it is looked up again.
FRESH_S = 5.0
# The same for what the store has said, where no word of its moving can be missed: a busy door then spends its time on
# sessions that are new to it.
SURE_S = 30.0
# How long an answer that no worker has confirmed is remembered: longer than any flush, shorter than a visit.
REMEMBER_S = 1800.0
LOOKUP_S = 1.0
PAUSE_S = 1.0
# Later ones push out the oldest, whose entries are fresh for no longer than SURE_S anyway.
MOVING_MAX = 20_000
# Merges point from alias to survivor; chains are shortened when they are made, so this is for faults only.
ALIAS_HOPS_MAX = 8


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(Entry).decode


class Unknown(Exception):
    """The directory can't be asked now."""


class _Batch:
    """The keys that are asked for in one turn of the loop, and who waits for them."""

    def __init__(self) -> None:
        self.entries: dict[str, Entry | None] = {}
        self.waiters: list[tuple[list[str], asyncio.Future[None]]] = []

    def succeed(self) -> None:
        for _, waiter in self.waiters:
            if not waiter.done():
                waiter.set_result(None)

    def fail(self, fault: Exception, unknown: Collection[str]) -> None:
        """For who has asked for one of the unknown keys; the others have their answer."""
        for keys, waiter in self.waiters:
            if not waiter.done():
                if any(key in unknown for key in keys):
                    waiter.set_exception(fault)
                else:
                    waiter.set_result(None)


class Bindings:
    def __init__(
        self,
        store: Store,
        cache: Cache,
        clock: Clock,
        metrics: Metrics,
        size: int,
        *,
        profile_ttl_s: float,
        session_ttl_s: float,
    ) -> None:
        """``…_ttl_s``: how long a shared cache is to keep what the store says of ``p:`` and ``s:`` keys."""
        self._store = store
        self._cache = cache
        self._clock = clock
        self._metrics = metrics
        self._size = size
        self._ttl_s = {"p:": profile_ttl_s, "s:": session_ttl_s}
        self._stored_fresh_s = SURE_S if cache.hears_all else FRESH_S
        self._moves = cache.moves()
        self._moving: OrderedDict[str, float] = OrderedDict()
        """Keys on the move, and until when they are not trusted; in that order."""
        self._moved_by = 0.0
        """When the last of them is."""
        self._floor = 0.0
        """Entries that were to be fresh until then, or shorter, are not."""
        self._known: OrderedDict[str, tuple[str, float, float]] = OrderedDict()
        self._batch: _Batch | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._paused_until = 0.0

    def peek(self, key: str) -> str | None:
        """The profile that ``s:<session>`` or ``p:<profile>`` means, if that was answered or looked up just now."""
        news = self._moves.heard()
        if news is None or news:
            self._hear(news)
        entry = self._known.get(key)
        if entry is not None and self._is_fresh(key, entry, self._clock.monotonic()):
            return entry[0]
        return None

    def _is_fresh(self, key: str, entry: tuple[str, float, float], now: float) -> bool:
        profile, fresh_until, _ = entry
        if fresh_until <= now or fresh_until <= self._floor:
            return False
        return not self._moving or not (self._is_moving(key, now) or self._is_moving(f"p:{profile}", now))

    def _is_moving(self, key: str, now: float) -> bool:
        if now >= self._moved_by:
            self._moving.clear()
        until = self._moving.get(key)
        return until is not None and until > now

    def _hear(self, keys: Sequence[str] | None) -> None:
        now = self._clock.monotonic()
        if keys is None:
            self._floor = now + self._stored_fresh_s
            return
        self._moved_by = now + HOLD_S
        for key in keys:
            self._moving[key] = self._moved_by
            self._moving.move_to_end(key)
        while self._moving:
            oldest = next(iter(self._moving))
            if self._moving[oldest] > now and len(self._moving) <= MOVING_MAX:
                break
            del self._moving[oldest]

    def remember(self, key: str, profile: str) -> None:
        """The door answers ``profile`` for this key."""
        now = self._clock.monotonic()
        self._put(key, profile, now + FRESH_S, now + REMEMBER_S)

    async def resolve(self, keys: list[str]) -> list[str | None]:
        """What each key means, None where nothing is known. Raises ``Unknown`` when the store can't be asked
        and some key was never answered here."""
        now = self._clock.monotonic()
        missing = [
            key for key in keys if (entry := self._known.get(key)) is None or not self._is_fresh(key, entry, now)
        ]
        found: dict[str, str | None] = {}
        if missing:
            try:
                for key, entry_ in zip(missing, await self._lookup(missing), strict=True):
                    found[key] = await self._survivor(key, entry_) if entry_ is not None else None
            except TryLater as error:
                if any(self._remembered(key) is None for key in missing):
                    raise Unknown from error
        answers: list[str | None] = []
        for key in keys:
            answer = found.get(key) or self._remembered(key)
            if answer is not None and key in missing:
                self._confirm(key, answer, stored=found.get(key) is not None)
            answers.append(answer)
        return answers

    def _remembered(self, key: str) -> str | None:
        entry = self._known.get(key)
        return entry[0] if entry is not None and entry[2] > self._clock.monotonic() else None

    def _confirm(self, key: str, profile: str, *, stored: bool) -> None:
        now = self._clock.monotonic()
        old = self._known.get(key)
        fresh_until = now + (self._stored_fresh_s if stored else FRESH_S)
        self._put(key, profile, fresh_until, now + REMEMBER_S if stored or old is None else old[2])

    def _put(self, key: str, profile: str, fresh_until: float, remembered_until: float) -> None:
        self._known[key] = (profile, fresh_until, remembered_until)
        self._known.move_to_end(key)
        if len(self._known) > self._size:
            self._known.popitem(last=False)

    async def _survivor(self, asked: str, entry: Entry) -> str | None:
        """Follow aliases to the profile that an entry means now; None for a session without one."""
        target = entry.target
        if asked == f"p:{target}":
            return target
        for _ in range(ALIAS_HOPS_MAX):
            if not target:
                return None
            key = f"p:{target}"
            known = self.peek(key)
            if known is not None:
                return known
            (next_,) = await self._lookup([key])
            if next_ is None or next_.target == target:
                self._confirm(key, target, stored=True)
                return target
            target = next_.target
        return target

    async def _lookup(self, keys: list[str]) -> list[Entry | None]:
        """Join the look-up of this turn of the loop. Each caller waits for a future of its own, so that a client that
        hangs up does not cancel what others wait for."""
        if not self._cache.shared:
            self._check_pause()
        loop = asyncio.get_running_loop()
        batch = self._batch
        if batch is None:
            batch = self._batch = _Batch()
            loop.call_soon(self._start)
        for key in keys:
            batch.entries[key] = None
        waiter = loop.create_future()
        batch.waiters.append((keys, waiter))
        await waiter
        return [batch.entries[key] for key in keys]

    def _check_pause(self) -> None:
        left_s = self._paused_until - self._clock.monotonic()
        if left_s > 0:
            raise TryLater("store", "the directory did not answer just now", left_s)

    def _start(self) -> None:
        batch, self._batch = self._batch, None
        assert batch is not None
        self._start_task(self._ask(batch))

    async def _ask(self, batch: _Batch) -> None:
        unknown = list(batch.entries)
        try:
            async with asyncio.timeout(LOOKUP_S):
                if self._cache.shared:
                    unknown = await self._ask_cache(batch)
                if unknown:
                    self._check_pause()
                    found = await self._store.lookup(unknown)
                    batch.entries.update(zip(unknown, found, strict=True))
        except (TryLater, TimeoutError) as error:
            now = self._clock.monotonic()
            if now >= self._paused_until:
                self._paused_until = now + PAUSE_S
            fault = error if isinstance(error, TryLater) else TryLater("store", "the directory is slow", PAUSE_S)
            batch.fail(fault, set(unknown))
        except Exception as error:
            # A bug; those who wait for the answer show it.
            batch.fail(error, batch.entries)
        else:
            batch.succeed()
            if self._cache.shared:
                self._tell_cache({key: entry for key in unknown if (entry := batch.entries[key]) is not None})

    async def _ask_cache(self, batch: _Batch) -> list[str]:
        """Which keys it does not have."""
        keys = list(batch.entries)
        batch.entries.update(zip(keys, map(_entry, await self._cache.get(keys)), strict=True))
        unknown = [key for key in keys if batch.entries[key] is None]
        self._metrics.cache_hits.add("directory", count=len(keys) - len(unknown))
        self._metrics.cache_misses.add("directory", count=len(unknown))
        return unknown

    def _tell_cache(self, entries: dict[str, Entry]) -> None:
        """What the store has said. Nobody waits for it."""
        for kind, ttl_s in self._ttl_s.items():
            values = {key: _encode(entry) for key, entry in entries.items() if key.startswith(kind)}
            if values:
                self._start_task(self._cache.add(values, ttl_s))

    def _start_task(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def _entry(value: bytes | None) -> Entry | None:
    """Whatever else is found under our keys is as good as nothing."""
    try:
        return None if value is None else _decode(value)
    except msgspec.MsgspecError:
        return None
