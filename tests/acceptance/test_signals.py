"""SIGTERM ends the program in good order; SIGSTOP moves its work to another, and SIGCONT spoils nothing."""

from __future__ import annotations

import asyncio
import signal

import pytest

from tests.acceptance.oracle import Oracle, settled
from tests.acceptance.program import Failed, Program, until
from tests.acceptance.sites import Site

pytestmark = pytest.mark.acceptance


async def test_sigterm_under_load_turns_readiness_off_first_and_exits_with_zero_losing_nothing(
    site: Site, seed: int
) -> None:
    program = await site.program(env={"SHUTDOWN_DELAY": "0.5"}).start()
    async with site.load(seed) as load:
        await load.answered(300)
        program.send(signal.SIGTERM)

        async def unready() -> bool:
            status, _ = await program.get("/health/ready")
            assert status in (200, 503), "the port was closed before readiness went false"
            return status == 503

        await until("readiness goes false", unready, 2, program.log)
        answered = len(load.obligations)
        assert await program.ended(20) == 0, program.log()
        assert len(load.obligations) > answered, "no post was answered between the signal and the closing of the port"

        # A second signal to a restarted program, with nothing but its backlog to finish.
        await program.start()
        await load.answered(100)
    assert await program.terminate(20) == 0, program.log()
    await program.start()
    async with Oracle(site.data_dir) as oracle:
        await settled(oracle, load)


async def test_what_arrives_in_the_last_instant_before_the_end_is_kept_once_or_was_not_answered(
    site: Site, seed: int
) -> None:
    program = await site.program().start()
    async with site.load(seed, connections=24, sizes=(1,)) as load:
        for _ in range(5):
            await load.answered(150)
            # At once, with posts in the kernel, at the door and in a group commit.
            assert await program.terminate(20) == 0, program.log()
            await program.start()
        await load.answered(150)
    async with Oracle(site.data_dir) as oracle:
        await settled(oracle, load)


async def test_a_worker_that_is_paused_until_its_leases_move_can_wake_up_without_harm(site: Site, seed: int) -> None:
    api, *workers = site.program("api"), site.program("worker"), site.program("worker")
    await asyncio.gather(*(program.start() for program in [api, *workers]))
    async with Oracle(site.data_dir) as oracle, site.load(seed, pause_s=0.01) as load:
        await load.answered(300)
        paused = await pause_between_transactions(workers[0], oracle)
        await load.answered(500)  # for the paused one's partitions too, which the other must take over
        await load.stop()
        await oracle.drained()
        paused.send(signal.SIGCONT)

    # It comes back with what it had in its hands; its late writes and acknowledgements must change nothing.
    async with Oracle(site.data_dir) as oracle, site.load(seed + 1) as more:
        await more.answered(300)
        await paused.ready()
        await more.stop()
        await settled(oracle, load, more)


async def pause_between_transactions(worker: Program, oracle: Oracle) -> Program:
    """Stops the worker where it does not hold a database's write lock.

    A process that is stopped in the middle of an SQLite transaction keeps its file locks, so nobody can write until it
    goes on: a limit of embedded databases, stated in the docs. So: stop, see whether the other still gets through the
    backlog, and if not, let it go and stop it elsewhere.
    """
    for _ in range(10):
        worker.send(signal.SIGSTOP)
        before = (await oracle.queue.totals()).stored

        async def moves(before: int = before) -> bool:
            return (await oracle.queue.totals()).stored > before

        try:
            await until("the other worker stores something", moves, 6)
        except Failed:
            worker.send(signal.SIGCONT)
            await asyncio.sleep(0.05)
        else:
            return worker
    raise Failed("stopped ten times, and each time nobody else could work")
