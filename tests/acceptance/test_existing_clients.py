"""The clients that exist work against the installed program as they are: their requests, played call by call, and the
one that a registry still has, installed from there. And our own, against the real thing."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import venv
from collections import Counter
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from tests.acceptance.program import PASSWORD, USER, Program, until
from tests.acceptance.sites import Site
from tracardi_lite.client import AsyncClient, Client, Event

pytestmark = pytest.mark.acceptance

CLIENTS = {
    file.stem: json.loads(file.read_text()) for file in sorted((Path(__file__).parent / "clients").glob("*.json"))
}
STORED_S = 20.0
_NAME = re.compile(r"\$\{(\w+)\}")


def filled(value: Any, names: dict[str, str]) -> Any:
    """The value with every ``${name}`` replaced."""
    if isinstance(value, str):
        return _NAME.sub(lambda match: names[match[1]], value)
    if isinstance(value, list):
        return [filled(part, names) for part in value]
    if isinstance(value, dict):
        return {key: filled(part, names) for key, part in value.items()}
    return value


def at(answer: Any, path: str) -> Any:
    for part in path.split("."):
        answer = answer[int(part)] if isinstance(answer, list) else answer[part]
    return answer


async def ask(http: aiohttp.ClientSession, base: str, call: dict[str, Any]) -> tuple[int, Any, Any]:
    """Status, answer and headers. Sends no header that the client does not send (but Host and Content-Length)."""
    body = json.dumps(call["json"]) if "json" in call else call.get("text")
    data = call["form"] if "form" in call else None if body is None else body.encode()
    async with http.request(
        call["method"],
        base + call["path"],
        headers=call.get("headers", {}),
        data=data,
        skip_auto_headers=["User-Agent", "Accept", "Accept-Encoding"] + ([] if "form" in call else ["Content-Type"]),
    ) as response:
        text = await response.text()
        return response.status, json.loads(text) if text[:1] in ("{", "[", '"', "n") else text, response.headers


def check(call: dict[str, Any], status: int, answer: Any, headers: Any) -> None:
    said = f"{call['method']} {call['path']} was answered {status} {answer}"
    assert status == call["status"], said
    for path in call.get("strings", []):
        assert isinstance(at(answer, path), str), said
        assert at(answer, path), said
    for path, value in call.get("equals", {}).items():
        assert at(answer, path) == value, said
    for name, value in call.get("answer_headers", {}).items():
        assert headers.get(name) == value, f"{said} with {dict(headers)}"


async def stored_types(http: aiohttp.ClientSession, program: Program, token: str, profile: str) -> Counter[str]:
    headers = {"Authorization": f"Bearer {token}"}
    async with http.get(f"{program.base}/events/profile/{profile}?limit=1000", headers=headers) as response:
        assert response.status == 200, await response.text()
        return Counter(event["type"] for event in (await response.json())["result"])


async def log_in(http: aiohttp.ClientSession, program: Program) -> str:
    async with http.post(f"{program.base}/user/token", data={"username": USER, "password": PASSWORD}) as response:
        assert response.status == 200, await response.text()
        return str((await response.json())["access_token"])


async def find(
    http: aiohttp.ClientSession, program: Program, profile: str, expected: Counter[str], token: str = ""
) -> None:
    token = token or await log_in(http, program)
    found: Counter[str] = Counter()

    async def all_there() -> bool:
        nonlocal found
        found = await stored_types(http, program, token, profile)
        return all(found[type] == count for type, count in expected.items())

    await until(f"{expected} are stored", all_there, STORED_S, lambda: f"found {found}\n{program.log()}")


@pytest.mark.parametrize("client", CLIENTS)
async def test_what_a_client_sends_is_answered_as_it_expects_and_stored(client: str, site: Site) -> None:
    script = CLIENTS[client]
    program = await site.program().start()
    names = {"username": USER, "password": PASSWORD}
    async with aiohttp.ClientSession() as http:
        for raw in script["calls"]:
            call = filled(raw, names)
            if call.get("settles"):
                # What it reads has been answered for, and is stored a moment later.
                await find(http, program, names["profile"], Counter(script["stored"]))
            outcome = await ask(http, program.base, call)
            check(call, *outcome)
            for name, path in call.get("remember", {}).items():
                names[name] = at(outcome[1], path)
        await find(http, program, names["profile"], Counter(script["stored"]))


async def test_our_own_clients_agree_with_the_program(site: Site) -> None:
    program = await site.program().start()
    async with AsyncClient(program.base, "default", batch_age_s=0.05, compress=True) as tracardi:
        for n in range(250):
            await tracardi.track("client-step", {"n": n, "text": "x" * 50})
        await tracardi.flush()
        stats = tracardi.stats
        assert (stats.delivered, stats.refused, stats.undelivered) == (250, 0, 0)
        profile = tracardi.profile_id
        assert profile is not None

        event = Event("client-step", {"n": 250})
        for _ in range(3):  # as after lost answers
            receipt = await tracardi.send([event])
            assert receipt.profile_id == profile
        mixed = await tracardi.send([Event("client-step"), Event("x" * 5000)])
        assert mixed.status == 226
        assert [(error.index, error.reason) for error in mixed.errors] == [(1, "invalid")]

    async with aiohttp.ClientSession() as http:
        await find(http, program, profile, Counter({"client-step": 252}))


async def test_our_blocking_client_agrees_with_the_program(site: Site) -> None:
    program = await site.program().start()

    def work() -> str:
        with Client(program.base, "default") as tracardi:
            tracardi.track("blocking-step", session_id="blocking-1")
            return str(tracardi.send([Event("blocking-step")], session_id="blocking-1").profile_id)

    profile = await asyncio.to_thread(work)
    async with aiohttp.ClientSession() as http:
        await find(http, program, profile, Counter({"blocking-step": 2}))


@pytest.mark.integration
async def test_the_client_from_the_registry_works_as_installed(site: Site, tmp_path: Path) -> None:
    program = await site.program().start()
    folder = tmp_path / "client"
    await asyncio.to_thread(venv.create, folder, with_pip=True)
    python = str(folder / "bin" / "python")
    run = ["-m", "pip", "install", "--quiet", "--disable-pip-version-check", "tracardi-track-client==0.7.3"]
    await asyncio.to_thread(subprocess.run, [python, *run], check=True, timeout=300)

    code = f"""
from tracardi_track_client.tracker import track
for n in range(3):
    track("{program.base}", "default", None, "pypi-1", "page-view", {{"n": n}}, {{"c": n}}, {{"r": n}})
"""
    done = await asyncio.to_thread(
        subprocess.run, [python, "-c", code], check=True, timeout=60, capture_output=True, text=True
    )
    lines = done.stdout.splitlines()
    assert [line.split()[1] for line in lines] == ["200"] * 3
    profiles = {match[1] for line in lines if (match := re.search(r"'profile': \{'id': '([^']+)'", line))}
    (profile,) = profiles
    async with aiohttp.ClientSession() as http:
        await find(http, program, profile, Counter({"page-view": 3}))
