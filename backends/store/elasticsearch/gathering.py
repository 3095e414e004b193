"""Look-ups of many callers in few requests: what is asked for while requests are under way goes into the next.

A door asks for one or two keys per call, and a request to Elasticsearch costs both sides a hundred times what a key in
it costs. So at most ``IN_FLIGHT`` are under way; the first callers wait for nobody, and under load a request holds the
keys of all who came during the one before it. A caller never joins a request that was sent before it asked, so it sees
whatever had been written by then. For the tasks of one loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

T = TypeVar("T")

IN_FLIGHT = 2
KEYS_MAX = 500
"""Of the callers together: who comes later waits for one request more. One caller's keys are never divided."""


class _Request(Generic[T]):
    """Keys that are asked for together."""

    def __init__(self) -> None:
        self.keys: dict[str, None] = {}
        self.answer: asyncio.Future[dict[str, T]] = asyncio.get_running_loop().create_future()


class Gathering(Generic[T]):
    """``ask``: an answer per key, in order; its error is every caller's whose keys it was asked for."""

    def __init__(self, ask: Callable[[Sequence[str]], Awaitable[Sequence[T]]]) -> None:
        self._ask = ask
        self._waiting: list[_Request[T]] = []
        self._under_way: set[asyncio.Task[None]] = set()

    async def __call__(self, keys: Sequence[str]) -> list[T]:
        """Cancelled, it leaves the request to the others."""
        if not keys:
            return []
        if not self._waiting or len(self._waiting[-1].keys) + len(keys) > KEYS_MAX:
            self._waiting.append(_Request())
        request = self._waiting[-1]
        request.keys.update(dict.fromkeys(keys))
        self._start()
        answers = await asyncio.shield(request.answer)
        return [answers[key] for key in keys]

    def _start(self) -> None:
        while self._waiting and len(self._under_way) < IN_FLIGHT:
            task = asyncio.create_task(self._run(self._waiting.pop(0)))
            self._under_way.add(task)
            task.add_done_callback(self._ended)

    def _ended(self, task: asyncio.Task[None]) -> None:
        self._under_way.discard(task)
        self._start()

    async def _run(self, request: _Request[T]) -> None:
        keys = list(request.keys)
        try:
            answers = await self._ask(keys)
        except asyncio.CancelledError:
            request.answer.cancel()
            raise
        except Exception as error:
            request.answer.set_exception(error)
            request.answer.exception()  # looked at, should nobody be left who waits
        else:
            request.answer.set_result(dict(zip(keys, answers, strict=True)))
