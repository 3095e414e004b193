"""kill -9 at random points, under load: nothing that was answered is lost, doubled, changed or miscounted."""

from __future__ import annotations

import asyncio
import random

import pytest

from tests.acceptance.oracle import Oracle, settled
from tests.acceptance.program import Program
from tests.acceptance.sites import Site

pytestmark = pytest.mark.acceptance

KILLS_OF_ALL = 8
KILLS_OF_EACH = 6
KILLED_WHILE_STARTING = 0.3
"""How often the next kill comes before the program is ready again: recovery must survive being interrupted."""


async def kill_and_start(program: Program, random_: random.Random) -> int:
    """Kills it now, and perhaps once more on its way back; the number of kills."""
    program.kill()
    kills = 1
    if random_.random() < KILLED_WHILE_STARTING:
        program.launch()
        await asyncio.sleep(random_.uniform(0, 0.8))  # any point of its start
        program.kill()
        kills += 1
    await program.start()
    return kills


async def test_killing_the_whole_program_at_random_points_loses_and_doubles_nothing(site: Site, seed: int) -> None:
    random_ = random.Random(seed)
    program = await site.program().start()
    kills = 0
    async with site.load(seed, pause_s=0.01) as load:
        while kills < KILLS_OF_ALL:
            await load.answered(random_.randrange(20, 500))
            await asyncio.sleep(random_.uniform(0, 0.3))  # any point of a flush
            kills += await kill_and_start(program, random_)
    async with Oracle(site.data_dir) as oracle:
        await settled(oracle, load)


async def test_killing_api_and_worker_processes_at_random_points_loses_and_doubles_nothing(
    site: Site, seed: int
) -> None:
    random_ = random.Random(seed)
    api, worker = site.program("api"), site.program("worker")
    await asyncio.gather(api.start(), worker.start())
    victims = [api, worker] * KILLS_OF_EACH
    random_.shuffle(victims)
    async with site.load(seed, pause_s=0.01) as load:
        for victim in victims:
            await load.answered(random_.randrange(20, 300))
            await asyncio.sleep(random_.uniform(0, 0.3))
            await kill_and_start(victim, random_)
    async with Oracle(site.data_dir) as oracle:
        await settled(oracle, load)
