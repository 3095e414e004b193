"""Runs wrk and reads its report."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

from msgspec import Struct

SCRIPT = Path(__file__).with_name("track.lua")
CONNECTIONS = 60
THREADS = 2
_UNITS_MS = {"us": 1e-3, "ms": 1.0, "s": 1e3, "m": 6e4}


class Report(Struct, frozen=True):
    """What one run of wrk saw."""

    requests: int
    seconds: float
    p50_ms: float
    p99_ms: float

    @property
    def rate(self) -> float:
        """Requests per second."""
        return self.requests / self.seconds


def check() -> None:
    """Stops with what to do when wrk is not there."""
    if shutil.which("wrk") is None:
        raise SystemExit("bench needs wrk, the load generator: apt-get install wrk")


def run(base: str, events: int, seconds: int, seed: int) -> Report:
    """Posts ``events`` per call for that long. Fails when any answer is not a 2xx, or none came."""
    command = ["wrk", f"-t{THREADS}", f"-c{CONNECTIONS}", f"-d{seconds}s", "--latency", "--timeout", "20s"]
    command += ["-s", str(SCRIPT), base, "--", str(events), str(seed)]
    text = subprocess.run(command, check=True, capture_output=True, text=True, timeout=seconds + 60).stdout
    if re.search(r"Non-2xx|Socket errors", text):
        raise RuntimeError(f"not every call was answered with success:\n{text}")
    total = re.search(r"(\d+) requests in ([\d.]+)(\w+),", text)
    if total is None or total[1] == "0":
        raise RuntimeError(f"nothing was answered:\n{text}")
    return Report(
        requests=int(total[1]),
        seconds=float(total[2]) * _UNITS_MS[total[3]] / 1e3,
        p50_ms=_percentile(text, 50),
        p99_ms=_percentile(text, 99),
    )


def _percentile(text: str, percent: int) -> float:
    found = re.search(rf"^\s+{percent}%\s+([\d.]+)(us|ms|s|m)\s*$", text, re.MULTILINE)
    assert found is not None, text
    return float(found[1]) * _UNITS_MS[found[2]]
