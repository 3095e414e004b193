"""Partitions by age: what is due, who does it, and what a failing step leaves for the next pass."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tracardi_lite import partitioning
from tracardi_lite.backends.store.memory import open_store
from tracardi_lite.errors import Unavailable
from tracardi_lite.lifecycle.keeper import Keeper
from tracardi_lite.lifecycle.lease import Lease
from tracardi_lite.lifecycle.plan import LOOK_AHEAD_MS, Step, due
from tracardi_lite.ports.store import Kind, PartitionInfo, Snapshot, Store, Tier
from tracardi_lite.settings import Settings
from tracardi_lite.settings.checks import contradictions
from tracardi_lite.testing.clock import FakeClock, eventually

DAY_S = 86_400
NOW_MS = partitioning.starts_ms("2026-1115")
NOW = [("event", "2026-11"), ("profile", "2026-q4"), ("session", "2026-q4")]
POLICY = Settings(
    retention_event=90 * DAY_S,
    retention_session=365 * DAY_S,
    retention_warm_after=DAY_S,
    retention_cold_after=40 * DAY_S,
)


def infos(*names: tuple[str, str]) -> list[PartitionInfo]:
    return [PartitionInfo(kind, name, 1, 1) for kind, name in names]


def test_partitions_go_from_hot_to_warm_to_cold_and_then() -> None:
    there = infos(*NOW, ("event", "2026-10"), ("event", "2026-9"), ("event", "2026-8"), ("event", "2026-7"))
    assert due(POLICY, there, NOW_MS) == [
        Step("drop", "event", "2026-7"),
        Step("move", "event", "2026-8", "cold"),
        Step("move", "event", "2026-9", "cold"),
        Step("move", "event", "2026-10", "warm"),
    ]


def test_by_default_nothing_is_moved_or_dropped() -> None:
    assert due(Settings(), infos(*NOW, ("event", "2001-1"), ("session", "2001-q1")), NOW_MS) == []


def test_profiles_are_never_dropped() -> None:
    steps = due(POLICY, infos(*NOW, ("profile", "2020-q1"), ("session", "2020-q1")), NOW_MS)
    assert steps == [Step("move", "profile", "2020-q1", "cold"), Step("drop", "session", "2020-q1")]


def test_the_next_partitions_are_made_before_they_begin() -> None:
    assert due(Settings(), infos(), NOW_MS) == [Step("create", kind, name) for kind, name in NOW]  # type: ignore[arg-type]
    eve = partitioning.starts_ms("2026-12") - LOOK_AHEAD_MS
    assert due(Settings(), infos(*NOW), eve - 1) == []
    assert due(Settings(), infos(*NOW), eve) == [Step("create", "event", "2026-12")]


def test_a_name_that_is_not_ours_is_left_alone() -> None:
    assert due(POLICY, infos(*NOW, ("event", "old")), NOW_MS) == []


@given(
    at_s=st.integers(0, 4_000_000_000),
    keep_s=st.integers(1, 10 * 365 * DAY_S),
    period=st.sampled_from(partitioning.PERIODS),
)
def test_nothing_younger_than_its_retention_is_ever_dropped(at_s: int, keep_s: int, period: Any) -> None:
    settings = Settings(retention_event=keep_s)
    now_ms = 4_000_000_000_000
    name = partitioning.partition_of(period, at_s * 1000)
    dropped = [step.name for step in due(settings, infos(("event", name)), now_ms) if step.act == "drop"]
    assert not dropped or at_s * 1000 + keep_s * 1000 <= now_ms
    ends_ms = partitioning.starts_ms(partitioning.following(name))
    assert bool(dropped) == (ends_ms + keep_s * 1000 <= now_ms)


def test_cold_before_warm_is_a_contradiction() -> None:
    wrong = Settings(retention_warm_after=10, retention_cold_after=5)
    assert [each.key for each in contradictions(wrong)] == ["retention_cold_after"]


# --- one leader ---


async def test_one_of_two_leads_until_it_gives_back_or_falls_silent() -> None:
    store, clock = open_store("memory:", Settings()), FakeClock()
    one, two = (Lease(store, clock, "lifecycle", name, ttl_s=30) for name in ("one", "two"))
    assert await one.take()
    assert not await two.take()
    clock.advance(29)
    assert await one.take()
    clock.advance(29)
    assert not await two.take(), "it was renewed"
    clock.advance(2)
    assert await two.take(), "it was silent"
    assert not await one.take()
    await one.give_back()
    assert not await one.take(), "nobody gives back what is not theirs"
    await two.give_back()
    assert await one.take()


async def test_many_that_start_together_have_one_leader() -> None:
    store, clock = open_store("memory:", Settings()), FakeClock()
    leases = [Lease(store, clock, "lifecycle", str(number), ttl_s=30) for number in range(20)]
    assert sum(await asyncio.gather(*(lease.take() for lease in leases))) == 1
    clock.advance(31)
    assert sum(await asyncio.gather(*(lease.take() for lease in leases))) == 1


# --- the pass ---


class Recorder:
    """The optional part of the port, in memory: remembers what it was asked to do."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.done: list[tuple[Any, ...]] = []
        self.made: list[Snapshot] = []
        self.state: Any = "success"

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
        self.done.append((kind, name, tier, read_only, merge, replicas))
        return True

    async def snapshot(self, kind: Kind, name: str) -> Snapshot:
        made = Snapshot(f"{kind}-{name}-{len(self.made)}", kind, name, self.state, 0)
        self.made.append(made)
        return made

    async def restore(self, kind: Kind, name: str, snapshot: str = "") -> bool:
        raise AssertionError("no pass restores")

    async def snapshots(self) -> list[Snapshot]:
        return self.made

    async def drop_snapshot(self, snapshot: str) -> bool:
        raise AssertionError("no pass drops a copy")


