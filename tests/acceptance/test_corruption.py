"""Files that a crash or a bad disk has damaged: nothing answered is lost while another copy of it exists.

The queue keeps what was acknowledged for replay, so a damaged store can be made whole from it, and the store has what
a damaged queue had already delivered. What only one damaged page held is gone; no program can change that.
"""

from __future__ import annotations

import random
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from tests.acceptance.oracle import Oracle, settled
from tests.acceptance.program import QUICK, run
from tests.acceptance.sites import Site

pytestmark = pytest.mark.acceptance

WAL_HEADER_BYTES, WAL_FRAME_HEADER_BYTES = 32, 24


async def test_torn_tails_of_the_logs_cost_nothing(site: Site, seed: int) -> None:
    random_ = random.Random(seed)
    program = await site.program().start()
    torn = 0
    async with site.load(seed) as load:
        for _ in range(3):
            await load.answered(300)
            program.kill()
            torn += sum(tear(log, random_) for log in site.data_dir.rglob("*.db-wal"))
            await program.start()
    assert torn >= 3
    async with Oracle(site.data_dir) as oracle:
        await settled(oracle, load)


def tear(log: Path, random_: random.Random) -> bool:
    """Ends a write-ahead log as a crash in the middle of a commit would: with a part of a frame, or with rubbish.

    False for a log without frames.
    """
    data = log.read_bytes()
    frame = data[WAL_HEADER_BYTES:][:4096]
    if len(frame) <= WAL_FRAME_HEADER_BYTES:
        return False
    tail = frame[: random_.randrange(1, len(frame))] if random_.random() < 0.5 else random_.randbytes(5000)
    log.write_bytes(data + tail)
    return True


async def test_a_damaged_page_of_the_queue_costs_nothing_that_was_stored(site: Site, seed: int) -> None:
    random_ = random.Random(seed)
    program = await site.program().start()
    async with site.load(seed) as load:
        await load.answered(1500)
    async with Oracle(site.data_dir) as oracle:
        await oracle.drained()
    program.kill()
    damage(largest(site.data_dir / "queue", "functions-*.db"), random_)

    await program.start()
    async with site.load(seed + 1) as more:
        await more.answered(300)
    async with Oracle(site.data_dir) as oracle:
        await settled(oracle, load, more)


async def test_a_damaged_page_of_the_store_is_made_good_by_a_replay(site: Site, seed: int) -> None:
    random_ = random.Random(seed)
    program = await site.program().start()
    async with site.load(seed) as load:
        await load.answered(1500)
    async with Oracle(site.data_dir) as oracle:
        await oracle.drained()
    program.kill()
    damage(largest(site.data_dir / "store", "event-*.db"), random_)

    await program.start()
    async with site.load(seed + 1) as more:
        await more.answered(300)
    run("seek", "--from-start", data_dir=site.data_dir, env=QUICK)
    async with Oracle(site.data_dir) as oracle:
        judgement = await settled(oracle, load, more, beginnings=False)
    assert judgement.totals.replayed >= len(load.obligations)


def largest(folder: Path, pattern: str) -> Path:
    """The file with most in it, once its log is copied into it."""
    files = list(folder.glob(pattern))
    for file in files:
        with closing(sqlite3.connect(file)) as database:
            database.execute("pragma wal_checkpoint(truncate)")
    return max(files, key=lambda file: file.stat().st_size)


def damage(file: Path, random_: random.Random) -> None:
    """Fills one page, not the first, with rubbish."""
    with closing(sqlite3.connect(file)) as database:
        (page_bytes,) = database.execute("pragma page_size").fetchone()
        (pages,) = database.execute("pragma page_count").fetchone()
    assert pages > 3
    page = random_.randrange(1, pages)
    with file.open("r+b") as opened:
        opened.seek(page * page_bytes)
        opened.write(random_.randbytes(page_bytes))
    print(f"page {page + 1} of {pages} of {file.name} is rubbish now")
