"""The cache port's contract on a real Redis, and what happens without it."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from redis.asyncio import Redis

from tests.acceptance import merges
from tests.acceptance.oracle import Oracle
from tests.acceptance.program import QUICK, Program, install
from tests.integration.redis_service import OwnRedis, service
from tracardi_lite.backends.cache.redis import QUIET_S, RETRY_S, RedisCache, open_cache
from tracardi_lite.client import AsyncClient, Event
from tracardi_lite.errors import Unavailable
from tracardi_lite.settings import Settings
from tracardi_lite.testing.cache_suite import CacheSuite, listens
from tracardi_lite.testing.clock import eventually

pytestmark = pytest.mark.integration


@pytest.fixture(scope="session")
def url() -> str:
    return service("start", "redis")["url"]


@pytest.fixture
def settings() -> Settings:
    return Settings(redis_prefix=f"test-{uuid.uuid4().hex[:8]}", redis_timeout=0.5)


@pytest.fixture
async def cache(url: str, settings: Settings) -> AsyncIterator[RedisCache]:
    async with open_cache(url, settings) as opened:
        yield opened


class TestRedis(CacheSuite):
    @pytest.fixture
    async def cache(self, url: str, settings: Settings) -> AsyncIterator[RedisCache]:
        async with open_cache(url, settings) as opened:
            yield opened

    @pytest.fixture
    async def other(self, url: str, settings: Settings) -> AsyncIterator[RedisCache]:
        async with open_cache(url, settings) as opened:
            yield opened

    @pytest.fixture
    def pass_time(self) -> Callable[[float], Awaitable[None]]:
        return asyncio.sleep


async def test_what_one_process_adds_another_finds(cache: RedisCache, url: str, settings: Settings) -> None:
    async with open_cache(url, settings) as other:
        await cache.add({"a": b"1"}, 60)
        assert await other.get(["a"]) == [b"1"]


async def test_what_others_say_in_the_channel_makes_listeners_careful(
    cache: RedisCache, url: str, settings: Settings
) -> None:
    moves = cache.moves()
    await listens(moves, cache)
    async with Redis.from_url(url) as stranger:
        await stranger.publish(f"{settings.redis_prefix}:moved", b"not ours")
    await eventually(lambda: moves.heard() is None, what="it is told to trust nothing")
    await listens(moves, cache)


async def test_calls_of_one_turn_travel_together(cache: RedisCache, url: str, settings: Settings) -> None:
    await cache.add({f"k{n}": b"v" for n in range(300)}, 60)
    async with open_cache(url, settings) as other:
        trips = []
        send = other._send

        async def counted(batch: object) -> None:
            trips.append(batch)
            await send(batch)  # type: ignore[arg-type]

        other._send = counted  # type: ignore[method-assign]
        found = await asyncio.gather(*(other.get([f"k{n}"]) for n in range(300)))
        assert found == [[b"v"]] * 300
        assert len(trips) <= 3


async def test_a_cancelled_call_leaves_the_others_alone(cache: RedisCache) -> None:
    await cache.add({"a": b"1"}, 60)
    calls = [asyncio.create_task(cache.get([f"other-{n}"])) for n in range(10)]
    await asyncio.sleep(0)
    for call in calls[:5]:
        call.cancel()
    results = await asyncio.gather(*calls, return_exceptions=True)
    assert results[5:] == [[None]] * 5
    assert await cache.get(["a"]) == [b"1"]


@pytest.fixture(scope="module")
def own() -> Iterator[OwnRedis]:
    redis = OwnRedis()
    redis.start()
    yield redis
    redis.stop("--wipe")


async def comes_to(cache: RedisCache, key: str, value: bytes | None, limit_s: float) -> None:
    async with asyncio.timeout(limit_s):
        while await cache.get([key]) != [value]:  # noqa: ASYNC110  (another process changes it)
            await asyncio.sleep(0.02)


class Line:
    """A connection to a server over which, at times, nothing comes, though it stands."""

    def __init__(self, url: str) -> None:
        self._server = urlsplit(url)
        self.url = ""
        self.passes = asyncio.Event()
        self.dialled = 0
        self._connections: set[asyncio.Task[None]] = set()

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Line]:
        self.passes.set()
        async with await asyncio.start_server(self._accept, "127.0.0.1", 0) as server:
            self.url = f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}"
            yield self
            for task in list(self._connections):
                task.cancel()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.dialled += 1
        task = asyncio.create_task(self._carry(reader, writer))
        self._connections.add(task)
        task.add_done_callback(self._connections.discard)

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Until the client hangs up."""
        there, back = await asyncio.open_connection(self._server.hostname, self._server.port)
        answers = asyncio.create_task(self._copy(there, writer))
        try:
            while data := await reader.read(65536):
                back.write(data)
        finally:
            answers.cancel()
            back.close()
            writer.close()

    async def _copy(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while data := await reader.read(65536):
            await self.passes.wait()
            writer.write(data)


class TestAway:
    async def test_losing_redis_slows_and_never_breaks_and_it_comes_back_by_itself(
        self, own: OwnRedis, settings: Settings
    ) -> None:
        async with open_cache(own.url, settings) as cache:
            moves = cache.moves()
            await listens(moves, cache)
            await cache.add({"before": b"1", "moved": b"1"}, 600)
            await asyncio.to_thread(own.stop, "--kill")
            began = time.monotonic()
            await cache.add({"meanwhile": b"2"}, 600)
            assert await cache.get(["before", "meanwhile"]) == [None, None]
            await cache.announce(["moved"])
            assert time.monotonic() - began < 2.0
            with pytest.raises(Unavailable) as trouble:
                await cache.ping()
            assert trouble.value.part == "cache"
            began = time.monotonic()
            assert await asyncio.gather(*(cache.get([f"k{n}"]) for n in range(1000))) == [[None]] * 1000
            assert time.monotonic() - began < 1.0, "it is left alone for a while"

            await asyncio.to_thread(own.start)
            await comes_to(cache, "before", b"1", RETRY_S + 5)
            await cache.ping()
            # Redis has kept it; who moved it says so again.
            await comes_to(cache, "moved", None, RETRY_S + 5)
            await eventually(lambda: moves.heard() is None, what="it is told that it may have missed something")
            await listens(moves, cache)

    async def test_a_subscription_that_hangs_is_given_up(self, url: str, settings: Settings) -> None:
        async with Line(url).open() as line, open_cache(line.url, settings) as cache:
            moves = cache.moves()
            await listens(moves, cache)
            dialled = line.dialled
            line.passes.clear()
            await eventually(lambda: line.dialled > dialled, limit_s=4 * QUIET_S, what="it tries another connection")
            line.passes.set()
            await eventually(lambda: moves.heard() is None, limit_s=RETRY_S + 5, what="it listens anew")
            await listens(moves, cache)

    async def test_a_redis_that_hangs_is_not_waited_for(self, settings: Settings) -> None:
        async def swallow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            try:
                while await reader.read(4096):
                    pass
            finally:
                writer.close()

        async with await asyncio.start_server(swallow, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            async with open_cache(f"redis://127.0.0.1:{port}", settings) as cache:
                began = time.monotonic()
                assert await cache.get(["a"]) == [None]
                assert time.monotonic() - began < 3 * settings.redis_timeout + 0.5
                began = time.monotonic()
                assert await cache.get(["a"]) == [None]
                assert time.monotonic() - began < 0.1


async def _has(url: str, name: str) -> None:
    """Waits until Redis has it."""
    async with Redis.from_url(url) as redis, asyncio.timeout(10):
        while True:
            if await redis.exists(name):
                return
            await asyncio.sleep(0.01)


async def test_processes_whose_cache_is_redis_answer_with_the_survivor_as_soon_as_it_is_stored(
    url: str, settings: Settings, tmp_path: Path, seed: int
) -> None:
    data_dir = tmp_path / "data"
    await asyncio.to_thread(install, data_dir, QUICK)
    env = {**QUICK, "CACHE_URL": url, "REDIS_PREFIX": settings.redis_prefix}
    api, worker = (Program(data_dir, role=role, env=env) for role in ("api", "worker"))
    try:
        await asyncio.gather(api.start(), worker.start())
        async with Oracle(data_dir) as oracle, AsyncClient(api.base, "default") as door:
            await merges.is_answered_at_once(oracle, door, seed, rounds=5)
        for _ in range(2):
            # One that remembers nothing: the first asks the store and tells Redis, the second asks Redis.
            api.kill()
            await api.start()
            async with AsyncClient(api.base, "default") as door:
                await door.send([Event("page-view", {})], session_id=f"older-{seed}-0")
            await _has(url, f"{settings.redis_prefix}:c:s:older-{seed}-0")
        samples = await api.metrics()
    finally:
        for program in (api, worker):
            program.kill()
            print(program.log())
    assert samples['tracardi_lite_cache_hits_total{cache="directory"}'] > 0
    assert not (data_dir / "moved.ring").exists()
