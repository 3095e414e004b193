"""conf/ and the Dockerfile with the programs that read them: nginx, systemd, and ours as the image runs it."""

from __future__ import annotations

import asyncio
import io
import json
import os
import re
import shlex
import shutil
import socket
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path

import aiohttp
import pytest

from tests.acceptance.program import EXECUTABLE, QUICK, Program, run, until
from tests.unit.test_conf import instructions

pytestmark = pytest.mark.integration

ROOT = Path(__file__).parents[2]
NGINX = "/usr/sbin/nginx"
"""Not in everybody's PATH."""


@pytest.fixture
async def program(tmp_path: Path) -> AsyncIterator[Program]:
    (tmp_path / "home").mkdir()
    # What conf/nginx.conf asks for at its head.
    env = {**QUICK, "USE_X_FORWARDED_IP": "x-forwarded-for"}
    program = Program(tmp_path / "home" / "data", env=env)
    try:
        yield await program.start()
    finally:
        program.kill()


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


@contextmanager
def nginx(folder: Path, program: Program) -> Iterator[str]:
    """conf/nginx.conf as it is, but for the two ports, included as Debian's nginx.conf does it; its address."""
    port = free_port()
    site = (ROOT / "conf" / "nginx.conf").read_text(encoding="utf-8")
    ports = {"127.0.0.1:8686;": f"127.0.0.1:{program.port};", "listen 80;": f"listen 127.0.0.1:{port};"}
    for theirs, ours in ports.items():
        assert site.count(theirs) == 1
        site = site.replace(theirs, ours)
    (folder / "site.conf").write_text(site)
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    temporary = " ".join(f"{kind}_temp_path {folder}/{kind};" for kind in kinds)
    (folder / "nginx.conf").write_text(
        f"pid {folder}/nginx.pid; error_log {folder}/error.log; worker_processes 1; daemon off; user {_me()};"
        f"events {{}} http {{ access_log off; {temporary} include {folder}/site.conf; }}"
    )
    command = [NGINX, "-p", str(folder), "-c", str(folder / "nginx.conf")]
    checked = subprocess.run([*command, "-t"], capture_output=True, text=True, timeout=30, check=False)
    assert checked.returncode == 0, checked.stderr
    assert "warn" not in checked.stderr
    with subprocess.Popen(command) as process:
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
            process.wait(30)


def _me() -> str:
    return subprocess.run(["id", "-un"], capture_output=True, text=True, check=True, timeout=10).stdout.strip()


async def _status(session: aiohttp.ClientSession, method: str, url: str, **options: object) -> tuple[int, str]:
    async with session.request(method, url, allow_redirects=False, **options) as answer:  # type: ignore[arg-type]
        return answer.status, await answer.text()


async def test_nginx_passes_the_collector_on_and_nothing_else(program: Program, tmp_path: Path) -> None:
    call = {"source": {"id": "default"}, "session": {"id": "s"}, "events": [{"type": "page-view"}]}
    with nginx(tmp_path, program) as address:
        async with aiohttp.ClientSession() as session:

            async def is_up() -> bool:
                try:
                    return (await _status(session, "GET", f"{address}/healthcheck"))[0] == 200
                except aiohttp.ClientConnectionError:
                    return False

            await until("nginx answers", is_up, 20, program.log)

            claimed = {"X-Forwarded-For": "203.0.113.7"}
            status, text = await _status(session, "POST", f"{address}/track", json=call, headers=claimed)
            assert status == 200, text
            profile = json.loads(text)["profile"]["id"]
            for path in ("/track/", "/collect/page-view/default", "/redirect/unknown", "/tracker/"):
                method = "POST" if path == "/track/" else "GET"
                status, text = await _status(session, method, address + path, json=call)
                assert "nginx" not in text, f"{path} is answered by the program: {status}"
            for path in ("/", "/metrics", "/health/ready", "/user/token", "/profiles", "/trackers", "/x/track"):
                status, text = await _status(session, "GET", address + path)
                assert (status, "nginx" in text) == (404, True), path
            # BODY_MAX, of which both have the same idea.
            for size, expected in ((10 << 20, 422), ((10 << 20) + 1, 413)):
                body = b"x" * size
                assert (await _status(session, "POST", f"{address}/track", data=io.BytesIO(body)))[0] == expected, size

    def stored() -> list[dict[str, dict[str, str]]]:
        said = run("events", "--profile", profile, "--json", data_dir=program.data_dir)
        return [json.loads(line) for line in said.splitlines()]

    async def is_stored() -> bool:
        return bool(await asyncio.to_thread(stored))

    await until("the event is stored", is_stored, 20, program.log)
    addresses = {event["metadata"]["ip"] for event in await asyncio.to_thread(stored)}
    assert addresses == {"127.0.0.1"}, "and not what the client has claimed"


def test_systemd_finds_nothing_to_say_of_the_unit(tmp_path: Path) -> None:
    text = (ROOT / "conf" / "tracardi-lite.service").read_text(encoding="utf-8")
    # It looks whether the program is there.
    text, count = re.subn(r"(?<=^ExecStart=)\S+", str(EXECUTABLE), text, flags=re.MULTILINE)
    assert count == 1
    unit = tmp_path / "tracardi-lite.service"
    unit.write_text(text)
    done = subprocess.run(
        ["systemd-analyze", "verify", str(unit)], capture_output=True, text=True, timeout=60, check=False
    )
    # Of other units on this machine it speaks too.
    said = [line for line in done.stderr.splitlines() if unit.name in line]
    assert (done.returncode, said) == (0, [])


async def test_the_image_s_health_check_tells_a_running_server_from_a_stopped_one(program: Program) -> None:
    [check] = [rest.partition("CMD ")[2] for word, rest in instructions() if word == "HEALTHCHECK"]
    name, *arguments = json.loads(check)
    assert shutil.which(name, path=str(EXECUTABLE.parent)) == str(EXECUTABLE)
    image = {"TRACARDI_LITE_HOST": "0.0.0.0", "TRACARDI_LITE_PORT": str(program.port), "PATH": os.environ["PATH"]}
    said = await asyncio.to_thread(run, *arguments, data_dir=program.data_dir, env=image)
    assert json.loads(said)["status"] == "ready"
    assert await program.terminate() == 0
    with pytest.raises(AssertionError, match=f"(?s)ended with 1.*127.0.0.1:{program.port}"):
        await asyncio.to_thread(run, *arguments, data_dir=program.data_dir, env=image)


def test_the_image_s_entry_point_is_the_program_and_its_command_serves() -> None:
    last = dict(instructions())
    words = json.loads(last["ENTRYPOINT"]) + json.loads(last["CMD"])
    done = subprocess.run(
        [EXECUTABLE.with_name(words[0]), *words[1:], "--help"], capture_output=True, text=True, timeout=30, check=True
    )
    assert done.stdout.startswith(f"Usage: {shlex.join(words)} [OPTIONS]")
