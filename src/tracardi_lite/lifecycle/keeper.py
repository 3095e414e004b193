"""The workers' scheduled pass over the store's partitions: whoever has the lease does what is due.

A step that fails is logged and tried again by the next pass; a partition is dropped only after a good snapshot, where
snapshots are asked for and the store makes them. Moves are remembered by the process that did them, so that they are
done once and again only after a change of leader: repeating one changes nothing.
"""

from __future__ import annotations

import asyncio

import structlog

from tracardi_lite.clock import Clock
from tracardi_lite.errors import BadInput, TracardiLiteError, TryLater
from tracardi_lite.lifecycle.lease import Lease
from tracardi_lite.lifecycle.plan import Step, due
from tracardi_lite.ports.store import Lifecycle, Store, lifecycle_of
from tracardi_lite.settings import Settings

log = structlog.get_logger(__name__)

FIRST_AFTER_S = 10.0
"""A process that has just started has better things to do."""
LEASE_PASSES = 3
"""A leader that misses so many passes has lost the lease."""


class Keeper:
    def __init__(self, store: Store, settings: Settings, clock: Clock, holder: str) -> None:
        self._store = store
        self._lifecycle: Lifecycle | None = lifecycle_of(store)
        self._settings = settings
        self._clock = clock
        ttl_s = settings.retention_every * LEASE_PASSES
        self._lease = Lease(store, clock, "lifecycle", holder, ttl_s)
        self._moved: set[Step] = set()

    async def run(self, stop: asyncio.Event) -> None:
        """Until ``stop``; a step that is under way is left to the store."""
        if not self._settings.retention_every:
            await stop.wait()
            return
        passes = asyncio.create_task(self._passes())
        stopping = asyncio.create_task(stop.wait())
        try:
            await asyncio.wait({passes, stopping}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            stopping.cancel()
            passes.cancel()
            await asyncio.gather(passes, stopping, return_exceptions=True)
        if not passes.cancelled():
            passes.result()
        try:
            await self._lease.give_back()
        except TryLater as error:
            log.info("lease_not_given_back", reason=str(error))

    async def _passes(self) -> None:
        await self._clock.sleep(min(FIRST_AFTER_S, self._settings.retention_every))
        while True:
            await self.once()
            await self._clock.sleep(self._settings.retention_every)

    async def once(self) -> list[Step]:
        """One pass; the steps that were done, none where another process leads or the store is away."""
        done: list[Step] = []
        try:
            if not await self._lease.take():
                self._moved.clear()
                return done
            partitions = await self._store.partitions()
            there = {(info.kind, info.name) for info in partitions}
            self._moved = {step for step in self._moved if (step.kind, step.name) in there}
            for step in due(self._settings, partitions, self._clock.now_ms()):
                if step in self._moved or (step.act == "move" and self._lifecycle is None):
                    continue
                if not await self._lease.take():
                    break
                if await self._do(step):
                    done.append(step)
        except TryLater as error:
            log.warning("lifecycle_put_off", reason=str(error))
        return done

    async def _do(self, step: Step) -> bool:
        try:
            if step.act == "create":
                await self._store.create_partition(step.kind, step.name)
            elif step.act == "move":
                await self._move(step)
                self._moved.add(step)
            elif not await self._drop(step):
                return False
        except TracardiLiteError as error:
            log.error("lifecycle_step_failed", act=step.act, kind=step.kind, partition=step.name, reason=str(error))
            return False
        log.info("lifecycle_step", act=step.act, kind=step.kind, partition=step.name, tier=step.tier)
        return True

    async def _move(self, step: Step) -> None:
        assert self._lifecycle is not None
        settings = self._settings
        # Others than events are written to for ever.
        finished = step.kind == "event"
        await self._lifecycle.move(
            step.kind,
            step.name,
            step.tier,
            read_only=settings.retention_read_only and finished,
            merge=settings.retention_merge and finished,
            replicas=None if settings.retention_replicas < 0 else settings.retention_replicas,
        )

    async def _drop(self, step: Step) -> bool:
        if self._settings.retention_snapshot and self._lifecycle is not None:
            kept = [
                snapshot
                for snapshot in await self._lifecycle.snapshots()
                if (snapshot.kind, snapshot.partition, snapshot.state) == (step.kind, step.name, "success")
            ]
            # One that was made while the partition still took writes may lack some of them.
            if step.kind != "event" or not kept:
                made = await self._lifecycle.snapshot(step.kind, step.name)
                if made.state != "success":
                    raise BadInput(422, f"the snapshot {made.name} is {made.state}: the partition is kept")
        return await self._store.drop_partition(step.kind, step.name)
