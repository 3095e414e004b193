"""What the memory store promises beyond the port's contract: a bound, and room again once something is gone."""

from __future__ import annotations

import pytest

from tracardi_lite.backends.store.memory import open_store
from tracardi_lite.errors import Full, Misconfigured
from tracardi_lite.ports.store import STORED, Outcome
from tracardi_lite.settings.schema import Settings
from tracardi_lite.testing.store_suite import event_write, outcomes, record_write


@pytest.mark.parametrize("text", ["0", "-1", "1k", "", "²"])
def test_a_bound_that_is_no_number_of_bytes_is_named(text: str) -> None:
    with pytest.raises(Misconfigured, match="bytes_max"):
        open_store(f"memory:?bytes_max={text}", Settings())


async def test_a_full_store_refuses_until_something_is_dropped() -> None:
    events = [event_write(partition=f"2026-{month}") for month in (8, 9)]
    store = open_store(f"memory:?bytes_max={len(events[0].doc) + len(events[1].doc) + 10}", Settings())
    assert await store.create_events(events) == [STORED, STORED]
    with pytest.raises(Full, match="memory store"):
        await store.create_events([event_write()])
    with pytest.raises(Full):
        await store.put([record_write()])
    assert await store.drop_partition("event", "2026-8")
    assert await store.create_events([event_write()]) == [STORED]


async def test_a_deleted_record_makes_room() -> None:
    big = record_write(traits={"text": "x" * 1000})
    store = open_store(f"memory:?bytes_max={len(big.doc) + 500}", Settings())
    [verdict] = await store.put([big])
    with pytest.raises(Full):
        await store.put([record_write(traits={"text": "y" * 1000})])
    assert await store.delete("profile", big.id)
    [verdict] = await store.put([record_write(traits={"text": "y" * 1000})])
    assert outcomes([verdict]) == [Outcome.STORED]
