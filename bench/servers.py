"""The servers that are measured, each in a process of its own on a real disk."""

from __future__ import annotations

import asyncio
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

from msgspec import Struct

from tests.acceptance.program import Program, install

ROOT = Path(__file__).parent.parent
DATA = ROOT / ".bench-data"


class Bare(Struct):
    base: str
    pid: int


@contextmanager
def bare() -> Iterator[Bare]:
    """The ceiling: see ``bench.bare``."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    process = subprocess.Popen([sys.executable, "-m", "bench.bare", str(port)], cwd=ROOT)
    try:
        base = f"http://127.0.0.1:{port}"
        deadline = time.monotonic() + 10
        while not _answers(f"{base}/track"):
            assert process.poll() is None, "bench.bare ended by itself"
            assert time.monotonic() < deadline, "bench.bare does not answer"
            time.sleep(0.05)
        yield Bare(base, process.pid)
    finally:
        process.terminate()
        process.wait(timeout=10)


@asynccontextmanager
async def ours(role: str, env: Mapping[str, str] = {}) -> AsyncIterator[Program]:
    """tracardi-lite with its defaults, in a new data directory that is removed at the end."""
    with data_dir() as folder:
        await asyncio.to_thread(install, folder)
        program = Program(folder, role=role, env={"LOGGING_LEVEL": "warning", **env})
        try:
            yield await program.start()
        finally:
            program.kill()


@contextmanager
def data_dir() -> Iterator[Path]:
    """A new folder on the disk that the repository is on."""
    DATA.mkdir(exist_ok=True)
    kind = subprocess.run(["stat", "-f", "-c", "%T", str(DATA)], check=True, capture_output=True, text=True).stdout
    if kind.strip() in ("tmpfs", "ramfs"):
        raise SystemExit(f"{DATA} is in memory ({kind.strip()}): an fsync would cost nothing, so this measures nothing")
    folder = Path(tempfile.mkdtemp(dir=DATA))
    try:
        yield folder / "data"
    finally:
        shutil.rmtree(folder)


def _answers(url: str) -> bool:
    try:
        urllib.request.urlopen(urllib.request.Request(url, b"{}"), timeout=2).close()
    except (urllib.error.URLError, OSError):
        return False
    return True
