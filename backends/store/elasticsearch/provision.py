"""Ahead of serving: templates, today's partitions, the snapshot repository, as the settings say; compared, then made.

The store would make most of it by itself at the first write. Made beforehand, it can be looked at, and a number of
shards that does not fit what is there is refused while nobody waits: an index keeps the number it was made with.
"""

from __future__ import annotations

from urllib.parse import quote

from msgspec import Struct, field

from tracardi_lite import partitioning
from tracardi_lite.backends.store.elasticsearch.connection import Connection
from tracardi_lite.backends.store.elasticsearch.indices import Indices
from tracardi_lite.backends.store.elasticsearch.lifecycle import IndexLifecycle
from tracardi_lite.backends.store.elasticsearch.names import DIRECTORY, Names
from tracardi_lite.clock import Clock
from tracardi_lite.errors import Misconfigured
from tracardi_lite.ports.store import KINDS
from tracardi_lite.settings import Settings


class _Shards(Struct):
    number_of_shards: str = "1"
    """A text, as all settings in Elasticsearch's answers."""


class _Index(Struct):
    index: _Shards = field(default_factory=_Shards)


class _Settings(Struct):
    settings: _Index = field(default_factory=_Index)


class Provision:
    def __init__(
        self,
        connection: Connection,
        names: Names,
        indices: Indices,
        lifecycle: IndexLifecycle,
        settings: Settings,
        clock: Clock,
    ) -> None:
        self._connection = connection
        self._names = names
        self._indices = indices
        self._lifecycle = lifecycle
        self._settings = settings
        self._clock = clock

    async def run(self, dry_run: bool) -> list[str]:
        """One line per change; ``Misconfigured`` before anything is changed."""
        lines: list[str] = []
        missing: list[tuple[str, str]] = []
        for kind, partition in self._first():
            if await self._is_missing(kind, partition):
                missing.append((kind, partition))
        for kind in (*KINDS, DIRECTORY):
            if await self._indices.outdated_template(kind) is not None:
                lines.append(f"put index template {self._names.template(kind)}")
                if not dry_run:
                    await self._indices.guard(kind)
        for kind, partition in missing:
            lines.append(f"create index {self._index(kind, partition)}")
            if not dry_run:
                await self._indices.ensure(kind, partition)
        if place := await self._lifecycle.missing_repository():
            lines.append(f"register {place} for snapshots")
            if not dry_run:
                await self._lifecycle.make_repository()
        return lines

    def _first(self) -> list[tuple[str, str]]:
        """The partitions of now, and the directory."""
        now_ms = self._clock.now_ms()
        first = []
        for kind in KINDS:
            period = getattr(self._settings, f"{kind}_partitioning")
            first.append((kind, partitioning.partition_of(period, now_ms)))
        return [*first, (DIRECTORY, "")]

    def _index(self, kind: str, partition: str) -> str:
        return self._names.directory if kind == DIRECTORY else self._names.index(kind, partition)

    async def _is_missing(self, kind: str, partition: str) -> bool:
        index = self._index(kind, partition)
        target = f"/{quote(index)}/_settings?filter_path=*.settings.index.number_of_shards"
        found = await self._connection.ask(dict[str, _Settings], "GET", target, missing={})
        for there in found.values():
            shards = int(there.settings.index.number_of_shards)
            wanted = self._settings.elastic_index_shards
            if kind != DIRECTORY and shards != wanted:
                raise Misconfigured(
                    "elastic_index_shards",
                    f"is {wanted}, but {index} was made with {shards}, and an index keeps its number.",
                    f"Set it to {shards}; servers that run with {wanted} use it for the partitions they make.",
                )
        return not found
