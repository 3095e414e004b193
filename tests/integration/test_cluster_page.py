"""docs/cluster.md with real servers: its commands are run in order, in one shell, as a reader would."""

from __future__ import annotations

import os
import re
import secrets
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.elastic import service

pytestmark = [pytest.mark.integration, pytest.mark.slow]

PAGE = (Path(__file__).parents[2] / "docs" / "cluster.md").read_text(encoding="utf-8")
COMMANDS = "".join(re.findall(r"^```bash\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL))
LIMIT_S = 240


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.fixture
def script() -> Iterator[str]:
    """The page's commands with the addresses of our servers, and names of their own in each."""
    name = f"t{secrets.token_hex(5)}"
    pulsar, elastic = service("start", "pulsar"), service("start", "elasticsearch")["url"]
    redis, mysql = service("start", "redis")["url"], service("start", "mariadb")["url"]
    database = ["mariadb", "-h127.0.0.1", "-P" + mysql.rpartition(":")[2].partition("/")[0], "-utracardi", "-ptracardi"]
    subprocess.run([*database, "-e", f"create database tracardi_{name}"], check=True)
    ours = {
        "pulsar://pulsar:6650": pulsar["service"],
        "http://pulsar:8080": pulsar["admin"],
        "http://elasticsearch:9200": elastic,
        "redis:6379": redis.removeprefix("redis://").removesuffix("/0"),
        "mariadb:3306": "127.0.0.1:" + mysql.rpartition(":")[2].partition("/")[0],
        "MYSQL_DATABASE=tracardi": f"MYSQL_DATABASE=tracardi_{name}",
        "8686": str(free_port()),
        "8687": str(free_port()),
    }
    text = COMMANDS
    for theirs, mine in ours.items():
        assert theirs in text, theirs
        text = text.replace(theirs, mine)
    before = f"export TENANT_NAME={name} PULSAR_TENANT={name} TRACARDI_LITE_WORKER_PORT={ours['8687']}\n"
    yield f"set -e\ntrap 'kill $(jobs -p)' EXIT\n{before}export BULK_IDLE=0.1 ELASTIC_INDEX_SHARDS=1\n{text}"
    subprocess.run([*database, "-e", f"drop database tracardi_{name}"], check=True)
    for target in (f"*{name}*?expand_wildcards=all", f"_index_template/*{name}*"):
        subprocess.run(["curl", "-fsS", "-XDELETE", f"{elastic}/{target}"], check=True, capture_output=True)


def test_every_command_of_the_page_works_in_order(script: str, tmp_path: Path) -> None:
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    with subprocess.Popen(
        ["bash", "-c", script],
        cwd=tmp_path,
        env={"PATH": path, "HOME": str(tmp_path)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as shell:
        try:
            said, _ = shell.communicate(timeout=LIMIT_S)
        except subprocess.TimeoutExpired:
            os.killpg(shell.pid, signal.SIGKILL)
            said, _ = shell.communicate()
            raise AssertionError(f"not within {LIMIT_S} s:\n{said}") from None
    assert shell.returncode == 0, said
    assert "queue: create topic" in said
    assert "Nothing to do: all is there." in said
    assert "Dropped 0 records." in said
    assert re.search(r"set .*retention.* to .*20160.*\(was .*43200", said), "the policy was changed, and said"
