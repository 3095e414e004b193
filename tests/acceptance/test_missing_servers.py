"""A start without its servers: a line for each try that says what is missing, then an end that says what was waited
for; or, where it can be done without, a line and a start. Nothing listens where the settings lead."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from aiohttp import web
from aiohttp.test_utils import TestServer

from tests.acceptance.program import QUICK, Program, until

pytestmark = pytest.mark.acceptance

WAIT_S = 2
MERGING = "a secret of this installation"


@pytest.fixture
def nowhere() -> Iterator[str]:
    """An address that refuses: taken, so that nobody else listens there, and never listened on."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{taken.getsockname()[1]}"


def lacking(folder: Path, setting: str, address: str, role: str = "all") -> Program:
    env = {**QUICK, "WAIT_FOR_DEPENDENCIES": str(WAIT_S), "AUTO_PROFILE_MERGING": MERGING, "LOGGING_LEVEL": "warning"}
    return Program(folder / "data", role=role, env={**env, setting: address})


@pytest.mark.parametrize(
    ("setting", "part", "role", "said"),
    [
        ("MYSQL_HOST", "registry", "all", "Can't connect to MySQL server"),
        ("PULSAR_HOST", "queue", "api", "no broker of pulsar://127.0.0.1:"),
        ("QUEUE_URL", "queue", "all", "Redis: Error 111"),
        ("ELASTIC_HOST", "store", "worker", "Elasticsearch at http://127.0.0.1:"),
    ],
)
async def test_what_is_needed_is_waited_for_and_then_the_start_fails(
    tmp_path: Path, nowhere: str, setting: str, part: str, role: str, said: str
) -> None:
    program = lacking(tmp_path, setting, f"redis://{nowhere}" if setting == "QUEUE_URL" else nowhere, role)
    program.launch()
    assert await program.ended(WAIT_S + 25) == 1
    lines = program.said().splitlines()
    tries = [line for line in lines if "waiting_for" in line]
    assert len(tries) >= 2
    for line in tries:
        assert re.search(rf"\bpart\W+{part}\b", line)
        assert said in line
        assert "seconds_left" in line
    last = lines[-1]
    assert last.startswith(f"Error: {part}: ")
    assert said in last
    assert last.endswith(f"; a start waits {WAIT_S} s for its servers (WAIT_FOR_DEPENDENCIES)")


@pytest.mark.parametrize(
    ("setting", "part", "role"), [("ELASTIC_HOST", "store", "api"), ("REDIS_HOST", "cache", "all")]
)
async def test_what_can_be_done_without_is_said_and_the_door_opens(
    tmp_path: Path, nowhere: str, setting: str, part: str, role: str
) -> None:
    program = lacking(tmp_path, setting, nowhere, role)
    try:
        await program.start()
        [line] = [line for line in program.said().splitlines() if "going_on_without" in line]
        assert re.search(rf"\bpart\W+{part}\b", line)
        assert nowhere in line
        _, health = await program.get("/health/ready")
        assert (nowhere in health) == (part == "cache"), "a cache that is away is reported, by a program that is ready"
        assert await program.terminate() == 0
    finally:
        program.kill()


async def test_a_stop_while_waiting_is_obeyed(tmp_path: Path, nowhere: str) -> None:
    program = lacking(tmp_path, "MYSQL_HOST", nowhere)
    program.env["WAIT_FOR_DEPENDENCIES"] = "600"
    program.launch()
    try:

        async def waits() -> bool:
            return "waiting_for" in program.said()

        await until("it waits", waits, 20, program.log)
        assert await program.terminate(10) == 1
    finally:
        program.kill()


async def test_a_store_without_room_is_there(tmp_path: Path) -> None:
    """And what works again when space returns must not need a restart to begin with."""

    async def flooded(request: web.Request) -> web.Response:
        if "/_cluster/state/blocks" not in request.path:
            return web.Response(status=503)
        return web.json_response({"blocks": {"indices": {"an-index": {"12": {"description": "flood stage"}}}}})

    elasticsearch = web.Application()
    elasticsearch.router.add_route("*", "/{path:.*}", flooded)
    async with TestServer(elasticsearch) as server:
        program = lacking(tmp_path, "ELASTIC_HOST", str(server.make_url("")), "worker")
        program.launch()
        try:
            await program.listening()
            assert "an-index is read-only" in program.said()
            assert (await program.get("/health/live"))[0] == 200
            assert "disk is full" in (await program.get("/health/ready"))[1]
        finally:
            program.kill()
