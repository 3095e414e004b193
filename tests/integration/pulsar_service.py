"""The real Pulsar for tests: started by tests/services if nobody has, a topic of its own for each test."""

from __future__ import annotations

import asyncio
import subprocess
import uuid
from pathlib import Path
from typing import Any

from tracardi_lite.backends.queue.pulsar import PulsarQueue, open_queue
from tracardi_lite.settings import Settings
from tracardi_lite.testing.clock import FakeClock
from tracardi_lite.testing.queue_suite import PARTITIONS

SERVICE = Path(__file__).parents[1] / "services" / "service"
NAMESPACE = "system-test"


def service(*arguments: str) -> dict[str, str]:
    """``service("start", "pulsar")``: what it prints, as key → value."""
    done = subprocess.run([SERVICE, *arguments], check=True, capture_output=True, text=True, timeout=600)
    return dict(pair.partition("=")[::2] for pair in done.stdout.split())


class PulsarHarness:
    """One fresh topic. Delays follow a clock that is moved; the broker's own time is real."""

    def __init__(self, addresses: dict[str, str]) -> None:
        self._clock = FakeClock()
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
        self._clock.advance(seconds)
        # The broker stamps messages with its producers' real time; what is published next must be younger.
        await asyncio.sleep(0.01)
