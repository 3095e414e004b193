"""From the client library's threads to the event loop, one wake-up per burst, which costs half of one per message."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any


class Bridge:
    def __init__(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._calls: deque[tuple[Callable[..., None], tuple[Any, ...]]] = deque()
        self._woken = False

    def call(self, function: Callable[..., None], *arguments: Any) -> None:
        """Run ``function`` on the loop, after those that were handed over before. From any thread."""
        self._calls.append((function, arguments))
        if not self._woken:
            self._woken = True
            try:
                self._loop.call_soon_threadsafe(self._run)
            except RuntimeError:
                return  # the loop is closed: nobody waits any more

    def _run(self) -> None:
        self._woken = False  # before the deque is emptied, so that a late one wakes us again
        while self._calls:
            function, arguments = self._calls.popleft()
            function(*arguments)
