"""Partitions that age: tiers, read-only, merging, snapshots and back (``ports.store.Lifecycle``).

Plain index APIs only. Partitions are named by time, so nobody has to roll anything over, and the policy is the
caller's; clusters without ILM and SLM do. Long work is started and looked at again with growing pauses, at most
``_WAIT_MAX_S``; after that it goes on in the cluster.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Literal
from urllib.parse import quote, urlsplit

from msgspec import Struct

from tracardi_lite import partitioning
from tracardi_lite.backends.store.elasticsearch.connection import Connection
from tracardi_lite.backends.store.elasticsearch.indices import Indices
from tracardi_lite.backends.store.elasticsearch.names import Names
from tracardi_lite.clock import Clock
from tracardi_lite.errors import BadInput, Misconfigured, Unavailable
from tracardi_lite.ports.store import KINDS, Kind, Snapshot, Tier
from tracardi_lite.settings import Settings

_WAIT_MAX_S = 4 * 3600.0
_VERIFY_MAX_S = 60.0
"""Elasticsearch lets every node write to a new place before it takes it."""
_PAUSE_S = 0.1
_PAUSE_MAX_S = 10.0

_TIERS: dict[Tier, str] = {
    "hot": "data_hot",
    "warm": "data_warm,data_hot",
    "cold": "data_cold,data_warm,data_hot",
}
"""Preferences: the next best where a cluster lacks a tier."""

_PLACE = re.compile(r"fs:.+|s3://[a-z0-9.-]+(/.*)?")

_STATES: dict[str, Literal["success", "partial", "failed", "running"]] = {
    "SUCCESS": "success",
    "PARTIAL": "partial",
    "IN_PROGRESS": "running",
}


class _Snapshot(Struct):
    snapshot: str
    state: str
    indices: list[str] = []
    start_time_in_millis: int = 0


class _Snapshots(Struct):
    snapshots: list[_Snapshot] = []


class _Repository(Struct):
    """A place as Elasticsearch knows it: https://www.elastic.co/docs/deploy-manage/tools/snapshot-and-restore."""

    type: str
    settings: dict[str, str]

    def holds(self, wanted: _Repository) -> bool:
        """Whether it is that place, whatever else is set for it."""
        return self.type == wanted.type and wanted.settings.items() <= ({"base_path": ""} | self.settings).items()

    def __str__(self) -> str:
        if self.type == "s3":
            return "/".join(filter(None, (f"s3://{self.settings.get('bucket')}", self.settings.get("base_path"))))
        return f"{self.type}:{self.settings.get('location', '')}"


class _Shards(Struct):
    status: str = "yellow"
    number_of_shards: int = 1
    active_primary_shards: int = 0


class _Health(Struct):
    indices: dict[str, _Shards] = {}


def _repository(place: str) -> _Repository:
    where = urlsplit(place)
    if where.scheme == "s3":
        return _Repository("s3", {"bucket": where.netloc, "base_path": where.path.strip("/")})
    return _Repository("fs", {"location": place.removeprefix("fs:")})


