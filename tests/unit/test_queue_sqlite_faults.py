"""What disks do to files, and what the SQLite queue makes of it: nothing acknowledged is lost while it can be read,
nothing is acknowledged that was not synced, and the rest goes on."""

from __future__ import annotations

import asyncio
import os
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from tracardi_lite.backends.queue.sqlite import SqliteQueue, open_queue
from tracardi_lite.backends.queue.sqlite import segment as segments
from tracardi_lite.backends.queue.sqlite.batch import Record, unpack
from tracardi_lite.backends.queue.sqlite.segment import PAGE_SIZE, Segment
from tracardi_lite.errors import Full, TryLater, Unavailable
from tracardi_lite.ports.queue import SUBSCRIPTION, Message
from tracardi_lite.settings import Settings
from tracardi_lite.testing.clock import FakeClock
from tracardi_lite.testing.queue_suite import assert_adds_up, bodies, publication, stored, take, until

PARTITIONS = 3


def opened(tmp_path: Path, **changed: Any) -> SqliteQueue:
    settings = Settings(data_dir=tmp_path, queue_partitions=PARTITIONS, disk_free_min=0)
    return open_queue("sqlite:", replace(settings, **changed), clock=FakeClock())


def files(tmp_path: Path, pattern: str = "functions-*.db") -> list[Path]:
    return sorted((tmp_path / "queue").glob(pattern))


