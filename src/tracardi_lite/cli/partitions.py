"""``partitions``: the store's partitions by time, as the scheduled pass of the workers would handle them, by hand."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import get_args

import click

from tracardi_lite.cli import runtime, show
from tracardi_lite.cli.runtime import json_option, store_of, with_settings, yes_option
from tracardi_lite.partitioning import is_name, starts_ms
from tracardi_lite.ports.store import Kind, Lifecycle, PartitionInfo, Snapshot, Tier, lifecycle_of
from tracardi_lite.settings import Settings

kind_argument = click.argument("kind", type=click.Choice(get_args(Kind)))


@click.group()
def partitions() -> None:
    """The store's partitions by time: list, make, move, copy, drop and bring them back."""


@partitions.command("list")
@json_option
@with_settings
def list_partitions(settings: Settings, as_json: bool) -> None:
    """What each partition holds.

    \b
    Example:
      tracardi-lite partitions list
    """
    found = runtime.run(_partitions(settings))
    if as_json:
        show.as_json(found)
        return
    rows = [_partition_row(info) for info in found]
    show.table(("kind", "name", "records", "size", "first", "last"), rows, "No partitions yet.")


def _partition_row(info: PartitionInfo) -> tuple[object, ...]:
    first, last = show.moment(info.first_ms), show.moment(info.last_ms)
    return info.kind, info.name, info.records, show.volume(info.bytes), first, last


async def _partitions(settings: Settings) -> list[PartitionInfo]:
    async with store_of(settings) as store:
        return sorted(await store.partitions(), key=_by_kind_and_age)


def _by_kind_and_age(info: PartitionInfo) -> tuple[str, int, str]:
    """Oldest first; a store may hold names that are not ours."""
    try:
        return info.kind, starts_ms(info.name), info.name
    except ValueError:
        return info.kind, -1, info.name


@partitions.command("drop")
@kind_argument
@click.argument("name")
@yes_option
@with_settings
def drop_partition(settings: Settings, kind: Kind, name: str, yes: bool) -> None:
    """Remove a partition and every record in it, for good. Asks first.

    \b
    Examples:
      tracardi-lite partitions drop event 2025-3
      tracardi-lite partitions drop session 2025-q1 --yes
    """
    found = runtime.run(_partitions(settings))
    info = next((info for info in found if (info.kind, info.name) == (kind, name)), None)
    if info is None:
        there = ", ".join(info.name for info in found if info.kind == kind)
        raise click.ClickException(f"There is no {kind} partition {name}." + (f" There are: {there}." if there else ""))
    if not yes:
        click.confirm(f"Drop {kind} partition {name} with {info.records:,} records, for good?", abort=True)
    dropped = runtime.run(_drop(settings, kind, name))
    click.echo(f"Dropped {info.records:,} records." if dropped else "Somebody else has just dropped it.")


async def _drop(settings: Settings, kind: Kind, name: str) -> bool:
    async with store_of(settings) as store:
        return await store.drop_partition(kind, name)


@partitions.command("create")
@kind_argument
@click.argument("name")
@with_settings
def create_partition(settings: Settings, kind: Kind, name: str) -> None:
    """Make a partition before it is needed. Workers do so by themselves, two days ahead.

    \b
    Example:
      tracardi-lite partitions create event 2026-12
    """
    if not is_name(name):
        raise click.UsageError(f"{name} is no partition's name: 2026-year, 2026-q4, 2026-12 or 2026-1224.")
    made = runtime.run(_create(settings, kind, name))
    click.echo(f"Made {kind} partition {name}." if made else f"{kind} partition {name} is there.")


async def _create(settings: Settings, kind: Kind, name: str) -> bool:
    async with store_of(settings) as store:
        return await store.create_partition(kind, name)


@partitions.command("move")
@kind_argument
@click.argument("name")
@click.argument("tier", type=click.Choice(get_args(Tier)))
@click.option("--read-only", is_flag=True, help="No more writes; for events only.")
@click.option("--merge", is_flag=True, help="To one segment; takes a while, and reads less afterwards.")
@click.option("--replicas", type=click.IntRange(0, 20), help="Copies of each shard from now on.  [default: as before]")
@with_settings
def move_partition(
    settings: Settings, kind: Kind, name: str, tier: Tier, read_only: bool, merge: bool, replicas: int | None
) -> None:
    """Move a partition to nodes of a tier, or the nearest there are. Waits for merging, not for the moving itself.

    \b
    Examples:
      tracardi-lite partitions move event 2026-9 warm --read-only --merge
      tracardi-lite partitions move event 2026-9 hot
    """

    async def move() -> bool:
        async with _lifecycle(settings) as lifecycle:
            return await lifecycle.move(kind, name, tier, read_only=read_only, merge=merge, replicas=replicas)

    if not runtime.run(move()):
        raise click.ClickException(f"There is no {kind} partition {name}.")
    click.echo(f"{kind} partition {name} is to be on {tier} nodes.")


@partitions.command("snapshot")
@kind_argument
@click.argument("name")
@with_settings
def snapshot_partition(settings: Settings, kind: Kind, name: str) -> int:
    """Copy a partition to where ELASTIC_SNAPSHOTS says, and wait for the end. Exit code 1 unless all of it is there.

    \b
    Example:
      tracardi-lite partitions snapshot event 2026-9
    """

    async def make() -> Snapshot:
        async with _lifecycle(settings) as lifecycle:
            return await lifecycle.snapshot(kind, name)

    made = runtime.run(make())
    click.echo(f"{made.name}: {made.state}")
    return 0 if made.state == "success" else 1


@partitions.command("snapshots")
@json_option
@with_settings
def list_snapshots(settings: Settings, as_json: bool) -> None:
    """The copies that there are, oldest first.

    \b
    Example:
      tracardi-lite partitions snapshots
    """

    async def found() -> list[Snapshot]:
        async with _lifecycle(settings) as lifecycle:
            return await lifecycle.snapshots()

    snapshots = runtime.run(found())
    if as_json:
        show.as_json(snapshots)
        return
    rows = [(each.kind, each.partition, each.name, each.state, show.moment(each.started_ms)) for each in snapshots]
    show.table(("kind", "partition", "snapshot", "state", "started"), rows, "No snapshots yet.")


@partitions.command("restore")
@kind_argument
@click.argument("name")
@click.option("--snapshot", default="", help="Its name.  [default: the latest good one]")
@with_settings
def restore_partition(settings: Settings, kind: Kind, name: str, snapshot: str) -> None:
    """Bring a dropped partition back from a snapshot, and wait until it can be searched.

    \b
    Example:
      tracardi-lite partitions restore event 2026-9
    """

    async def restore() -> bool:
        async with _lifecycle(settings) as lifecycle:
            return await lifecycle.restore(kind, name, snapshot)

    if not runtime.run(restore()):
        raise click.ClickException(f"{kind} partition {name} is there: drop it first, or leave it.")
    click.echo(f"Restored {kind} partition {name}.")


@asynccontextmanager
async def _lifecycle(settings: Settings) -> AsyncIterator[Lifecycle]:
    async with store_of(settings) as store:
        lifecycle = lifecycle_of(store)
        if lifecycle is None:
            scheme = settings.store_url.partition(":")[0]
            raise click.ClickException(f"The store {scheme}: has no tiers and makes no snapshots; copy its files.")
        yield lifecycle
