"""After a merge: events and sessions of the loser come to name the survivor, in the background.

Nothing waits for it, since records are looked for under all ids of a profile; it serves whoever reads the store
directly, and profiles that have merged more often than a look-up has ids. A worker moves what it has merged itself, a
little while later; what it had not come to when it ended is known by its stubs (``metadata.status`` is ``merged`` until
all is moved), which each worker looks for once, at its start. Two that move the same records do no harm: all is
compare-and-set.

Bounds: ``WAITING_MAX`` profiles wait, further ones for the next start; a step moves ``STEP`` records of a kind. A store
that can't rewrite events (``ports.store.Rewriting``) keeps theirs, and sessions alone are moved.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from typing import Any

import msgspec
import structlog
from msgspec import Struct

from tracardi_lite.clock import Clock
from tracardi_lite.errors import TryLater
from tracardi_lite.flush.retry import wait
from tracardi_lite.metrics import Metrics
from tracardi_lite.pipeline.merging import marks
from tracardi_lite.pipeline.values import parse_time
from tracardi_lite.ports.store import (
    EventWrite,
    Outcome,
    Query,
    Record,
    RecordWrite,
    Store,
    rewriting_of,
)
from tracardi_lite.query import Compare

log = structlog.get_logger(__name__)

WAITING_MAX = 10_000
STEP = 200
# Longer than a batch takes to store what it had under the old id, and than a search lags behind.
GRACE_S = 15.0
BETWEEN_STEPS_S = 0.2
STEPS_MAX = 10_000
"""Of one profile, in one go: a store whose search never sees the changes must not hold up the others."""
HOPS_MAX = 16

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(dict[str, Any]).decode


class _Event(Struct):
    id: str
    type: str
    metadata: dict[str, Any]
    source: dict[str, Any]
    session: dict[str, Any] | None = None


_decode_event = msgspec.json.Decoder(_Event).decode


class Repointer:
    """One per worker. ``add`` while it runs or before; ``run`` until the stop event."""

    def __init__(self, store: Store, clock: Clock, metrics: Metrics) -> None:
        self._store = store
        self._clock = clock
        self._metrics = metrics
        self._waiting: OrderedDict[str, float] = OrderedDict()
        self._woken = asyncio.Event()

    def __len__(self) -> int:
        """How many profiles wait."""
        return len(self._waiting)

    def add(self, loser: str) -> None:
        """A profile that has just become part of another."""
        if len(self._waiting) < WAITING_MAX:
            self._waiting.setdefault(loser, self._clock.monotonic() + GRACE_S)
            self._woken.set()

    async def run(self, stop: asyncio.Event) -> None:
        """Ends soon after ``stop`` is set, in the middle of whatever."""
        stopping = asyncio.create_task(stop.wait())
        try:
            while not stop.is_set():
                try:
                    await self.resume()
                    break
                except TryLater:
                    await wait(stop, self._clock, GRACE_S)
            while not stop.is_set():
                if not self._waiting:
                    self._woken.clear()
                    waking = asyncio.create_task(self._woken.wait())
                    await asyncio.wait({waking, stopping}, return_when=asyncio.FIRST_COMPLETED)
                    waking.cancel()
                    continue
                loser, due = next(iter(self._waiting.items()))
                await wait(stop, self._clock, due - self._clock.monotonic())
                if stop.is_set():
                    break
                del self._waiting[loser]
                try:
                    await self.move(loser, stop)
                except TryLater as error:
                    log.warning("moving_put_off", profile=loser, reason=str(error))
                    self.add(loser)
                except Exception:
                    # A bug; nothing depends on these records, and everything on this process.
                    log.exception("moving_failed", profile=loser)
        finally:
            stopping.cancel()

    async def resume(self) -> None:
        """Find what workers before this one have left."""
        where = Compare("metadata.status", "=", marks.MERGED)
        page = await self._store.search("profile", Query(where=where, limit=1000))
        for doc in page.result:
            self.add(_decode(doc)["id"])

    async def move(self, loser: str, stop: asyncio.Event | None = None) -> int:
        """Move all of one profile's records; how many were moved. Does nothing for a profile that is no stub."""
        record = await self._store.find("profile", loser)
        into = marks.into(_decode(record.doc)) if record is not None else None
        if record is None or into is None or not into.stub:
            return 0
        survivor = await self._survivor(into.id)
        moved = 0
        for _ in range(STEPS_MAX):
            events, sessions = await self._events(loser, survivor), await self._sessions(loser, survivor)
            moved += events + sessions
            if not events + sessions:
                await self._done(record)
                break
            # There may be more than a step's; what was changed must not be found again.
            await self._store.refresh()
            if stop is not None and await wait(stop, self._clock, BETWEEN_STEPS_S):
                break
        self._metrics.records_moved.add(moved)
        return moved

    async def _survivor(self, id: str) -> str:
        for _ in range(HOPS_MAX):
            [entry] = await self._store.lookup([f"p:{id}"])
            if entry is None or entry.target == id:
                return id
            id = entry.target
        raise ValueError("aliases form a circle")

    async def _events(self, loser: str, survivor: str) -> int:
        rewriting = rewriting_of(self._store)
        if rewriting is None:
            return 0
        page = await self._store.search("event", Query(where=Compare("profile.id", "=", loser), limit=STEP))
        writes = []
        for doc in page.result:
            write = await self._event(doc, loser, survivor)
            if write is not None:
                writes.append(write)
        verdicts = await rewriting.rewrite_events(writes) if writes else []
        return sum(verdict.outcome is Outcome.STORED for verdict in verdicts)

    async def _event(self, doc: bytes, loser: str, survivor: str) -> EventWrite | None:
        event = _decode_event(doc)
        record = await self._store.find("event", event.id)
        if record is None:
            return None
        changed = renamed(bytes(record.doc), loser, survivor)
        if changed is None:
            return None
        return EventWrite(
            id=event.id,
            partition=record.partition,
            doc=changed,
            message=event.metadata["aux"].get("message", ""),
            type=event.type,
            source=event.source["id"],
            session=event.session["id"] if event.session else None,
            profile=survivor,
            insert_ms=parse_time(event.metadata["time"]["insert"]) or 0,
        )

    async def _sessions(self, loser: str, survivor: str) -> int:
        page = await self._store.search("session", Query(where=Compare("profile.id", "=", loser), limit=STEP))
        ids = [_decode(doc)["id"] for doc in page.result]
        entries = await self._store.lookup([f"s:{id}" for id in ids]) if ids else []
        places = [(id, entry.partition) for id, entry in zip(ids, entries, strict=True) if entry is not None]
        records = await self._store.get("session", places) if places else []
        writes = []
        for record in records:
            doc = None if record is None else _decode(record.doc)
            if record is None or doc is None or (doc.get("profile") or {}).get("id") != loser:
                continue
            doc["profile"] = {**doc["profile"], "id": survivor}
            update_ms = parse_time(doc["metadata"]["time"]["update"]) or 0
            writes.append(
                RecordWrite(
                    "session", record.id, record.partition, _encode(doc), record.version, update_ms, profile=survivor
                )
            )
        verdicts = await self._store.put(writes) if writes else []
        return sum(verdict.outcome is Outcome.STORED for verdict in verdicts)

    async def _done(self, record: Record) -> None:
        doc = _decode(record.doc)
        doc["metadata"]["status"] = marks.MOVED
        update_ms = parse_time(doc["metadata"]["time"]["update"]) or 0
        # On a conflict another worker has said so.
        await self._store.put(
            [RecordWrite("profile", record.id, record.partition, _encode(doc), record.version, update_ms)]
        )


def renamed(event: bytes, loser: str, survivor: str) -> bytes | None:
    """The event's record with another profile's id, every other byte as it was; None if it is not the loser's.

    ``profile`` stands before anything of the client's own (``pipeline.events``), and what looks like it inside of a
    string has its quotation marks escaped.
    """
    own = b'"profile":{"id":' + _encode(loser)
    if own not in event:
        return None
    return event.replace(own, b'"profile":{"id":' + _encode(survivor), 1)
