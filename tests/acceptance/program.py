"""The installed program as a subprocess: start it, wait until it is ready, signal it, kill it, read what it said.

Nothing here sleeps for a fixed time as a way to be in step with the program: every wait polls a condition and has a
limit. A program that ends before it is ready fails at once, with its log in the message.
"""

from __future__ import annotations

import asyncio
import os
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path

EXECUTABLE = Path(sys.executable).with_name("tracardi-lite")
USER, PASSWORD = "admin@example.com", "correct horse battery staple"
POLL_S = 0.02
READY_S = 30.0
_ADDRESS = re.compile(r" on http://(?:127\.0\.0\.1|localhost):(\d+)")

# Small waits, so that a test sees in a second what takes half a minute with the defaults.
QUICK: Mapping[str, str] = {
    "BULK_IDLE": "0.1",
    "BULK_TIMEOUT": "1",
    "LEASE_TTL": "2",
    "RETRY_DELAY": "0.05",
    "RETRY_DELAY_MAX": "0.5",
    "QUEUE_PARTITIONS": "4",
    "SHUTDOWN_TIMEOUT": "20",
    "DISALLOW_BOT_TRAFFIC": "no",
}


class Failed(AssertionError):
    """The program did not do what was waited for; the message ends with its log."""


async def until(
    what: str, condition: Callable[[], Awaitable[bool]], within_s: float, context: Callable[[], str] = str
) -> None:
    """Polls until the condition holds; fails with ``what``, and ``context()``, when the time is up."""
    deadline = time.monotonic() + within_s
    while not await condition():
        if time.monotonic() > deadline:
            raise Failed(f"not within {within_s:g} s: {what}\n{context()}")
        await asyncio.sleep(POLL_S)


def run(*arguments: str, data_dir: Path, env: Mapping[str, str] = {}, within_s: float = 60) -> str:
    """Runs one command of the program to its end; its standard output. Fails on any exit code but 0."""
    done = subprocess.run(
        [str(EXECUTABLE), *arguments],
        env=_environment(data_dir, env),
        cwd=data_dir.parent,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=within_s,
        check=False,
    )
    if done.returncode != 0:
        raise Failed(f"`tracardi-lite {' '.join(arguments)}` ended with {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout


def install(data_dir: Path, env: Mapping[str, str] = {}) -> None:
    """Makes the embedded stores, the open source ``default`` and a known admin."""
    run("install", "--username", USER, "--password", PASSWORD, data_dir=data_dir, env=env)


class Program:
    """One process of ``tracardi-lite serve``. It can be started again after it has ended, on the same port."""

    def __init__(
        self,
        data_dir: Path,
        *,
        role: str = "all",
        port: int = 0,
        flags: Sequence[str] = (),
        env: Mapping[str, str] = {},
        name: str = "",
        logs: Path | None = None,
    ) -> None:
        self.data_dir = data_dir
        self.role = role
        self.port = port
        self.flags = list(flags)
        self.env = dict(env)
        self.name = name or role
        self.starts = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._log = (logs or data_dir.parent) / f"{self.name}.log"

    @property
    def base(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        assert self._process is not None, "not started"
        return self._process.pid

    @property
    def alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    async def start(self, ready_within_s: float = READY_S) -> Program:
        """Starts it and returns once ``GET /health/ready`` answers 200."""
        self.launch()
        await self.listening(ready_within_s)
        await self.ready(ready_within_s)
        return self

    def launch(self) -> None:
        """Starts it without waiting for anything."""
        assert not self.alive, f"{self.name} runs already"
        self.starts += 1
        command = [str(EXECUTABLE), "serve", "--role", self.role, "--port", str(self.port), *self.flags]
        # A worker's port, which is for its health and metrics, has a setting of its own and no flag.
        env = {**self.env, "TRACARDI_LITE_WORKER_PORT": str(self.port)}
        with self._log.open("ab") as log:
            log.write(f"--- start {self.starts}: {' '.join(command[1:])}\n".encode())
            log.flush()
            self._said = log.tell()
            self._process = subprocess.Popen(
                command,
                env=_environment(self.data_dir, env),
                cwd=self.data_dir.parent,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    async def listening(self, within_s: float = READY_S) -> None:
        """Waits until it has said its address, and takes the port from there."""

        async def said() -> bool:
            self._must_live()
            found = _ADDRESS.search(self.said())
            if found:
                self.port = int(found[1])
            return found is not None

        await until(f"{self.name} says its address", said, within_s, self.log)

    async def ready(self, within_s: float = READY_S) -> None:
        async def answers() -> bool:
            self._must_live()
            status, _ = await self.get("/health/ready")
            return status == 200

        await until(f"{self.name} is ready", answers, within_s, self.log)

    async def get(self, path: str, timeout_s: float = 5) -> tuple[int, str]:
        """Status and text; status 0 when nothing answers."""
        return await asyncio.to_thread(_get, self.base + path, timeout_s)

    async def metrics(self) -> dict[str, float]:
        """All samples by their full text, labels included: ``name{label="value"}``."""
        status, text = await self.get("/metrics")
        assert status == 200, text
        samples = (line.rpartition(" ") for line in text.splitlines() if line and not line.startswith("#"))
        return {name: float(value) for name, _, value in samples}

    def send(self, number: signal.Signals) -> None:
        assert self.alive, f"{self.name} does not run\n{self.log()}"
        os.kill(self.pid, number)

    def kill(self) -> None:
        """``kill -9``, and waits until the kernel has taken it away."""
        if self._process is not None:
            if self.alive:
                os.kill(self.pid, signal.SIGKILL)
            self._process.wait(timeout=10)

    async def ended(self, within_s: float = READY_S) -> int:
        """Waits for its end; its exit code."""

        async def gone() -> bool:
            return not self.alive

        await until(f"{self.name} ends", gone, within_s, self.log)
        assert self._process is not None
        return self._process.returncode

    async def terminate(self, within_s: float = READY_S) -> int:
        """SIGTERM, and waits for its end; its exit code."""
        self.send(signal.SIGTERM)
        return await self.ended(within_s)

    def log(self, characters: int = 6000) -> str:
        """The end of what all its starts have said."""
        text = self._log.read_text(errors="replace") if self._log.exists() else ""
        return f"--- log of {self.name} ---\n{text[-characters:]}"

    def said(self) -> str:
        """What the last start has said."""
        with self._log.open("rb") as log:
            log.seek(self._said)
            return log.read().decode(errors="replace")

    def _must_live(self) -> None:
        if not self.alive:
            assert self._process is not None
            raise Failed(f"{self.name} ended by itself with {self._process.returncode}\n{self.log()}")


def _get(url: str, timeout_s: float) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(url, timeout=timeout_s) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()
    except OSError:
        return 0, ""


def _environment(data_dir: Path, env: Mapping[str, str]) -> dict[str, str]:
    """Only what is needed: a setting in the developer's shell must not change a test."""
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "TMPDIR") if name in os.environ}
    return kept | {"TRACARDI_LITE_DATA_DIR": str(data_dir), "LOGGING_LEVEL": "info"} | dict(env)