class World:
    def __init__(self, settings: Settings, *, tiers: bool = True) -> None:
        self.clock = FakeClock(NOW_MS)
        self.store = open_store("memory:", settings)
        self.recorder = Recorder(self.store)
        if tiers:
            self.store.lifecycle = self.recorder  # type: ignore[attr-defined]
        self.settings = settings

    def keeper(self, holder: str = "one") -> Keeper:
        return Keeper(self.store, self.settings, self.clock, holder)

    async def names(self) -> set[tuple[str, str]]:
        return {(info.kind, info.name) for info in await self.store.partitions()}


async def test_a_pass_makes_moves_copies_and_drops_and_the_next_has_nothing_to_do() -> None:
    world = World(msgspec.structs.replace(POLICY, retention_replicas=0))
    for name in ("2026-10", "2026-7"):
        await world.store.create_partition("event", name)
    await world.store.create_partition("profile", "2026-q1")
    keeper = world.keeper()
    await keeper.once()
    assert await world.names() == {*NOW, ("event", "2026-10"), ("profile", "2026-q1")}
    assert world.recorder.done == [
        ("profile", "2026-q1", "cold", False, False, 0),
        ("event", "2026-10", "warm", True, True, 0),
    ]
    assert [made.partition for made in world.recorder.made] == ["2026-7"]
    assert await keeper.once() == []
    assert await world.keeper("two").once() == [], "another leads"


@pytest.mark.parametrize("state", ["partial", "failed"])
async def test_without_a_good_copy_nothing_is_dropped_and_the_next_pass_tries_again(state: str) -> None:
    world = World(POLICY)
    await world.store.create_partition("event", "2026-7")
    world.recorder.state = state
    keeper = world.keeper()
    await keeper.once()
    assert ("event", "2026-7") in await world.names()
    world.recorder.state = "success"
    assert await keeper.once() == [Step("drop", "event", "2026-7")]


async def test_a_store_without_tiers_drops_by_age() -> None:
    world = World(POLICY, tiers=False)
    for name in ("2026-10", "2026-7"):
        await world.store.create_partition("event", name)
    await world.keeper().once()
    assert await world.names() == {*NOW, ("event", "2026-10")}


async def test_a_store_that_is_away_costs_a_pass_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(POLICY)
    keeper = world.keeper()

    async def away() -> list[PartitionInfo]:
        raise Unavailable("store", "gone")

    with monkeypatch.context() as patch:
        patch.setattr(world.store, "partitions", away)
        assert await keeper.once() == []
    assert len(await keeper.once()) == 3


async def test_it_runs_until_it_is_told_to_stop_and_hands_over() -> None:
    world = World(POLICY)
    stop = asyncio.Event()
    running = asyncio.create_task(world.keeper().run(stop))
    await eventually(lambda: world.clock.sleepers == 1)
    world.clock.advance(10)
    await eventually(lambda: world.clock.sleeps == 2)
    assert await world.names() == set(NOW)
    stop.set()
    await asyncio.wait_for(running, 5)
    assert await Lease(world.store, world.clock, "lifecycle", "two", 1).take()


async def test_never_means_never() -> None:
    world = World(msgspec.structs.replace(POLICY, retention_every=0))
    stop = asyncio.Event()
    running = asyncio.create_task(world.keeper().run(stop))
    await asyncio.sleep(0)
    world.clock.advance(1_000_000)
    stop.set()
    await asyncio.wait_for(running, 5)
    assert await world.names() == set()
