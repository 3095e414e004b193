"""Whatever order workers take their steps in, wherever they die: one customer, one profile, nothing lost or doubled."""

from __future__ import annotations

import pytest

from tests import merging_world
from tests.merging_world import explore
from tracardi_lite.pipeline import process

SEEDS = 1000


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process, "pause", merging_world.no_pause)


def test_no_interleaving_of_merges_loses_or_doubles_anything() -> None:
    merged = crashes = pauses = 0
    traces = set()
    for seed in range(SEEDS):
        world = explore(seed)
        traces.add((seed, *world.trace))
        merged += world.merged
        crashes += world.crashes
        pauses += world.pauses
    # The stories are worth something: people are merged, and workers die while they do it.
    assert len(traces) == SEEDS
    assert merged > SEEDS / 2
    assert crashes > SEEDS / 3
    assert pauses > SEEDS / 5


def test_a_run_is_repeated_by_its_seed() -> None:
    assert explore(7).trace == explore(7).trace
