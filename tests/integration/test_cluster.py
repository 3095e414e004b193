"""The proof, with real servers: two APIs, two workers, and one fault after another under load.

Each time the same must hold as on one machine: what was answered is stored, once, as it was sent; counters are exact; a
session has one profile; every answer was 200 or an honest 503; and nobody had to be restarted to go on.
"""

from __future__ import annotations

import os
import random
import secrets
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import aiohttp
import pytest

from tests.acceptance import merges
from tests.acceptance.load import Load
from tests.acceptance.program import Program, until
from tests.integration.cluster import Cluster, Servers, stored
from tests.integration.elastic_proxy import Crowd, Proxy
from tests.integration.storm import Storm, plan
from tracardi_lite.client import AsyncClient, Event

pytestmark = [pytest.mark.integration, pytest.mark.slow]

EVENTS = 100
"""How many are to be answered, or stored, before a test goes on."""
SLOW_S = 0.5
"""Between a connection's posts while a test waits for a server that may take its time to recover its data: the oracle's
searches show it no more than 10,000 records."""
STORED = 'tracardi_lite_store_verdicts_total{kind="event",outcome="stored"}'
STORM_S = float(os.environ.get("TEST_STORM_S", "60"))
"""For how long faults begin in the random test. Which ones, and when, comes from TEST_SEED."""
REFUSED_WITHIN_S = 10.0
"""A queue that is away is found out in 4 s at most; the rest is for two busy cores."""


@pytest.fixture(scope="module")
def servers() -> Iterator[Servers]:
    with Servers().running() as servers:
        yield servers


@pytest.fixture
async def cluster(servers: Servers, tmp_path: Path) -> AsyncIterator[Cluster]:
    async with Cluster(servers, tmp_path).running() as cluster:
        yield cluster


@pytest.fixture
async def proxy(servers: Servers) -> AsyncIterator[Proxy]:
    """Between the processes of ``cluster_behind_proxy`` and Elasticsearch."""
    async with Proxy(servers.said["elasticsearch"]["url"]).running() as proxy:
        yield proxy


@pytest.fixture
async def cluster_behind_proxy(servers: Servers, proxy: Proxy, tmp_path: Path) -> AsyncIterator[Cluster]:
    async with Cluster(servers, tmp_path, ELASTIC_HOST=proxy.url).running() as cluster:
        yield cluster


def honest(load: Load) -> bool:
    """Every refusal came soon, with a Retry-After, and said 503; the oracle judges all other answers."""
    return all(
        status == 503 and retry_after is not None and int(retry_after) >= 1 and took_s <= REFUSED_WITHIN_S
        for status, retry_after, took_s in load.refusals
    )


async def test_two_apis_and_two_workers_share_the_work_and_keep_nothing_on_their_disks(
    cluster: Cluster, seed: int
) -> None:
    async with cluster.load(seed) as load:
        await load.answered(2 * EVENTS)
    judgement = await cluster.settled(load)
    assert load.statuses.keys() == {200}
    assert len({event["metadata"]["instance"]["id"] for event in judgement.events}) == 2, "one API took all the posts"
    for worker in cluster.workers:
        assert (await worker.metrics())[STORED] > 0, "the other worker did all the work"
    assert not [file for program in cluster.programs for file in program.data_dir.rglob("*")]


async def test_kill_9_of_an_api_costs_no_more_than_the_posts_it_had_in_its_hands(cluster: Cluster, seed: int) -> None:
    random_ = random.Random(seed)
    api = random_.choice(cluster.apis)
    async with cluster.load(seed) as load:
        await load.answered(random_.randrange(20, EVENTS))
        api.kill()
        await load.answered(EVENTS)  # the other goes on
        await api.start()
        await load.answered(EVENTS)
    await cluster.settled(load)
    assert honest(load), load.refusals


async def test_kill_9_of_a_worker_gives_its_messages_to_the_other(cluster: Cluster, seed: int) -> None:
    random_ = random.Random(seed)
    worker = random_.choice(cluster.workers)
    async with cluster.oracle() as oracle, cluster.load(seed) as load:
        await load.answered(random_.randrange(20, EVENTS))
        worker.kill()
        await stored(oracle, EVENTS)
        await worker.start()
        await load.answered(EVENTS)
    await cluster.settled(load)
    assert load.statuses.keys() == {200}, "a worker's death is not the APIs' affair"


async def test_while_pulsar_is_away_the_answer_is_503_and_when_it_is_back_all_goes_on(
    cluster: Cluster, seed: int
) -> None:
    async with cluster.load(seed) as load:
        await load.answered(EVENTS)
        await cluster.stop("pulsar", "--kill")
        await refused(load)
        await cluster.start("pulsar")
        await load.answered(EVENTS, within_s=60)
        await cluster.all_ready()
    await cluster.settled(load)
    assert honest(load), load.refusals


async def refused(load: Load) -> None:
    seen = len(load.refusals)

    async def more() -> bool:
        return len(load.refusals) >= seen + 2 * load.connections

    await until("posts are refused", more, 30)


async def test_while_elasticsearch_is_away_the_queue_holds_and_when_it_is_back_the_workers_catch_up(
    cluster: Cluster, seed: int
) -> None:
    async with cluster.oracle() as oracle, cluster.load(seed, pause_s=SLOW_S) as load:
        await stored(oracle, EVENTS)
        await cluster.stop("elasticsearch", "--kill")
        await load.answered(EVENTS)
        await cluster.start("elasticsearch")
        await stored(oracle, EVENTS, within_s=120)
        await cluster.all_ready()
    await cluster.settled(load)
    assert honest(load), load.refusals


