"""Whether a write would most likely succeed now: asked by health checks, from the cluster's own state."""

from __future__ import annotations

from urllib.parse import quote

import msgspec
from msgspec import Struct

from tracardi_lite.backends.store.elasticsearch.connection import Connection
from tracardi_lite.backends.store.elasticsearch.names import Names
from tracardi_lite.errors import Full, Unavailable

_FLOOD_STAGE = "12"
"""The block "read-only / allow delete", which Elasticsearch sets on every index of a node whose disk is nearly full."""
_RETRY_AFTER_S = 10.0


class _Block(Struct):
    description: str = ""
    levels: list[str] = []


class _Blocks(Struct):
    everywhere: dict[str, _Block] = msgspec.field(name="global", default_factory=dict)
    indices: dict[str, dict[str, _Block]] = {}


class _State(Struct):
    blocks: _Blocks = msgspec.field(default_factory=_Blocks)


class _Directory(Struct):
    status: str = "green"


async def check(connection: Connection, names: Names) -> None:
    """Raise ``Full`` for a disk at its flood stage, ``Unavailable`` for a cluster that takes no writes."""
    everything = quote(f"{names.base('')}*")
    state = await connection.ask(_State, "GET", f"/_cluster/state/blocks/{everything}?ignore_unavailable=true")
    for block in state.blocks.everywhere.values():
        if "write" in block.levels:
            raise Unavailable("store", f"Elasticsearch takes no writes: {block.description}", _RETRY_AFTER_S)
    for index, blocks in state.blocks.indices.items():
        if _FLOOD_STAGE in blocks:
            raise Full("store", f"Elasticsearch's disk is full: {index} is read-only", _RETRY_AFTER_S)
    # Every message needs the directory; partitions show their trouble as verdicts.
    target = f"/_cluster/health/{quote(names.directory)}*?level=cluster&timeout=1s"
    health = await connection.ask(_Directory, "GET", target, missing=_Directory())
    if health.status == "red":
        raise Unavailable("store", "Elasticsearch lacks a primary shard of the directory")
