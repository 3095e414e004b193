"""A really damaged file costs what was on the damaged pages, and nothing else: not the partition, not the service."""

from __future__ import annotations

import json
import os
import random
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tracardi_lite.backends.store.sqlite import SqliteStore, salvage
from tracardi_lite.backends.store.sqlite.files import Files
from tracardi_lite.errors import Unavailable
from tracardi_lite.ports.store import SAME, STORED, Claim, Entry, EventWrite, Outcome, Query, RecordWrite
from tracardi_lite.testing.clock import eventually
from tracardi_lite.testing.store_suite import event_write, ids_of, new_id, outcomes, record_write

EVENTS = "event-2026-9.db"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "store"


@pytest.fixture
async def events(folder: Path) -> list[EventWrite]:
    """Stored, in a closed file of some hundred pages."""
    written = [event_write(traits={"text": random.Random(n).randbytes(300).hex()}) for n in range(300)]
    async with SqliteStore(folder) as store:
        assert await store.create_events(written) == [STORED] * len(written)
        await store.put([record_write(id="p1")])
        await store.claim([Claim("p:p1", Entry("p1", "2026-q3"))])
    return written


def pages_of(file: Path, name: str) -> tuple[int, list[int]]:
    """A table's or index's page size and leaf pages, by the file format (sqlite.org/fileformat2.html)."""
    connection = sqlite3.connect(file)
    (size,) = connection.execute("PRAGMA page_size").fetchone()
    (root,) = connection.execute("SELECT rootpage FROM sqlite_master WHERE name = ?", (name,)).fetchone()
    connection.close()
    data = file.read_bytes()
    leaves, todo = [], [root]
    while todo:
        page = todo.pop()
        at = (page - 1) * size
        kind = data[at]
        if kind in (13, 10):
            leaves.append(page)
            continue
        assert kind in (5, 2)
        cells = int.from_bytes(data[at + 3 : at + 5])
        todo.append(int.from_bytes(data[at + 8 : at + 12]))
        for cell in range(cells):
            pointer = int.from_bytes(data[at + 12 + cell * 2 : at + 14 + cell * 2])
            todo.append(int.from_bytes(data[at + pointer : at + pointer + 4]))
    return size, sorted(leaves)


def overwrite(file: Path, page: int, size: int, data: bytes) -> None:
    with file.open("r+b") as handle:
        handle.seek((page - 1) * size)
        handle.write((data * size)[:size])


def kept_aside(folder: Path) -> list[str]:
    names = [path.name for path in folder.iterdir() if ".corrupt-" in path.name]
    return [name for name in names if not name.endswith("-wal")]


async def until_salvaged(store: SqliteStore) -> None:
    await eventually(lambda: not store._sickbay._reasons, what="the salvage ends")


@pytest.fixture
async def store(folder: Path) -> AsyncIterator[SqliteStore]:
    async with SqliteStore(folder) as store:
        yield store


