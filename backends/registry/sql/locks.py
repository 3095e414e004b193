"""A lock between processes on one host: ``flock`` on a file, which the kernel frees when its holder dies."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import time
from collections.abc import AsyncIterator
from pathlib import Path

from tracardi_lite.errors import Unavailable

POLL_S = 0.02


@contextlib.asynccontextmanager
async def file_lock(path: Path, wait_s: float) -> AsyncIterator[None]:
    """Hold the lock; ``Unavailable`` if it is not free within ``wait_s`` seconds. The file stays."""
    # The wait is for other processes, so it is real time, whatever clock the registry was given.
    deadline = time.monotonic() + wait_s
    with path.open("ab") as file:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    raise Unavailable("registry", f"another process has held {path} for {wait_s:g} s") from None
            await asyncio.sleep(POLL_S)
        yield
