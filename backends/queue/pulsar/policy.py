"""What the queue needs to be there in Pulsar, and how long Pulsar keeps things: compared, and made so.

Nothing is ever removed or made smaller here; what can't be changed later (the number of partitions, once there is
data) is left as it is and said. Defaults are Tracardi's: retention of 30 days and 1 GB.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tracardi_lite.backends.queue.pulsar.admin import Admin, topic_path
from tracardi_lite.backends.queue.pulsar.names import Names
from tracardi_lite.ports.queue import SUBSCRIPTION
from tracardi_lite.settings import Settings

COMPACTION_BYTES = 16 << 20
"""Journal and dead letters are compacted when this much has been written since the last time."""


async def provision(admin: Admin, names: Names, settings: Settings, *, dry_run: bool = False) -> list[str]:
    """Make what is missing, set what differs; a line for each ([] when all is as it should be). Idempotent."""
    return await _Provision(admin, names, settings, dry_run).run()


async def policy(admin: Admin, names: Names) -> list[tuple[str, str]]:
    """The namespace's policy as it is, whoever set it; "not set" where the broker's own default holds."""
    path = f"namespaces/{names.tenant}/{names.namespace}"
    rows = []
    for what in ("retention", "messageTTL", "offloadThreshold", "offloadDeletionLagMs"):
        found = await admin.get(f"{path}/{what}")
        shown = ", ".join(f"{key} {value}" for key, value in found.items()) if isinstance(found, dict) else found
        rows.append((what, "not set" if shown is None else str(shown)))
    return rows


def moved(stats: Mapping[str, Any]) -> list[tuple[str, str]]:
    """How much of each partition is in cold storage."""
    return [
        (name, f"{int(state.get('offloadedStorageSize', 0))} of {int(state.get('storageSize', 0))} bytes offloaded")
        for name, state in sorted(stats.items())
    ]


class _Provision:
    def __init__(self, admin: Admin, names: Names, settings: Settings, dry_run: bool) -> None:
        self._admin = admin
        self._names = names
        self._settings = settings
        self._dry_run = dry_run
        self._lines: list[str] = []

    async def run(self) -> list[str]:
        new = await self._tenant()
        new = await self._namespace(new)
        await self._namespace_policy(new)
        await self._topics(new)
        return self._lines

    async def _tenant(self) -> bool:
        tenant = self._names.tenant
        if await self._admin.get(f"tenants/{tenant}") is not None:
            return False
        self._lines.append(f"create tenant {tenant} on cluster {self._settings.pulsar_cluster}")
        if not self._dry_run:
            await self._admin.put(f"tenants/{tenant}", {"allowedClusters": [self._settings.pulsar_cluster]})
        return True

    async def _namespace(self, new: bool) -> bool:
        path = f"{self._names.tenant}/{self._names.namespace}"
        known = [] if new else await self._admin.get(f"namespaces/{self._names.tenant}") or []
        if path in known:
            return False
        self._lines.append(f"create namespace {path}")
        if not self._dry_run:
            await self._admin.put(f"namespaces/{path}")
        return True

    async def _namespace_policy(self, new: bool) -> None:
        settings = self._settings
        path = f"namespaces/{self._names.tenant}/{self._names.namespace}"
        retention = {
            "retentionTimeInMinutes": settings.queue_retention // 60,
            "retentionSizeInMB": settings.queue_retention_bytes >> 20,
        }
        await self._set(f"{path}/retention", retention, new)
        await self._set(f"{path}/messageTTL", settings.pulsar_message_ttl, new)
        await self._set(f"{path}/offloadThreshold", settings.pulsar_offload_threshold, new, method="put")
        await self._set(f"{path}/offloadDeletionLagMs", settings.pulsar_offload_deletion_lag * 1000, new, method="put")

    async def _topics(self, new: bool) -> None:
        names, wanted = self._names, self._settings.queue_partitions
        topic = topic_path(names.topic)
        found = None if new else await self._admin.get(f"{topic}/partitions")
        partitions = int((found or {}).get("partitions", 0))
        if not partitions:
            self._lines.append(f"create topic {names.topic} with {wanted} partitions")
            if not self._dry_run:
                await self._admin.put(f"{topic}/partitions", wanted)
        elif partitions != wanted:
            self._lines.append(
                f"keep {partitions} partitions of {names.topic}: changing them to {wanted} would move profiles"
            )
        await self._subscription(topic, missing=not partitions)
        for side in (names.journal, names.dead):
            await self._side_topic(side, new)

    async def _subscription(self, topic: str, missing: bool) -> None:
        partitions = [] if missing else [f"{topic}-partition-0"]
        for partition in partitions:
            if SUBSCRIPTION in (await self._admin.get(f"{partition}/subscriptions") or []):
                return
        self._lines.append(f"create subscription {SUBSCRIPTION}")
        if not self._dry_run:
            earliest = {"ledgerId": -1, "entryId": -1, "partitionIndex": -1}
            await self._admin.put(f"{topic}/subscription/{SUBSCRIPTION}", earliest)

    async def _side_topic(self, name: str, new: bool) -> None:
        topic = topic_path(name)
        namespace = f"persistent/{self._names.tenant}/{self._names.namespace}"
        missing = new or name not in (await self._admin.get(namespace) or [])
        if missing:
            self._lines.append(f"create topic {name}")
            if not self._dry_run:
                await self._admin.put(topic)
        # Compacted: the last record of each key stays for ever, what it replaced goes.
        await self._set(f"{topic}/compactionThreshold", COMPACTION_BYTES, missing)
        await self._set(f"{topic}/messageTTL", 0, missing, query="?messageTTL=0")

    async def _set(self, path: str, wanted: Any, new: bool, *, method: str = "post", query: str = "") -> None:
        found = None if new else await self._admin.get(path)
        if found == wanted:
            return
        what = path.partition("/")[2]
        self._lines.append(f"set {what} to {wanted}" + ("" if found is None else f" (was {found})"))
        if self._dry_run:
            return
        if method == "put":
            await self._admin.put(path, wanted)
        else:
            await self._admin.post(path + query, None if query else wanted)