@pytest.mark.parametrize("garbage", [b"\0", b"\xa5garbage"])
async def test_a_damaged_page_of_the_table_costs_its_records_only(
    folder: Path, events: list[EventWrite], garbage: bytes
) -> None:
    size, leaves = pages_of(folder / EVENTS, "record")
    overwrite(folder / EVENTS, leaves[len(leaves) // 2], size, garbage)
    async with SqliteStore(folder) as store:
        with pytest.raises(Unavailable, match=EVENTS):
            await store.get("event", [(event.id, event.partition) for event in events])
        with pytest.raises(Unavailable, match=EVENTS):
            await store.ping()
        [verdict] = await store.create_events([event_write()])
        assert verdict.outcome in (Outcome.RETRY, Outcome.STORED)
        # Everything else goes on while the file is in hand.
        assert (await store.find("profile", "p1")) is not None
        assert outcomes(await store.put([record_write()])) == [Outcome.STORED]
        await until_salvaged(store)
        await store.ping()
        records = await store.get("event", [(event.id, event.partition) for event in events])
        lost = records.count(None)
        assert 1 <= lost <= size // 600
        assert [record.doc for record in records if record] == [
            event.doc for event, record in zip(events, records, strict=True) if record
        ]
        # What a replay of the queue does: what is there stays, what was lost is made again.
        again = await store.create_events(events)
        assert again.count(STORED) == lost
        assert again.count(SAME) == len(events) - lost
        found = await store.search("event", Query(limit=1000))
        assert set(ids_of(found.result)) >= {event.id for event in events}
    assert len(kept_aside(folder)) == 1


async def test_a_damaged_index_costs_no_record(folder: Path, events: list[EventWrite]) -> None:
    size, leaves = pages_of(folder / EVENTS, "record_id")
    for leaf in leaves:
        overwrite(folder / EVENTS, leaf, size, b"\0")
    async with SqliteStore(folder) as store:
        [verdict] = await store.create_events([events[0]])
        assert verdict.outcome is Outcome.RETRY
        assert "damaged" in verdict.reason or "malformed" in verdict.reason
        await until_salvaged(store)
        assert await store.create_events(events) == [SAME] * len(events)


async def test_a_destroyed_header_costs_the_file_and_not_the_service(folder: Path, events: list[EventWrite]) -> None:
    overwrite(folder / EVENTS, 1, 8192, b"\xffnonsense")
    async with SqliteStore(folder) as store:
        [verdict] = await store.create_events([events[0]])
        assert verdict.outcome is Outcome.RETRY
        await until_salvaged(store)
        assert await store.create_events(events) == [STORED] * len(events)
        await store.ping()
    assert len(kept_aside(folder)) == 1


async def test_a_torn_file_keeps_what_is_left_of_it(folder: Path, events: list[EventWrite]) -> None:
    file = folder / EVENTS
    os.truncate(file, file.stat().st_size // 16384 * 8192)
    async with SqliteStore(folder) as store:
        with pytest.raises(Unavailable):
            await store.get("event", [(event.id, event.partition) for event in events])
        await until_salvaged(store)
        again = await store.create_events(events)
        assert again.count(SAME) >= 50
        assert set(outcomes(again)) == {Outcome.SAME, Outcome.STORED}


async def test_zeros_inside_a_document_are_found_by_the_salvage(folder: Path) -> None:
    # A document of several pages: SQLite does not look at what is on those that only continue it.
    long, other = event_write(traits={"text": "x" * 50_000}), event_write()
    async with SqliteStore(folder) as store:
        await store.create_events([long, other])
    data = (folder / EVENTS).read_bytes()
    at = data.index(b"x" * 8000)
    with (folder / EVENTS).open("r+b") as handle:
        handle.seek(at + 100)
        handle.write(b"\0" * 5000)
    size, leaves = pages_of(folder / EVENTS, "record_at")
    overwrite(folder / EVENTS, leaves[0], size, b"\0")
    async with SqliteStore(folder) as store:
        with pytest.raises(Unavailable):
            await store.partitions()
        await until_salvaged(store)
        assert await store.create_events([other, long]) == [SAME, STORED]


async def test_a_damaged_directory_is_made_whole_from_the_records(folder: Path) -> None:
    profiles = [record_write(id=new_id()) for _ in range(400)]
    sessions = [record_write("session", profile=profile.id) for profile in profiles]
    old = record_write(id=profiles[0].id, partition="2026-q1")
    claims = [Claim(f"p:{each.id}", Entry(each.id, each.partition, "m")) for each in [old, *profiles[1:]]]
    claims += [Claim(f"s:{each.id}", Entry(each.profile or "", each.partition, "m")) for each in sessions]
    aliases = [Claim(f"k:{new_id()}", Entry(profiles[0].id, "", "m")) for _ in range(400)]
    async with SqliteStore(folder) as store:
        await store.put([old, *profiles[1:], *sessions])
        await store.claim(claims + aliases)
    file = folder / "directory.db"
    size = 4096
    pages = file.stat().st_size // size
    assert pages > 20
    for page in (8, 14):
        overwrite(file, page, size, b"\0")
    keys = [claim.key for claim in claims]
    async with SqliteStore(folder) as store:
        with pytest.raises(Unavailable, match=r"directory\.db"):
            await store.lookup(keys + [alias.key for alias in aliases])
        await until_salvaged(store)
        found = await store.lookup(keys)
        assert [(entry.target, entry.partition) for entry in found if entry] == [
            (claim.entry.target, claim.entry.partition) for claim in claims
        ]
        kept = await store.lookup([alias.key for alias in aliases])
        assert sum(entry is not None for entry in kept) > 250


async def test_another_process_goes_on_in_the_fresh_file(
    folder: Path, events: list[EventWrite], store: SqliteStore
) -> None:
    assert await store.create_events(events[:1]) == [SAME]
    size, leaves = pages_of(folder / EVENTS, "record")
    overwrite(folder / EVENTS, leaves[3], size, b"\0")
    async with SqliteStore(folder) as other:
        with pytest.raises(Unavailable):
            await other.search("event", Query(limit=1000))
        await until_salvaged(other)
        # This handle had the damaged file open all the time.
        new = event_write()
        assert await store.create_events([new]) == [STORED]
        assert await other.create_events([new]) == [SAME]
        again = await store.create_events(events)
        assert set(outcomes(again)) == {Outcome.SAME, Outcome.STORED}
        assert await other.count("event") == len(events) + 1


async def test_two_that_find_the_same_damage_salvage_once(folder: Path, events: list[EventWrite]) -> None:
    size, leaves = pages_of(folder / EVENTS, "record")
    overwrite(folder / EVENTS, leaves[3], size, b"\0")
    async with SqliteStore(folder) as one, SqliteStore(folder) as two:
        for store in (one, two):
            with pytest.raises(Unavailable):
                await store.search("event", Query(limit=1000))
        await until_salvaged(one)
        await until_salvaged(two)
        assert await one.count("event") == await two.count("event") > 0
    assert len(kept_aside(folder)) == 1


async def test_a_salvage_that_fails_leaves_the_file_and_is_tried_again(
    folder: Path, events: list[EventWrite], monkeypatch: pytest.MonkeyPatch
) -> None:
    size, leaves = pages_of(folder / EVENTS, "record")
    overwrite(folder / EVENTS, leaves[3], size, b"\0")
    real = salvage._copied

    def full(*args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(salvage, "_copied", full)
    async with SqliteStore(folder) as store:
        for _ in range(2):
            with pytest.raises(Unavailable):
                await store.search("event", Query(limit=1000))
            await until_salvaged(store)
        monkeypatch.setattr(salvage, "_copied", real)
        with pytest.raises(Unavailable):
            await store.search("event", Query(limit=1000))
        await until_salvaged(store)
        page = await store.search("event", Query(limit=1000))
        assert 280 < page.total < 300
        assert all(json.loads(doc)["id"] for doc in page.result)


async def test_a_write_to_a_damaged_profile_partition_is_told_to_come_again(folder: Path) -> None:
    written = [record_write(traits={"text": "x" * 500}) for _ in range(100)]
    async with SqliteStore(folder) as store:
        verdicts = await store.put(written)
    file = folder / "profile-2026-q3.db"
    size, leaves = pages_of(file, "record")
    overwrite(file, leaves[4], size, b"\0")

    def update(place: int) -> RecordWrite:
        write = record_write(id=written[place].id, traits={"n": 2})
        write.version = verdicts[place].version
        return write

    async with SqliteStore(folder) as store:
        first = outcomes(await store.put([update(place) for place in range(100)]))
        assert set(first) == {Outcome.RETRY}
        await until_salvaged(store)
        second = outcomes(await store.put([update(place) for place in range(100)]))
        # Lost ones are conflicts: the worker reads again, finds none, and makes them anew.
        assert second.count(Outcome.STORED) > 80
        assert set(second) == {Outcome.STORED, Outcome.CONFLICT}


async def test_a_partition_that_is_dropped_during_its_salvage_stays_dropped(
    folder: Path, events: list[EventWrite], monkeypatch: pytest.MonkeyPatch
) -> None:
    size, leaves = pages_of(folder / EVENTS, "record")
    overwrite(folder / EVENTS, leaves[3], size, b"\0")
    real = salvage._copied

    def dropped_meanwhile(*args: Any) -> Any:
        copied = real(*args)
        assert Files(folder).remove(EVENTS)
        return copied

    monkeypatch.setattr(salvage, "_copied", dropped_meanwhile)
    async with SqliteStore(folder) as store:
        with pytest.raises(Unavailable):
            await store.search("event", Query(limit=1000))
        await until_salvaged(store)
        assert await store.count("event") == 0
        assert await store.create_events(events) == [STORED] * len(events)
