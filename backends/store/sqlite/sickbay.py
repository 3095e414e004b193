"""Damaged files, from their discovery to their return: one salvage after another, in a thread of its own."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import structlog

from tracardi_lite.backends.store.sqlite import faults
from tracardi_lite.backends.store.sqlite.connections import Damaged
from tracardi_lite.backends.store.sqlite.files import Files
from tracardi_lite.backends.store.sqlite.lanes import ReadLane
from tracardi_lite.backends.store.sqlite.salvage import Salvaged, salvage
from tracardi_lite.errors import Unavailable

log = structlog.get_logger(__name__)


class Sickbay:
    """Asked by all threads; told of damage by the loop's only."""

    def __init__(self, files: Files, closing: Callable[[], bool]) -> None:
        self.lane = ReadLane("salvage", files, check=lambda file: None)
        self._closing = closing
        self._reasons: dict[str, str] = {}

    def reason(self, file: str) -> str | None:
        """Why the file can't be used now; None when it can."""
        return self._reasons.get(file)

    def check(self, file: str | None = None) -> None:
        """Raise ``Unavailable`` if the file, or any, is being salvaged."""
        reasons = list(self._reasons.values()) if file is None else [self._reasons.get(file)]
        for reason in reasons:
            if reason is not None:
                raise Unavailable("store", reason, faults.FULL_RETRY_AFTER_S)

    def admit(self, damage: Damaged) -> None:
        """Start a salvage, unless one is under way."""
        if self._closing() or damage.file in self._reasons:
            return
        self._reasons[damage.file] = damage.reason
        log.error("store_file_damaged", file=damage.file, reason=damage.reason, next="salvaging what can be read")
        future = self.lane.call(
            damage.file, lambda connections: salvage(connections.files, damage.file, damage.identity, self._closing)
        )
        future.add_done_callback(lambda done: self._discharge(damage.file, done))

    def _discharge(self, file: str, done: asyncio.Future[Salvaged | None]) -> None:
        del self._reasons[file]
        if done.cancelled():
            return
        if (error := done.exception()) is not None:
            # Not for good: whoever next meets the damage starts another salvage.
            log.error("store_salvage_failed", file=file, reason=str(error))
        elif (result := done.result()) is not None:
            log.error(
                "store_file_salvaged",
                file=file,
                kept=result.kept,
                lost=result.lost,
                aside=result.aside,
                advice="replay the queue from before the damage: lost records are made again, the others stay",
            )
