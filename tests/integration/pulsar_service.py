"""The real Pulsar for tests: started by tests/services if nobody has, a topic of its own for each test."""

from __future__ import annotations

import asyncio
import os
import subprocess
import uuid
from pathlib import Path
from typing import Any

from tracardi_lite.backends.queue.pulsar import PulsarQueue, open_queue
from tracardi_lite.clock import Clock, SystemClock
from tracardi_lite.settings import Settings
from tracardi_lite.testing.clock import FakeClock
from tracardi_lite.testing.queue_suite import PARTITIONS

SERVICE = Path(__file__).parents[1] / "services" / "service"
NAMESPACE = "system-test"


KEEP_ALIVE_S = 3
OWN_PORTS = {"PULSAR_PORT": "26650", "PULSAR_HTTP_PORT": "28080"}


def service(*arguments: str, **ports: str) -> dict[str, str]:
    """``service("start", "pulsar")``: what it prints, as key → value."""
    command = [str(SERVICE), *arguments]
    done = subprocess.run(
        command, check=False, capture_output=True, text=True, timeout=600, env={**os.environ, **ports}
    )
    assert done.returncode == 0, done.stderr
    return dict(pair.partition("=")[::2] for pair in done.stdout.split())


class OwnPulsar:
    """A broker to be stopped and killed, which soon gives up on clients that are silent."""

    def __init__(self) -> None:
        self.addresses: dict[str, str] = {}

    def start(self) -> dict[str, str]:
        self.addresses = service("start", "pulsar", f"keepAliveIntervalSeconds={KEEP_ALIVE_S}", **OWN_PORTS)
        return self.addresses

    def stop(self, how: str) -> None:
        service("stop", "pulsar", how, **OWN_PORTS)


class PulsarHarness:
    """One fresh topic. Delays follow a clock that is moved; the broker's own time is real."""

    def __init__(self, addresses: dict[str, str]) -> None:
        self._clock: Clock = FakeClock()
        self.chosen: dict[str, Any] = {
            "pulsar_host": addresses["service"],
            "pulsar_api": addresses["admin"],
            "pulsar_system_namespace": NAMESPACE,
            "pulsar_function_topic": f"functions-{uuid.uuid4().hex[:12]}",
            "queue_partitions": PARTITIONS,
        }

    def open(self, *, bytes_max: int | None = None, retention_s: int | None = None) -> PulsarQueue:
        chosen = dict(self.chosen)
        if bytes_max is not None:
            chosen["queue_bytes_max"] = bytes_max
        return open_queue("pulsar:", Settings(**chosen), clock=self._clock)

    async def pass_time(self, seconds: float) -> None:
        assert isinstance(self._clock, FakeClock)
        self._clock.advance(seconds)
        # The broker stamps messages with its producers' real time; what is published next must be younger.
        await asyncio.sleep(0.01)


class SharedPulsarHarness(PulsarHarness):
    """Of several processes, in real time; the broker gives up on a silent client after twice its keep-alive."""

    lease_ttl_s = 2 * KEEP_ALIVE_S

    def __init__(self, addresses: dict[str, str]) -> None:
        super().__init__(addresses)
        self._clock = SystemClock()
        self.url = "pulsar:"
        self.settings = self.chosen

    async def pass_time(self, seconds: float) -> None:
        await asyncio.sleep(seconds * 1.25)
