"""Several processes on one data directory: one port, one truth."""

from __future__ import annotations

import asyncio
import random
import socket

import pytest

from tests.acceptance import merges
from tests.acceptance.oracle import Oracle, settled
from tests.acceptance.sites import Site
from tracardi_lite.client import AsyncClient, Event

pytestmark = pytest.mark.acceptance

HITS = 10


def free_port() -> int:
    """A port that was free a moment ago: two processes must be told the same one."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


async def test_two_processes_share_one_port_and_one_data_directory(site: Site, seed: int) -> None:
    port = free_port()
    first, second = (site.program(port=port, flags=["--reuse-port"]) for _ in range(2))
    await asyncio.gather(first.start(), second.start())
    async with Oracle(site.data_dir) as oracle:
        async with site.load(seed, connections=24) as load:
            await load.answered(500)
            # One goes, as in a rolling restart: the other takes all, and the port stays open.
            assert await first.terminate() == 0
            await load.answered(200)
            await first.start()
            await load.answered(200)
        judgement = await settled(oracle, load)
    instances = {event["metadata"]["instance"]["id"] for event in judgement.events}
    assert len(instances) >= 2, "one process took all the posts"


@pytest.mark.parametrize("sent", ["no profile", "a foreign profile each"])
async def test_ten_simultaneous_first_hits_of_a_session_on_two_processes_make_one_profile(
    site: Site, seed: int, sent: str
) -> None:
    random_ = random.Random(seed)
    first, second = site.program(), site.program()
    await asyncio.gather(first.start(), second.start())
    load = site.load(seed)

    async def hit(door: AsyncClient, session: str) -> str | None:
        foreign = None if sent == "no profile" else f"foreign-{random_.getrandbits(64):x}"
        event = Event("page-view", {"nonce": f"{random_.getrandbits(64):x}"}, id="")
        receipt = await door.attempt([event], session_id=session, profile_id=foreign)
        assert receipt.status == 200
        return receipt.profile_id

    async with AsyncClient(first.base, "default") as one, AsyncClient(second.base, "default") as other:
        for number in range(5):
            session = f"{seed}-{number}"
            profiles = await asyncio.gather(*(hit(door, session) for door in [one, other] * (HITS // 2)))
            assert None not in profiles
            assert len(set(profiles)) == 1, profiles
            load.profiles[session] = {profile for profile in profiles if profile}

    async with Oracle(site.data_dir) as oracle:
        await oracle.drained()
        events = await oracle.records("event")
        profiles_stored = await oracle.records("profile")
    clients = [event for event in events if not event["source"]["id"].startswith("@")]
    assert len(clients) == 5 * HITS
    assert {event["profile"]["id"] for event in clients} == {profile["id"] for profile in profiles_stored}
    assert {
        session: {event["profile"]["id"] for event in clients if event["session"]["id"] == session}
        for session in load.profiles
    } == load.profiles
    assert [profile["stats"]["counters"]["events"] for profile in profiles_stored] == [HITS] * 5


async def test_once_a_worker_has_merged_two_profiles_the_next_answer_of_an_api_names_the_survivor(
    site: Site, seed: int
) -> None:
    api, worker = site.program("api"), site.program("worker")
    await asyncio.gather(api.start(), worker.start())
    async with Oracle(site.data_dir) as oracle, AsyncClient(api.base, "default") as door:
        await merges.is_answered_at_once(oracle, door, seed, rounds=8)
