"""Rules in step with the registry: within their time, off the hot path, and through whatever happens to it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from tracardi_lite.errors import Unavailable
from tracardi_lite.metrics import Metrics
from tracardi_lite.pipeline.rules.live import COMPLIANCE_SECRET, LiveRules
from tracardi_lite.pipeline.rules.ruleset import RuleSet
from tracardi_lite.ports.registry import Rule
from tracardi_lite.settings import Settings
from tracardi_lite.testing.clock import FakeClock, eventually

GOOD = Rule(kind="mapping", id="good", spec={"tags": ["x"]})
BAD = Rule(kind="mapping", id="bad", spec={})


class Shelf:
    """As much of a registry as is asked here."""

    def __init__(self) -> None:
        self.revision = 0
        self.rules_there: list[Rule] = []
        self.fault: Exception | None = None
        self.reads = self.asked = 0

    def put(self, *rules: Rule) -> None:
        self.rules_there, self.revision = list(rules), self.revision + 1

    async def rules_revision(self) -> int:
        self.asked += 1
        if self.fault is not None:
            raise self.fault
        return self.revision

    async def rules(self, *_: Any) -> list[Rule]:
        self.reads += 1
        return self.rules_there

    async def secret(self, name: str, make: Callable[[], str]) -> list[str]:
        assert name == COMPLIANCE_SECRET
        assert len(make()) >= 32
        return ["newest", "oldest"]


class Bench:
    def __init__(self, **settings: Any) -> None:
        self.shelf, self.clock, self.metrics = Shelf(), FakeClock(), Metrics()
        self.used: list[RuleSet] = []
        shelf: Any = self.shelf
        self.live = LiveRules(shelf, Settings(**settings), self.clock, self.metrics, self.used.append)

    @property
    def ids(self) -> list[str]:
        return [each.rule.id for each in self.used[-1].rules]

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        stop = asyncio.Event()
        task = asyncio.create_task(self.live.run(stop))
        await eventually(lambda: self.clock.sleepers > 0, what="it waits")
        try:
            yield
        finally:
            stop.set()
            await asyncio.wait_for(task, 5)


async def test_a_worker_starts_with_the_rules_that_are_there() -> None:
    bench = Bench()
    bench.shelf.put(GOOD)
    await bench.live.load()
    assert bench.ids == ["good"]
    assert bench.metrics.rules_active.value == 1


async def test_a_worker_does_not_start_without_knowing_its_rules() -> None:
    bench = Bench()
    bench.shelf.fault = Unavailable("registry", "away")
    with pytest.raises(Unavailable):
        await bench.live.load()
    assert bench.used == []


async def test_a_change_acts_within_the_time_that_is_set() -> None:
    bench = Bench(rules_cache_ttl=10.0)
    await bench.live.load()
    async with bench.running():
        bench.shelf.put(GOOD)
        bench.clock.advance(10)
        await eventually(lambda: len(bench.used) == 2, what="the new rules are used")
        assert bench.ids == ["good"]


async def test_what_has_not_changed_is_neither_read_nor_compiled_again() -> None:
    bench = Bench()
    bench.shelf.put(GOOD)
    await bench.live.load()
    async with bench.running():
        for _ in range(5):
            asked = bench.shelf.asked
            bench.clock.advance(1)
            await eventually(lambda asked=asked: bench.shelf.asked > asked, what="it has asked")  # type: ignore[misc]
            await eventually(lambda: bench.clock.sleepers > 0, what="it waits")
    assert (bench.shelf.reads, len(bench.used)) == (1, 1)


async def test_a_change_by_this_process_acts_at_once() -> None:
    bench = Bench(rules_cache_ttl=3600.0)
    await bench.live.load()
    async with bench.running():
        bench.shelf.put(GOOD)
        bench.live.changed()
        await eventually(lambda: len(bench.used) == 2, what="the new rules are used")


@pytest.mark.parametrize("fault", [Unavailable("registry", "away"), ValueError("a record that is none")])
async def test_while_the_registry_is_away_the_last_rules_serve_on(fault: Exception) -> None:
    bench = Bench()
    bench.shelf.put(GOOD)
    await bench.live.load()
    async with bench.running():
        bench.shelf.fault = fault
        bench.clock.advance(1)
        await eventually(lambda: bench.live.stale, what="it knows that it is stale")
        assert bench.metrics.rules_stale.value == 1
        assert bench.ids == ["good"]
        bench.shelf.fault = None
        bench.shelf.put()
        await eventually(lambda: bench.clock.sleepers > 0, what="it waits")
        bench.clock.advance(1)
        await eventually(lambda: not bench.live.stale, what="it is fresh")
        assert bench.ids == []
        assert bench.metrics.rules_stale.value == 0


async def test_a_broken_rule_is_named_and_left_out(capsys: pytest.CaptureFixture[str]) -> None:
    bench = Bench()
    bench.shelf.put(BAD, GOOD)
    await bench.live.load()
    assert bench.ids == ["good"]
    assert (bench.metrics.rules_active.value, bench.metrics.rules_broken.value) == (1, 1)
    said = capsys.readouterr().out
    assert "rule_broken" in said
    assert "bad" in said


async def test_kinds_that_are_switched_off_are_not_compiled() -> None:
    bench = Bench(enable_event_mapping=False)
    bench.shelf.put(GOOD)
    await bench.live.load()
    assert bench.used[-1].empty
