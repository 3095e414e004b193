"""The port's queue on Apache Pulsar; see docs/pulsar.md for what it promises and how."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Self

import msgspec
import structlog

from tracardi_lite import tls
from tracardi_lite.backends.queue.pulsar import counts as arithmetic
from tracardi_lite.backends.queue.pulsar import reach, seek
from tracardi_lite.backends.queue.pulsar.admin import Admin, topic_path
from tracardi_lite.backends.queue.pulsar.bridge import Bridge
from tracardi_lite.backends.queue.pulsar.client import Blocking, partitions_of
from tracardi_lite.backends.queue.pulsar.consumer import PulsarConsumer
from tracardi_lite.backends.queue.pulsar.counts import Amount, Counts
from tracardi_lite.backends.queue.pulsar.ledger import REPORT_S, Ledger
from tracardi_lite.backends.queue.pulsar.letters import Letters
from tracardi_lite.backends.queue.pulsar.names import Names
from tracardi_lite.backends.queue.pulsar.policy import moved, policy, provision
from tracardi_lite.backends.queue.pulsar.publisher import Publisher
from tracardi_lite.backends.queue.pulsar.room import Room
from tracardi_lite.backends.queue.pulsar.scan import Scan
from tracardi_lite.backends.queue.pulsar.sender import Sender
from tracardi_lite.backends.queue.pulsar.wire.brokers import Brokers
from tracardi_lite.clock import Clock
from tracardi_lite.errors import TryLater, Unavailable, Untrusted
from tracardi_lite.ports.queue import (
    SUBSCRIPTION,
    DeadLetter,
    PartitionBacklog,
    Posted,
    Publication,
    Totals,
    wait_posted,
)
from tracardi_lite.settings import Settings

log = structlog.get_logger(__name__)

WATCH_S = 0.25
ROOM_S = 10.0
ROOM_SCARCE_S = 0.5
"""How often the broker is asked for the size of the backlog, and how often when it is near its bound."""
ACK_GROUPING_S = 0.15
"""The client sends acknowledgements in groups, 0.1 s apart."""
SILENT_MS = 60_000
"""A process that has written nothing for so long is over: twelve heartbeats."""


class PulsarQueue:
    def __init__(self, service_url: str, admin_url: str, names: Names, settings: Settings, clock: Clock) -> None:
        self._service_url = service_url
        self._names = names
        self._settings = settings
        self._clock = clock
        self.admin = Admin(admin_url, settings)
        self._tls = tls.context(settings, "pulsar") if service_url.startswith("pulsar+ssl:") else None
        self._consumers: set[PulsarConsumer] = set()
        self._senders: list[Sender] = []
        self._room = Room(settings.queue_bytes_max)
        self._tasks: list[asyncio.Task[None]] = []
        self._open = False
        self._blocking: Blocking
        self._brokers: Brokers
        self._bridge: Bridge
        self._ledger: Ledger
        self._letters: Letters
        self._publisher: Publisher
        self._scan: Scan

    async def __aenter__(self) -> Self:
        await reach.check(self._service_url, self._tls)
        self._bridge = Bridge()
        self._blocking = Blocking(self._service_url, self._settings)
        self._brokers = Brokers(self._service_url, self._settings.pulsar_auth_token, self._tls)
        try:
            await self._connect()
        except BaseException:
            await asyncio.shield(self._disconnect())
            raise
        self._open = True
        self._tasks = [asyncio.create_task(self._watch()), asyncio.create_task(self._report())]
        self._tasks.append(asyncio.create_task(self._keep_room()))
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for consumer in list(self._consumers):
            await consumer.close()
        self._open = False
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._ledger.close()
        await self._disconnect()

    async def _connect(self) -> None:
        names, blocking, brokers = self._names, self._blocking, self._brokers
        partitions = await self._partitions()
        journal = Sender(brokers, names.journal, batching=False)
        dead = Sender(brokers, names.dead, batching=False)
        mains = [Sender(brokers, names.partition(number), batching=True) for number in range(partitions)]
        self._senders = [*mains, journal, dead]
        await asyncio.gather(*(sender.open() for sender in self._senders))
        self._ledger = Ledger(blocking, journal, names.journal)
        self._letters = Letters(blocking, dead, names.dead)
        self._scan = Scan(blocking, names)
        self._publisher = Publisher(mains, self._ledger, self._settings.in_flight_max, self._room)
        self._ledger.unsure_s = self._publisher.unsure_s
        await self._ledger.open()

    async def _partitions(self) -> int:
        """How many there are; what is missing is made. A topic without partitions is not ours."""
        names = self._names
        found = await self._blocking.run(partitions_of, self._blocking.client, names.topic)
        try:
            for line in await self._missing(found):
                log.info("pulsar_provisioned", change=line)
        except Untrusted:
            raise
        except Unavailable as error:
            if found == [names.topic] or not found:
                raise
            log.warning("pulsar_not_checked", reason=error.reason)
            return len(found)
        found = await self._blocking.run(partitions_of, self._blocking.client, names.topic)
        return len(found)

    async def _missing(self, found: list[str]) -> list[str]:
        names = self._names
        there = [name for name in found if name != names.topic]
        if there:
            subscriptions = await self.admin.get(f"{topic_path(names.partition(0))}/subscriptions") or []
            if SUBSCRIPTION in subscriptions:
                return []
        return await self.provision()

    async def _disconnect(self) -> None:
        for sender in self._senders:
            await sender.close()
        await self._brokers.close()
        if hasattr(self, "_letters"):
            await self._letters.tail.close()
            await self._ledger.tail.close()
        await self._blocking.close()
        await self.admin.close()

    # --- the port ---
    async def publish(self, publication: Publication) -> None:
        await wait_posted(self.post, publication)

    def post(self, publication: Publication, done: Posted) -> None:
        self._check_open()
        self._publisher.post(publication, done)

    async def note_refused(self, counts: Mapping[str, int]) -> None:
        self._ledger.note_refused(counts)

    async def subscribe(self, subscription: str) -> PulsarConsumer:
        self._check_open()
        consumer = PulsarConsumer(
            self._blocking,
            self._bridge,
            self._names.topic,
            subscription,
            self._ledger,
            self._letters,
            self._clock,
            self._consumers.discard,
        )
        await consumer.join()
        self._consumers.add(consumer)
        return consumer

    async def backlog(self, *, rough: bool = False) -> list[PartitionBacklog]:
        """Messages of the workers' subscription, counted one by one; of others, as the broker counts (batches)."""
        waiting, _ = await self._pending(rough)
        stats = await self._stats(getEarliestTimeInBacklog="true")
        rows = []
        for number, amount in enumerate(waiting):
            name = self._names.partition(number)
            subscriptions = (stats.get(name) or {}).get("subscriptions", {})
            main = subscriptions.get(SUBSCRIPTION, {})
            rows.append(
                PartitionBacklog(
                    name, SUBSCRIPTION, amount.messages, amount.events, _oldest(main) if amount.messages else None
                )
            )
            for other, state in subscriptions.items():
                if other not in (SUBSCRIPTION, "__compaction"):
                    entries = int(state.get("msgBacklog", 0))
                    rows.append(PartitionBacklog(name, other, entries, entries, _oldest(state) if entries else None))
        return rows

    async def totals(self, *, rough: bool = False) -> Totals:
        waiting, processes = await self._pending(rough)
        await self._letters.tail.refresh()
        return arithmetic.totals(processes.values(), waiting, self._letters.events)

    async def seek(self, subscription: str, to_ms: int | None) -> int:
        """As the port says; a partition with anything pending from before ``to_ms`` stays where it is. Consumers of
        this process step out meanwhile, those of others learn of it when the first message comes again."""
        self._check_open()
        ours = [consumer for consumer in self._consumers if consumer.subscription == subscription]
        for consumer in ours:
            await consumer.leave()
        try:
            plans = await asyncio.gather(
                *(
                    seek.plan(self._blocking, self.admin, self._names.partition(number), number, subscription, to_ms)
                    for number in range(self._count)
                )
            )
            targets = [target for target in plans if target is not None]
            if targets:
                await self._ledger.begin_seek(subscription, {t.partition: t.again for t in targets})
                for target in targets:
                    await seek.reset(self.admin, self._names.partition(target.partition), subscription, target)
            return sum(target.again.events for target in targets)
        finally:
            for consumer in ours:
                await consumer.join()

    async def dead_letters(self, limit: int = 100, after: str = "") -> list[DeadLetter]:
        return await self._letters.page(limit, after)

    async def take_dead_letter(self, id: str, *, replay: Publication | None) -> bool:
        if not await self._letters.has(id):
            return False
        if replay is not None:
            await self.publish(msgspec.structs.replace(replay, replay=True))
        await self._letters.drop(id)
        return True

    async def maintain(self) -> None:
        """Learn the backlog's size, and enter what killed publishers left uncounted. Retention is the broker's."""
        await self._poll_room()
        if self._room.scarce:
            await asyncio.sleep(ACK_GROUPING_S)  # what was acknowledged just now is on its way
            await self._poll_room()
        await self._ledger.refresh()
        if over := self._ledger.silent(self._clock.now_ms() - SILENT_MS):
            for name, counts in (await self._completed(over)).items():
                await self._ledger.bury(name, counts)

    async def ping(self) -> None:
        self._check_open()
        for sender in self._senders:
            sender.check()
        self._publisher.check()

    # --- beyond the port ---
    async def provision(self, *, dry_run: bool = False) -> list[str]:
        """Make tenant, namespace, topics and policies as the settings say, see ``policy`` and ``ports.provision``."""
        try:
            return await provision(self.admin, self._names, self._settings, dry_run=dry_run)
        finally:
            if not self._open:
                await self.admin.close()  # it opens itself again when it is needed

    async def policy(self) -> list[tuple[str, str]]:
        """What the namespace keeps and moves, and how far it has moved; see ``ports.provision``."""
        try:
            stats = await self._stats()
            return await policy(self.admin, self._names) + moved(stats)
        finally:
            if not self._open:
                await self.admin.close()

    # --- inside ---
    @property
    def _count(self) -> int:
        return len(self._senders) - 2

    def _check_open(self) -> None:
        if not self._open:
            raise Unavailable("queue", "is closed")

    async def _pending(self, rough: bool) -> tuple[list[Amount], Mapping[str, Counts]]:
        self._check_open()
        await self._ledger.refresh()
        processes = self._ledger.processes()
        if not rough:
            processes |= await self._completed(self._ledger.unfinished())
        return arithmetic.pending(processes.values(), self._count), processes

    async def _completed(self, names: list[str]) -> dict[str, Counts]:
        return await self._scan.complete(self._ledger.processes(), names, self._ledger.journal.heard_ms)

    async def _stats(self, **query: str) -> dict[str, Any]:
        path = f"{topic_path(self._names.topic)}/partitioned-stats"
        stats = await self.admin.get(path, perPartition="true", getPreciseBacklog="true", **query)
        return dict((stats or {}).get("partitions", {}))

    async def _poll_room(self) -> None:
        self._room.polling()
        stats = await self._stats(subscriptionBacklogSize="true")
        self._room.polled(sum(int(state.get("backlogSize", 0)) for state in stats.values()))

    async def _watch(self) -> None:
        while True:
            for sender in self._senders:
                sender.watch()
            await asyncio.sleep(WATCH_S)

    async def _report(self) -> None:
        while True:
            await asyncio.sleep(REPORT_S)
            try:
                if self._publisher.uncertain:
                    await self._ledger.rotate()
                    self._publisher.uncertain = False
                await self._ledger.report_if_due()
            except TryLater as error:
                log.info("not_reported", reason=error.reason)

    async def _keep_room(self) -> None:
        while True:
            try:
                await self._poll_room()
            except TryLater as error:
                log.info("backlog_unknown", reason=error.reason)
            slept = 0.0
            while slept < (ROOM_SCARCE_S if self._room.scarce else ROOM_S):
                await asyncio.sleep(ROOM_SCARCE_S)
                slept += ROOM_SCARCE_S


def _oldest(state: Mapping[str, Any]) -> int | None:
    found = int(state.get("earliestMsgPublishTimeInBacklog", 0))
    return found if found > 0 else None