class IndexLifecycle:
    def __init__(
        self, connection: Connection, names: Names, indices: Indices, settings: Settings, clock: Clock
    ) -> None:
        self._connection = connection
        self._names = names
        self._indices = indices
        self._place = settings.elastic_snapshots
        if self._place and not _PLACE.fullmatch(self._place):
            raise Misconfigured("elastic_snapshots", "not a place.", "Write fs:/a/folder or s3://bucket/path.")
        self._clock = clock
        self._repository = f"tracardi-lite-{settings.tenant_name}"
        self._has_repository = False

    async def move(
        self,
        kind: Kind,
        name: str,
        tier: Tier,
        *,
        read_only: bool = False,
        merge: bool = False,
        replicas: int | None = None,
    ) -> bool:
        if read_only and kind != "event":
            raise BadInput(422, f"{kind} records are written to for ever: only partitions of events can be read-only")
        index = self._index(kind, name)
        if not await self._is_there(index):
            return False
        if read_only:
            # This call also waits for the writes that are under way, which setting the block by itself does not.
            await self._connection.do("PUT", f"/{quote(index)}/_block/write")
        else:
            await self._set(index, {"index.blocks.write": None})
        if merge:
            target = f"/{quote(index)}/_forcemerge?max_num_segments=1"
            await self._connection.do("POST", target, timeout_s=_WAIT_MAX_S)
        change: dict[str, object] = {"index.routing.allocation.include._tier_preference": _TIERS[tier]}
        if replicas is not None:
            change["index.number_of_replicas"] = replicas
        await self._set(index, change)
        return True

    async def snapshot(self, kind: Kind, name: str) -> Snapshot:
        index = self._index(kind, name)
        if not await self._is_there(index):
            raise BadInput(404, f"there is no partition {name} of {kind}")
        await self._ensure_repository()
        at = datetime.fromtimestamp(self._clock.now_ms() / 1000, UTC)
        target = f"{self._path()}/{quote(index)}-{at:%Y%m%d%H%M%S%f}"
        await self._connection.do("PUT", target, {"indices": index, "include_global_state": False})
        async for _ in self._pauses():
            found = await self._connection.ask(_Snapshots, "GET", target)
            made = [each for each in map(self._snapshot, found.snapshots) if each is not None]
            if made and made[0].state != "running":
                return made[0]
        raise Unavailable("store", f"the snapshot of {index} takes longer than {_WAIT_MAX_S:g} s")

    async def restore(self, kind: Kind, name: str, snapshot: str = "") -> bool:
        index = self._index(kind, name)
        if await self._is_there(index):
            return False
        ours = [each for each in await self.snapshots() if (each.kind, each.partition) == (kind, name)]
        named = [each.name for each in ours if each.name == snapshot or (not snapshot and each.state == "success")]
        if not named:
            raise BadInput(404, f"there is no snapshot of {kind} {name}" + (f" called {snapshot}" if snapshot else ""))
        body = {"indices": index, "include_global_state": False, "include_aliases": True}
        await self._connection.do("POST", f"{self._path()}/{quote(named[-1])}/_restore", body)
        self._indices.forget(index)  # the next write looks at what came back: alias, mapping
        async for _ in self._pauses():
            target = f"/_cluster/health/{quote(index)}?level=indices&timeout=0s"
            health = await self._connection.ask(_Health, "GET", target, missing=_Health())
            shards = health.indices.get(index, _Shards())
            if shards.active_primary_shards == shards.number_of_shards:
                return True
            # A shard that is on its way from a snapshot is yellow; red is one that could not be taken from there.
            if shards.status == "red":
                raise Unavailable("store", f"Elasticsearch can't restore {index} from {named[-1]}")
        raise Unavailable("store", f"restoring {index} takes longer than {_WAIT_MAX_S:g} s")

    async def snapshots(self) -> list[Snapshot]:
        await self._ensure_repository()
        found = await self._connection.ask(_Snapshots, "GET", f"{self._path()}/_all")
        ours = [each for each in map(self._snapshot, found.snapshots) if each is not None]
        return sorted(ours, key=lambda each: (each.started_ms, each.name))

    async def drop_snapshot(self, snapshot: str) -> bool:
        if snapshot not in [each.name for each in await self.snapshots()]:
            return False
        target = f"{self._path()}/{quote(snapshot, safe='')}"
        answer = await self._connection.do("DELETE", target, fine=(404,), timeout_s=_WAIT_MAX_S)
        return answer.status != 404

    def _index(self, kind: Kind, name: str) -> str:
        if not partitioning.is_name(name):
            raise BadInput(422, f"not a partition's name: {name[:100]!r}")
        return self._names.index(kind, name)

    async def _is_there(self, index: str) -> bool:
        return (await self._connection.do("HEAD", f"/{quote(index)}", fine=(404,))).status != 404

    async def _set(self, index: str, change: dict[str, object]) -> None:
        await self._connection.do("PUT", f"/{quote(index)}/_settings", change)

    async def missing_repository(self) -> str:
        """Where snapshots should go, and where they went, if the cluster's repository of ours is not there; else ""."""
        if not self._place:
            return ""
        found = await self._repository_there()
        if found is None:
            return self._place
        return "" if found.holds(_repository(self._place)) else f"{self._place} (was {found})"

    async def make_repository(self) -> None:
        """Name the place to the cluster. ``BadInput`` 422 where it can't be used."""
        await self._ensure_repository()

    async def _ensure_repository(self) -> None:
        if self._has_repository:
            return
        if not self._place:
            raise BadInput(422, "there is no place for snapshots: set elastic_snapshots")
        wanted, found = _repository(self._place), await self._repository_there()
        # One that fits is left alone: an operator may have given it more settings, such as another client of S3.
        if found is None or not found.holds(wanted):
            answer = await self._connection.do(
                "PUT", self._path(), wanted, fine=(400, 404, 500), timeout_s=_VERIFY_MAX_S
            )
            if answer.status >= 300:
                raise BadInput(422, f"the nodes can't use {self._place} for snapshots: {answer.cause}")
        self._has_repository = True

    async def _repository_there(self) -> _Repository | None:
        found = await self._connection.ask(dict[str, _Repository], "GET", self._path(), missing={})
        return next(iter(found.values()), None)

    def _path(self) -> str:
        return f"/_snapshot/{quote(self._repository)}"

    def _snapshot(self, found: _Snapshot) -> Snapshot | None:
        """None for one that we have not made: of several indices, or of none of ours."""
        if len(found.indices) != 1:
            return None
        for kind in KINDS:
            if partition := self._names.partition(kind, found.indices[0]):
                state = _STATES.get(found.state, "failed")
                return Snapshot(found.snapshot, kind, partition, state, found.start_time_in_millis)
        return None

    async def _pauses(self) -> AsyncIterator[None]:
        """Look now, and again after growing pauses, until the time is up."""
        pause_s, end_s = _PAUSE_S, self._clock.monotonic() + _WAIT_MAX_S
        while self._clock.monotonic() < end_s:
            yield
            await self._clock.sleep(pause_s)
            pause_s = min(_PAUSE_MAX_S, pause_s * 1.5)
