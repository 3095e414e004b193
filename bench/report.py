"""What a run prints: the machine, and the figures as markdown for people or JSON for programs."""

from __future__ import annotations

import datetime
import os
import platform
import sqlite3
import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec

from bench.table import Figure, markdown


def show(machine: str, figures: Sequence[Figure], *, json: bool) -> None:
    if json:
        report = {"machine": machine, "figures": figures}
        sys.stdout.write(msgspec.json.format(msgspec.json.encode(report), indent=2).decode() + "\n")
    else:
        print(f"{machine}\n\n{markdown(figures)}")


def machine() -> str:
    """To be asked before a run: the load is that of others then."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    cpu = next((line.partition(":")[2].strip() for line in lines if "model name" in line), platform.machine())
    load = os.getloadavg()[0]
    return (
        f"{datetime.date.today().isoformat()}, {os.cpu_count()} × {cpu}, Linux {platform.release()}, "
        f"Python {platform.python_version()}, SQLite {sqlite3.sqlite_version}, load before {load:.1f}"
    )
