"""A disk that is full, or fails: an honest 503 at once, recovery without a restart, and nothing answered is lost.

These need root (for a small file system of their own) or a C compiler, so they run with the integration tests.
"""

from __future__ import annotations

import asyncio
import errno
import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.load import Load
from tests.acceptance.oracle import Oracle, settled
from tests.acceptance.program import Program, until
from tests.acceptance.sites import Site

pytestmark = [pytest.mark.acceptance, pytest.mark.integration]

HERE = Path(__file__).parent
DISK_BYTES = 96 << 20
ROOM_BYTES = 12 << 20
"""What the ballast leaves of the disk: some thousands of events."""
REFUSED_WITHIN_S = 3.0
REFUSALS = 10


@pytest.fixture
def small_disk(tmp_path: Path, installed: Path) -> Iterator[Site]:
    """A site whose data directory is on a file system of DISK_BYTES."""
    folder = tmp_path / "disk"
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "tmpfs", str(folder)], check=True)
    site = Site(folder, installed, logs=tmp_path)
    try:
        yield site
    finally:
        site.close()
        subprocess.run(["umount", str(folder)], check=True)


@pytest.mark.parametrize("free_min", [0, 4 << 20], ids=["until the last byte", "with space kept free"])
async def test_a_full_disk_is_an_honest_503_and_is_got_over_when_there_is_space_again(
    small_disk: Site, seed: int, free_min: int
) -> None:
    program = await small_disk.program(env={"DISK_FREE_MIN": str(free_min)}).start()
    ballast = small_disk.data_dir.parent / "ballast"
    async with small_disk.load(seed) as load:
        await load.answered(200)
        free = os.statvfs(ballast.parent).f_bavail * os.statvfs(ballast.parent).f_frsize
        with ballast.open("wb") as file:
            os.posix_fallocate(file.fileno(), 0, max(free - free_min - ROOM_BYTES, 1))
        await refuses(load, program)
        await says_it_is_not_ready(program)
        ballast.unlink()
        await serves_again(load, program)
    async with Oracle(small_disk.data_dir) as oracle:
        await settled(oracle, load)
    assert program.starts == 1


@pytest.fixture(scope="session")
def failing_disk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The preloaded library that makes system calls fail while its control file says so."""
    library = tmp_path_factory.mktemp("library") / "failing_disk.so"
    source = str(HERE / "failing_disk.c")
    subprocess.run(["cc", "-O1", "-shared", "-fPIC", "-o", str(library), source, "-ldl"], check=True)
    return library


@pytest.mark.parametrize(
    "fault",
    [f"sync {errno.EIO}", f"write {errno.ENOSPC}", f"write {errno.EIO}"],
    ids=["fsync fails", "no space", "writing fails"],
)
async def test_a_failing_disk_is_an_honest_503_and_is_got_over_when_it_works_again(
    site: Site, seed: int, failing_disk: Path, fault: str
) -> None:
    control = site.data_dir.parent / "fault"
    program = site.program(
        env={
            "LD_PRELOAD": str(failing_disk),
            "FAILING_DISK_UNDER": str(site.data_dir),
            "FAILING_DISK_CONTROL": str(control),
        }
    )
    await program.start()
    async with site.load(seed) as load:
        for _ in range(2):
            await load.answered(200)
            write(control, fault)
            await refuses(load, program)
            await says_it_is_not_ready(program)
            control.unlink()
            await serves_again(load, program)
        # What was answered after the fault must not lean on what the fault left half done.
        program.kill()
        await program.start()
        await load.answered(100)
    async with Oracle(site.data_dir) as oracle:
        await settled(oracle, load)


def write(control: Path, fault: str) -> None:
    """In one step, since the library may read it at any moment."""
    draft = control.with_suffix(".draft")
    draft.write_text(fault + "\n")
    draft.rename(control)


async def refuses(load: Load, program: Program) -> None:
    """Waits for a series of refusals with no success between them; each must be quick and say when to come back."""
    since = time.monotonic()
    while True:
        successes, refusals = load.statuses[200], len(load.refusals)

        async def enough(refusals: int = refusals) -> bool:
            return len(load.refusals) >= refusals + REFUSALS

        await until("the server refuses", enough, 60, lambda: f"{load.statuses}\n{program.log()}")
        if load.statuses[200] == successes:
            break
        assert time.monotonic() - since < 60, f"still answers 200 now and then: {load.statuses}"
    for status, retry_after, seconds in load.refusals[-REFUSALS:]:
        assert status == 503
        assert retry_after is not None
        assert int(retry_after) >= 1
        assert seconds < REFUSED_WITHIN_S, f"a refusal took {seconds:.1f} s"


async def says_it_is_not_ready(program: Program) -> None:
    async def unready() -> bool:
        status, _ = await program.get("/health/ready")
        return status == 503

    await until("readiness is false", unready, 10, program.log)
    status, text = await program.get("/health/live")
    assert status == 200, "a full disk is no reason to be restarted"
    status, text = await program.get("/health/ready")
    assert any(part in text for part in ("queue", "disk", "store")), f"readiness does not name the part: {text}"


async def serves_again(load: Load, program: Program) -> None:
    await asyncio.gather(load.answered(200, within_s=45), program.ready(45))
