"""The feed of moves in a file: its circle, its damage, and going on without it."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tracardi_lite.backends.cache import ring as rings
from tracardi_lite.backends.cache.local import FILE, LocalCache, open_cache
from tracardi_lite.backends.cache.ring import Ring
from tracardi_lite.settings import Settings
from tracardi_lite.testing.clock import FakeClock


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "data" / FILE


@pytest.fixture
def ring(file: Path) -> Iterator[Ring]:
    ring = Ring(file)
    yield ring
    ring.close()


@pytest.fixture
async def cache(file: Path) -> AsyncIterator[LocalCache]:
    async with LocalCache(file, 100, FakeClock()) as opened:
        yield opened


def of(ring: Ring, start: int) -> list[str] | None:
    return ring.read(start, ring.counts[0])


async def test_the_file_is_made_where_the_data_are_and_belongs_to_its_owner_alone(tmp_path: Path) -> None:
    async with open_cache("local:", Settings(data_dir=tmp_path / "new")):
        assert stat.S_IMODE((tmp_path / "new" / FILE).stat().st_mode) == 0o600
    async with open_cache(f"local://{tmp_path}/else%20where", Settings(data_dir=tmp_path / "new")):
        assert (tmp_path / "else where" / FILE).exists()


async def test_what_was_written_before_an_opening_is_kept(file: Path, ring: Ring) -> None:
    await ring.write(["a"])
    again = Ring(file)
    assert of(again, 0) == ["a"]
    again.close()


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30, deadline=None)
@given(calls=st.lists(st.lists(st.text(max_size=40), max_size=6), max_size=60), size=st.integers(60, 400))
async def test_a_reader_gets_every_key_in_order_or_is_told_that_it_was_overtaken(
    tmp_path: Path, calls: list[list[str]], size: int
) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(rings, "BYTES", size)
        (tmp_path / FILE).unlink(missing_ok=True)
        ring = Ring(tmp_path / FILE)
        written: list[tuple[int, list[str]]] = []
        for keys in calls:
            written.append((ring.counts[0], keys))
            await ring.write(keys)
        for number, (start, _) in enumerate(written):
            expected = [key for _, keys in written[number:] for key in keys]
            assert of(ring, start) == (expected if ring.counts[0] - start <= size else None)
        ring.close()


async def test_a_reader_that_is_overtaken_while_it_reads_does_not_take_new_for_old(
    file: Path, ring: Ring, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = len(rings._record("key-0"))
    monkeypatch.setattr(rings, "BYTES", 2 * record)
    await ring.write(["key-0", "key-1"])
    end = ring.counts[0]
    write = os.pwrite

    def dies_half_way(file: int, data: bytes, at: int) -> int:
        if at == rings._COUNT_AT:
            raise OSError(errno.ENOSPC, "No space left on device")
        return write(file, data, at)

    monkeypatch.setattr(os, "pwrite", dies_half_way)
    with pytest.raises(OSError, match="No space"):
        await ring.write(["key-2"])
    assert ring.counts[0] == end, "nobody is told yet"
    assert ring.read(0, end) is None


async def test_a_damaged_record_is_taken_as_missed(file: Path, ring: Ring) -> None:
    await ring.write(["p:somebody"])
    with file.open("r+b") as damaged:
        damaged.seek(rings._START + 10)
        damaged.write(b"X")
    assert of(ring, 0) is None
    await ring.write(["p:else"])
    assert of(ring, ring.counts[0] - len(rings._record("p:else"))) == ["p:else"]


def spoil(file: Path) -> None:
    file.write_bytes(b"not ours" + bytes(5000))


async def test_a_file_of_another_kind_is_begun_anew(file: Path, cache: LocalCache) -> None:
    moves = cache.moves()
    await cache.announce(["a"])
    assert moves.heard() == ["a"]
    spoil(file)
    Ring(file).close()
    assert moves.heard() is None
    await cache.announce(["b"])
    assert moves.heard() == ["b"]


async def test_a_writer_that_was_stopped_in_the_middle_is_not_waited_for(file: Path, cache: LocalCache) -> None:
    moves = cache.moves()
    with file.open("r+b") as stopped:
        fcntl.flock(stopped, fcntl.LOCK_EX)
        await cache.announce(["a"])
    assert moves.heard() == ()
    await cache.announce(["b"])
    assert moves.heard() == ["b"]


async def test_without_a_place_for_the_file_the_process_hears_itself(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    async with LocalCache(tmp_path / "file" / FILE, 100, FakeClock()) as cache:
        moves = cache.moves()
        await cache.add({"a": b"1"}, 60)
        await cache.announce(["a"])
        assert moves.heard() == ["a"]
        assert await cache.get(["a"]) == [None]


async def test_on_a_full_disk_announcements_are_not_shared_and_nothing_breaks(
    cache: LocalCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(file: int, data: bytes, at: int) -> int:
        raise OSError(errno.ENOSPC, "No space left on device")

    moves = cache.moves()
    with monkeypatch.context() as patch:
        patch.setattr(os, "pwrite", full)
        await cache.announce(["a"])
    assert moves.heard() == ()
    await cache.announce(["b"])
    assert moves.heard() == ["b"]


async def test_a_process_that_was_overtaken_forgets_its_own_values(
    file: Path, cache: LocalCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rings, "BYTES", 100)
    await cache.add({"a": b"1"}, 60)
    async with LocalCache(file, 100, FakeClock()) as other:
        for number in range(20):
            await other.announce([f"p:{number}"])
    assert await cache.get(["a"]) == [None]
