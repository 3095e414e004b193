"""Events that the door refuses, by reason, on their way into the ledger.

Counted in memory by the hot path and handed over about once a second: a crash may forget the last ones, in "received"
and "rejected" alike, so that the ledger still adds up.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable, Mapping


class Refusals:
    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()

    def add(self, reason: str, events: int) -> None:
        """The reasons are a small fixed set of names, never anything that a client sends."""
        self._counts[reason] += events

    async def hand_over(self, note: Callable[[Mapping[str, int]], Awaitable[None]]) -> None:
        """Move what was counted into the ledger; kept for the next time if that fails."""
        if not self._counts:
            return
        counts, self._counts = self._counts, Counter()
        try:
            await note(counts)
        except BaseException:
            self._counts.update(counts)
            raise