async def test_while_elasticsearch_answers_429_the_work_goes_on_more_slowly(
    cluster_behind_proxy: Cluster, proxy: Proxy, seed: int
) -> None:
    cluster, crowd = cluster_behind_proxy, Crowd(random.Random(seed))
    async with cluster.oracle() as oracle, cluster.load(seed) as load:
        await stored(oracle, EVENTS)
        proxy.crowd = crowd
        await load.answered(2 * EVENTS)
        await stored(oracle, EVENTS)
        proxy.crowd = None
        await load.answered(EVENTS)
    await cluster.settled(load)
    assert crowd.requests > 0, "no request was rejected as a whole"
    assert crowd.items > 0, "no item of a bulk was rejected"
    assert honest(load), load.refusals


async def test_without_redis_nothing_is_refused_or_wrong(cluster: Cluster, seed: int) -> None:
    async with cluster.oracle() as oracle, cluster.load(seed) as load:
        await load.answered(EVENTS)
        await cluster.stop("redis", "--kill")
        await load.answered(EVENTS)
        await stored(oracle, EVENTS)
        await cluster.start("redis")
        await load.answered(EVENTS)
        await cluster.all_ready()
    await cluster.settled(load)
    assert load.statuses.keys() == {200}


async def test_without_mysql_known_sources_are_served_on(cluster: Cluster, seed: int) -> None:
    async with cluster.oracle() as oracle, cluster.load(seed) as load:
        await load.answered(EVENTS)
        await cluster.stop("mariadb", "--kill")
        await load.answered(3 * EVENTS)  # for longer than what is known of a source is taken to be fresh
        await stored(oracle, EVENTS)
        assert await status_of_an_unknown_source(cluster) == 503, "nobody can tell, so nobody guesses"
        await cluster.start("mariadb")
        await load.answered(EVENTS)

        async def asked() -> bool:
            return await status_of_an_unknown_source(cluster) == 401

        await until("the registry is asked again", asked, 30, cluster.logs)
        await cluster.all_ready()
    await cluster.settled(load)
    assert load.statuses.keys() == {200}


async def status_of_an_unknown_source(cluster: Cluster) -> int:
    """What a post with a source gets that nobody has ever asked for."""
    body = {"source": {"id": secrets.token_hex(8)}, "events": [{"type": "page-view"}]}
    async with aiohttp.ClientSession() as http, http.post(f"{cluster.balancer.base}/track", json=body) as answer:
        return answer.status


async def test_a_paused_worker_loses_its_messages_to_the_other_and_wakes_up_without_harm(
    cluster: Cluster, seed: int
) -> None:
    paused: Program = cluster.workers[0]
    async with cluster.oracle() as oracle, cluster.load(seed) as load:
        await load.answered(EVENTS)
        paused.send(signal.SIGSTOP)
        await load.answered(2 * EVENTS)  # for its keys, too
        await load.stop()

        async def moved() -> bool:
            return (await oracle.queue.totals()).stored >= len(load.obligations)

        await until("the other worker has stored everything", moved, 60, cluster.logs)
        paused.send(signal.SIGCONT)
    async with cluster.load(seed + 1) as more:
        await more.answered(EVENTS)
        await paused.ready()
    await cluster.settled(load, more)
    assert load.statuses.keys() | more.statuses.keys() == {200}


async def test_whatever_happens_at_once_it_holds_and_everybody_finds_back(
    cluster_behind_proxy: Cluster, proxy: Proxy, seed: int
) -> None:
    cluster = cluster_behind_proxy
    async with cluster.load(seed, pause_s=SLOW_S) as load:
        await load.answered(EVENTS)
        await Storm(cluster, proxy, seed).blow(plan(seed, STORM_S))
        await cluster.all_ready()
        await load.answered(EVENTS, within_s=60)
    await cluster.settled(load)
    assert honest(load), load.refusals


async def test_once_a_worker_has_merged_two_profiles_the_next_answer_of_every_api_names_the_survivor(
    cluster: Cluster, seed: int
) -> None:
    async with cluster.oracle() as oracle:
        for number, api in enumerate(cluster.apis):
            async with AsyncClient(api.base, "default") as door:
                await merges.is_answered_at_once(oracle, door, seed + number, rounds=4)


async def test_what_one_api_has_looked_up_the_other_knows_from_redis_while_elasticsearch_is_away(
    cluster: Cluster, seed: int
) -> None:
    first, second = cluster.apis
    async with (
        cluster.oracle() as oracle,
        AsyncClient(first.base, "default") as door,
        AsyncClient(second.base, "default") as other,
    ):
        # A profile that only the directory can know: the session began with another one's id.
        owner = (await door.send([Event("page-view")], session_id=f"owner-{seed}")).profile_id
        await door.send([Event("page-view")], session_id=f"new-{seed}", profile_id=owner)
        await stored(oracle, 2)
        # The other looks it up, and tells the cache; the first has forgotten, being started anew.
        assert (await other.send([Event("page-view")], session_id=f"new-{seed}")).profile_id == owner
        assert await first.terminate() == 0
        await cluster.stop("elasticsearch", "--kill")
        await first.start()
        assert (await door.send([Event("page-view")], session_id=f"new-{seed}")).profile_id == owner
        await cluster.start("elasticsearch")
