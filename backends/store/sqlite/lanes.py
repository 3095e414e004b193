"""Threads that stand between the event loop and SQLite, since a sync takes milliseconds and a search may take seconds.

A call is handed over, waits its turn, and its future is resolved on its own loop. What has arrived while the last batch
ran is the next batch: a writing lane commits a batch's calls to one file in one transaction and one sync (group
commit). Every hand-over of the interpreter's lock may cost a switch interval (5 ms) while the loop is busy, so work is
a few large statements, and all futures of a batch are resolved in one wake-up per loop.

Bounds: ``WAITING_MAX`` calls wait, then ``Full``; a transaction holds ``GROUP_MAX`` calls.
"""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Callable, Iterable
from queue import Empty, SimpleQueue
from typing import Any, Generic, TypeVar

from tracardi_lite.backends.store.sqlite import faults
from tracardi_lite.backends.store.sqlite.connections import Connections
from tracardi_lite.backends.store.sqlite.files import Files
from tracardi_lite.errors import Full, TryLater, Unavailable

T = TypeVar("T")

WAITING_MAX = 1024
GROUP_MAX = 16
"""Sixteen bulks of 500 events are some 15 MB of log: beyond that a longer transaction saves nothing."""


class Call(Generic[T]):
    """Work on its way to a thread, and its result on the way back. Cancelling the future does not stop the work."""

    def __init__(self, file: str, work: Callable[..., T]) -> None:
        self.file = file
        self.work = work
        self.loop = asyncio.get_running_loop()
        self.future: asyncio.Future[T] = self.loop.create_future()
        self.result: T | None = None
        self.error: BaseException | None = None

    def settle(self) -> None:
        if self.future.done():
            return
        if self.error is not None:
            self.future.set_exception(self.error)
        else:
            self.future.set_result(self.result)  # type: ignore[arg-type]


class Lane(ABC):
    """One thread with its own connections, started by the first call."""

    def __init__(self, name: str, files: Files, check: Callable[[str], None]) -> None:
        self.name = name
        self.connections = Connections(files, check)
        self._calls: SimpleQueue[Call[Any] | None] = SimpleQueue()
        self._thread: threading.Thread | None = None
        self._closed = False

    def call(self, file: str, work: Callable[..., T]) -> asyncio.Future[T]:
        """Raises ``Full`` when too many wait, ``Unavailable`` after ``close``."""
        if self._closed:
            raise Unavailable("store", "the store is closed", faults.RETRY_AFTER_S)
        if self._calls.qsize() >= WAITING_MAX:
            raise Full("store", f"{WAITING_MAX} calls wait for {self.name}", faults.RETRY_AFTER_S)
        call = Call(file, work)
        self._calls.put(call)
        if self._thread is None:
            # A daemon, so that a program that dies without closing the store can die.
            self._thread = threading.Thread(target=self._run, name=f"store-{self.name}", daemon=True)
            self._thread.start()
        return call.future

    def close(self) -> None:
        """Take no more calls; those that wait are still served. ``join`` waits for them."""
        if not self._closed:
            self._closed = True
            self._calls.put(None)

    def join(self, timeout_s: float) -> bool:
        """Blocks. False when the thread is still at work after the time."""
        if self._thread is None:
            return True
        self._thread.join(timeout_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        try:
            while batch := self._next():
                try:
                    self._serve(batch)
                except BaseException as error:
                    # A bug, or the interpreter's end: nobody is left waiting.
                    for call in batch:
                        call.error = call.error or error
                _settle(batch)
        finally:
            self.connections.close()

    def _next(self) -> list[Call[Any]]:
        """What waits, at least one; empty at the end."""
        first = self._calls.get()
        if first is None:
            return []
        batch = [first]
        try:
            while len(batch) < GROUP_MAX:
                call = self._calls.get_nowait()
                if call is None:
                    self._calls.put(None)
                    break
                batch.append(call)
        except Empty:
            pass
        return batch

    @abstractmethod
    def _serve(self, batch: list[Call[Any]]) -> None:
        """Do the calls, in order, and note each one's result or error."""


class ReadLane(Lane):
    """Calls are ``(Connections) -> T``, one after another."""

    def _serve(self, batch: list[Call[Any]]) -> None:
        for call in batch:
            try:
                call.result = call.work(self.connections)
            except Exception as error:
                call.error = error


class WriteLane(Lane):
    """Calls are ``(sqlite3.Connection) -> T``, inside a transaction that they may share with others of their file.

    ``order`` sorts the files of a batch. A call that fails by a bug of its own is judged alone; trouble of the file
    fails all of the transaction's calls.
    """

    def __init__(self, name: str, files: Files, check: Callable[[str], None], order: Callable[[str], Any]) -> None:
        super().__init__(name, files, check)
        self._order = order

    def _serve(self, batch: list[Call[Any]]) -> None:
        groups: dict[str, list[Call[Any]]] = defaultdict(list)
        for call in batch:
            groups[call.file].append(call)
        for file in sorted(groups, key=self._order):
            try:
                self._commit(file, groups[file])
            except TryLater as error:
                _fail(groups[file], error)
            except Exception:
                for call in groups[file]:
                    self._commit_alone(file, call)

    def _commit(self, file: str, calls: list[Call[Any]]) -> None:
        def work(connection: sqlite3.Connection) -> list[Any]:
            return [call.work(connection) for call in calls]

        for call, result in zip(calls, self.connections.write(file, work), strict=True):
            call.result = result

    def _commit_alone(self, file: str, call: Call[Any]) -> None:
        try:
            self._commit(file, [call])
        except Exception as error:
            call.error = error


def _fail(calls: Iterable[Call[Any]], error: BaseException) -> None:
    for call in calls:
        call.error = error


def _settle(batch: list[Call[Any]]) -> None:
    loops: dict[asyncio.AbstractEventLoop, list[Call[Any]]] = defaultdict(list)
    for call in batch:
        loops[call.loop].append(call)
    for loop, calls in loops.items():
        try:
            loop.call_soon_threadsafe(_settle_here, calls)
        except RuntimeError:
            # The loop is closed: nobody waits there any more.
            continue


def _settle_here(calls: list[Call[Any]]) -> None:
    for call in calls:
        call.settle()