def noise(size: int) -> str:
    """Text that does not compress below half, and not at all where that is not tried hard."""
    return os.urandom(size // 2).hex()


async def publish(queue: SqliteQueue, names: list[str], size: int = 0) -> None:
    for name in names:
        await queue.publish(publication(f"key-{name}", f"{name}:{noise(size)}"))


def names(messages: list[Message]) -> list[str]:
    return [body.partition(":")[0] for body in bodies(messages)]


async def drained(queue: SqliteQueue) -> list[str]:
    """Receive and acknowledge until nothing is pending."""
    consumer = await queue.subscribe(SUBSCRIPTION)
    seen: list[Message] = []
    try:
        while (await queue.totals()).pending:
            found = await consumer.receive(1000, 1 << 26, 1.0)
            await consumer.ack([stored(message) for message in found])
            seen += found
    finally:
        await consumer.close()
    return names(seen)


# --- segments ---
async def test_segments_follow_one_another_and_are_read_as_one_log(tmp_path: Path) -> None:
    everything = [f"{n}" for n in range(60)]
    async with opened(tmp_path, queue_bytes_max=8 << 20) as queue:  # segments of 1 MiB
        await publish(queue, everything, 90_000)
        assert len(files(tmp_path)) > 3
        consumer = await queue.subscribe(SUBSCRIPTION)
        messages = await take(consumer, 60)
        assert sorted(names(messages)) == sorted(everything)
        await consumer.close()


async def test_counts_kept_along_the_log_are_those_of_a_full_scan(tmp_path: Path) -> None:
    async with opened(tmp_path, queue_bytes_max=8 << 20) as queue:
        for step in range(30):
            await queue.publish(publication(f"key-{step % 7}", noise(100_000), events=step))
        totals, backlog = await queue.totals(), await queue.backlog()
    messages, events = [0] * PARTITIONS, [0] * PARTITIONS
    for name in segments.listed(tmp_path / "queue"):
        segment = Segment(tmp_path / "queue", name)
        for row in segment.rows(0):
            for record in records_of(row):
                messages[record.partition] += 1
                events[record.partition] += record.events
        segment.close()
    assert [row.messages for row in backlog] == messages
    assert [row.events for row in backlog] == events
    assert totals.received == totals.pending == sum(events) == sum(range(30))


def records_of(row: segments.Row) -> list[Record]:
    return unpack(row.base, row.published_ms, row.size, row.data)


async def test_retention_deletes_whole_segments_that_everyone_has_passed(tmp_path: Path) -> None:
    async with opened(tmp_path, queue_bytes_max=8 << 20, queue_retention=3600, queue_retention_bytes=1 << 30) as queue:
        await publish(queue, [f"{n}" for n in range(60)], 90_000)
        before = len(files(tmp_path))
        await (await queue.subscribe("another")).close()  # has passed nothing
        await drained(queue)
        queue._clock.advance(7200)  # type: ignore[attr-defined]
        await queue.maintain()
        assert len(files(tmp_path)) == before
        consumer = await queue.subscribe("another")
        await consumer.ack([stored(message) for message in await take(consumer, 60)])
        await consumer.close()
        await queue.maintain()
        assert len(files(tmp_path)) == 1
        assert_adds_up(await queue.totals())
        await publish(queue, ["after"])
        assert await drained(queue) == ["after"]


# --- damage ---
def flip(path: Path, at: int, size: int = 64) -> None:
    with path.open("r+b") as file:
        file.seek(at)
        found = file.read(size)
        file.seek(at)
        file.write(bytes(byte ^ 0xFF for byte in found))


def tear(path: Path) -> None:
    """The last page did not make it to the disk."""
    os.truncate(path, path.stat().st_size - PAGE_SIZE // 2)


def wreck_header(path: Path) -> None:
    flip(path, 0, 100)


def wreck_data(path: Path) -> None:
    """A page of a body: SQLite does not notice."""
    flip(path, path.stat().st_size // 2)


def wreck_tree(path: Path) -> None:
    """Half of the pages, the tree's among them."""
    for page in range(2, path.stat().st_size // PAGE_SIZE, 2):
        flip(path, page * PAGE_SIZE, 200)


@pytest.mark.parametrize("damage", [tear, wreck_header, wreck_data, wreck_tree])
@pytest.mark.parametrize("place", [0, 1, -1], ids=["first", "middle", "last"])
async def test_a_damaged_segment_costs_only_what_it_held(
    tmp_path: Path, damage: Callable[[Path], None], place: int
) -> None:
    everything = [f"{n}" for n in range(60)]
    async with opened(tmp_path, queue_bytes_max=8 << 20) as queue:
        await publish(queue, everything, 100_000)
    victim = files(tmp_path)[place]
    damage(victim)
    async with opened(tmp_path, queue_bytes_max=64 << 20) as queue:
        await publish(queue, ["after"])
        seen = await drained(queue)
        totals = await queue.totals()
        lost = set(everything) - set(seen)
        assert "after" in seen
        assert len(lost) < 60 - 20, "the other segments are whole"
        assert_adds_up(totals)
        assert totals.stored == len(seen) == len(set(seen))
        if damage is wreck_header:
            assert not lost, "what a first page says is known"
        if place != -1:  # how much a damaged end held can't be known
            assert totals.received == 61
            assert sum(letter.events for letter in await queue.dead_letters(1000)) == len(lost)
        await publish(queue, ["still"])
        assert await drained(queue) == ["still"]
    assert files(tmp_path, "*.corrupt"), "the file is kept for people"


async def test_damage_met_while_running_is_salvaged_without_a_restart(tmp_path: Path) -> None:
    everything = [f"{n}" for n in range(60)]
    async with opened(tmp_path, queue_bytes_max=8 << 20) as queue:
        await publish(queue, everything, 100_000)
        await queue._clean(queue._janitor.measure)  # closed segments leave their logs
        wreck_data(files(tmp_path)[1])
        await publish(queue, ["after"])
        seen = await drained(queue)
        assert 50 <= len(set(seen)) <= 60
        assert "after" in seen
        totals = await queue.totals()
        assert totals.dead_lettered == 61 - len(seen) > 0
        assert_adds_up(totals)


async def test_positions_are_not_used_again_after_a_damaged_end(tmp_path: Path) -> None:
    async with opened(tmp_path) as queue:
        await publish(queue, ["a", "b", "c"], 50_000)
        consumer = await queue.subscribe(SUBSCRIPTION)
        before = {(m.stream, m.position) for m in await take(consumer, 3)}
        await consumer.close()
    tear(files(tmp_path)[-1])
    async with opened(tmp_path) as queue:
        await publish(queue, ["d"])
        consumer = await queue.subscribe(SUBSCRIPTION)
        after: list[Message] = []
        while "d" not in names(after):
            after += await consumer.receive(10, 1 << 20, 1.0)
        assert {(m.stream, m.position) for m in after if names([m]) == ["d"]}.isdisjoint(before)
        await consumer.close()


@pytest.mark.parametrize("kept", [0.0, 0.3, 0.7, 0.99])
async def test_a_log_cut_short_by_a_crash_is_read_up_to_the_cut_and_no_position_is_used_again(
    tmp_path: Path, kept: float
) -> None:
    """Worse than a crash may be: the disk lost what it had said was synced."""
    async with opened(tmp_path / "alive") as queue:
        await publish(queue, [f"{n}" for n in range(40)], 5000)
        consumer = await queue.subscribe(SUBSCRIPTION)
        messages = await take(consumer, 40)
        await consumer.ack([stored(message) for message in messages[:20]])
        shutil.copytree(tmp_path / "alive", tmp_path / "crashed")
        await consumer.close()
    (log,) = files(tmp_path / "crashed", "functions-*.db-wal")
    os.truncate(log, int(log.stat().st_size * kept))
    async with opened(tmp_path / "crashed") as queue:
        assert_adds_up(await queue.totals())
        await publish(queue, ["after"])
        consumer = await queue.subscribe(SUBSCRIPTION)
        seen: list[Message] = []
        while "after" not in names(seen):
            seen += await consumer.receive(100, 1 << 20, 1.0)
        await consumer.ack([stored(message) for message in seen])
        assert seen[-1].position > max(m.position for m in messages[:20] if m.stream == seen[-1].stream)
        assert_adds_up(await until(lambda totals: totals.pending == 0, queue))
        await consumer.close()


async def test_a_damaged_control_file_is_rebuilt_from_the_log(tmp_path: Path) -> None:
    async with opened(tmp_path) as queue:
        await publish(queue, ["a", "b"])
        assert sorted(await drained(queue)) == ["a", "b"]
        await publish(queue, ["c"])
    wreck_header(tmp_path / "queue" / "control.db")
    async with opened(tmp_path) as queue:
        assert sorted(await drained(queue)) == ["a", "b", "c"], "what was retained comes again"
        assert_adds_up(await queue.totals())


async def test_a_log_without_its_segments_goes_on_behind_them(tmp_path: Path) -> None:
    async with opened(tmp_path) as queue:
        await publish(queue, ["a"])
        await drained(queue)
    for file in files(tmp_path):
        file.unlink()
    async with opened(tmp_path) as queue:
        await publish(queue, ["b"])
        assert await drained(queue) == ["b"]
        assert_adds_up(await queue.totals())


# --- a disk that says no ---
class Faulty:
    """Stands in for a segment's connection: fails appends with one of SQLite's errors while ``error`` is set."""

    error: tuple[int, str] | None = None
    failed = 0

    def __init__(self, inner: sqlite3.Connection) -> None:
        self._inner = inner

    def execute(self, sql: str, *values: Any) -> sqlite3.Cursor:
        if Faulty.error is not None and "INSERT INTO batches" in sql:
            Faulty.failed += 1
            fault = sqlite3.OperationalError("injected")
            fault.sqlite_errorcode, fault.sqlite_errorname = Faulty.error
            raise fault
        return self._inner.execute(sql, *values)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


@pytest.fixture
def faulty(monkeypatch: pytest.MonkeyPatch) -> type[Faulty]:
    real = segments.connect

    def connect(path: Path, **options: Any) -> Any:
        return Faulty(real(path, **options))

    monkeypatch.setattr(segments, "connect", connect)
    monkeypatch.setattr(Faulty, "error", None)
    return Faulty


async def test_a_full_disk_is_a_refusal_and_publishing_goes_on_when_there_is_space(
    tmp_path: Path, faulty: type[Faulty]
) -> None:
    async with opened(tmp_path) as queue:
        await publish(queue, ["a"])
        faulty.error = (sqlite3.SQLITE_FULL, "SQLITE_FULL")
        for _ in range(3):
            with pytest.raises(Full):
                await publish(queue, ["refused"])
        faulty.error = None
        await publish(queue, ["b"])
        await queue.ping()
        assert sorted(await drained(queue)) == ["a", "b"]


async def test_after_a_failed_sync_nothing_more_goes_into_that_segment(tmp_path: Path, faulty: type[Faulty]) -> None:
    async with opened(tmp_path) as queue:
        await publish(queue, ["a"])
        faulty.error = (sqlite3.SQLITE_IOERR_FSYNC, "SQLITE_IOERR_FSYNC")
        with pytest.raises(Unavailable):
            await publish(queue, ["uncertain"])
        faulty.error = None
        await publish(queue, ["b"])
        assert len(files(tmp_path)) == 2
        assert sorted(await drained(queue)) == ["a", "b"]


async def test_a_group_that_is_refused_is_refused_whole(tmp_path: Path, faulty: type[Faulty]) -> None:
    async with opened(tmp_path) as queue:
        faulty.error = (sqlite3.SQLITE_IOERR, "SQLITE_IOERR")
        results = await asyncio.gather(
            *(queue.publish(publication(f"k{n}")) for n in range(50)), return_exceptions=True
        )
        assert all(isinstance(result, TryLater) for result in results)
        faulty.error = None
        assert (await queue.totals()).received == 0


async def test_too_much_in_flight_is_refused_and_not_queued(tmp_path: Path) -> None:
    async with opened(tmp_path, in_flight_max=1 << 20) as queue:
        results = await asyncio.gather(
            *(queue.publish(publication(f"k{n}", "x" * 100_000)) for n in range(30)), return_exceptions=True
        )
        refused = [result for result in results if isinstance(result, Full)]
        assert 15 < len(refused) < 25
        assert (await queue.totals()).received == 30 - len(refused)
        await queue.publish(publication("k", "x" * 2_000_000))  # alone, anything goes


async def test_appenders_of_two_processes_make_one_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tracardi_lite.backends.queue.sqlite.queue.SEGMENT_BYTES", 64 << 10)
    async with opened(tmp_path, queue_bytes_max=4 << 20) as one, opened(tmp_path, queue_bytes_max=4 << 20) as two:

        async def many(queue: SqliteQueue, name: str) -> None:
            for n in range(40):
                await queue.publish(publication(f"{name}{n % 5}", f"{name}{n}:{noise(4000)}"))

        await asyncio.gather(many(one, "x"), many(two, "y"))
        assert len(files(tmp_path)) > 1
        seen = await drained(one)
        assert sorted(seen) == sorted(f"{name}{n}" for name in "xy" for n in range(40))
        assert_adds_up(await until(lambda totals: totals.pending == 0, two))
