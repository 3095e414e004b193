"""The real Redis for tests: started by tests/services if nobody has, a prefix of its own for each test."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

SERVICE = Path(__file__).parents[1] / "services" / "service"
OWN_PORT = {"REDIS_PORT": "26379"}


def service(*arguments: str, **ports: str) -> dict[str, str]:
    """``service("start", "redis")``: what it prints, as key → value."""
    command = [str(SERVICE), *arguments]
    done = subprocess.run(
        command, check=False, capture_output=True, text=True, timeout=120, env={**os.environ, **ports}
    )
    assert done.returncode == 0, done.stderr
    return dict(pair.partition("=")[::2] for pair in done.stdout.split())


class OwnRedis:
    """A server to be stopped and killed; its data stay."""

    def __init__(self) -> None:
        self.url = ""

    def start(self) -> str:
        self.url = service("start", "redis", "--appendonly", "yes", "--appendfsync", "always", **OWN_PORT)["url"]
        return self.url

    def stop(self, how: str) -> None:
        service("stop", "redis", how, **OWN_PORT)
