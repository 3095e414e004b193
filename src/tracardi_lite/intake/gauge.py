"""What the door counts: plain integers that the hot path adds to, read by the metrics page now and then."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping

# Seconds; upper bounds of the request-duration histogram.
BUCKETS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)


class IntakeGauge:
    def __init__(self) -> None:
        self.in_flight_bytes = 0
        """Bodies read and not yet durable."""
        self.overloads = 0
        """Requests answered with 503."""
        self.statuses: Counter[int] = Counter()
        self.durations = [0] * (len(BUCKETS) + 1)
        self.duration_sum = 0.0
        self._refused: Counter[str] = Counter()

    def observe(self, status: int, seconds: float) -> None:
        self.statuses[status] += 1
        self.durations[bisect_left(BUCKETS, seconds)] += 1
        self.duration_sum += seconds

    def refuse(self, reason: str, events: int) -> None:
        """Events refused at the door; the reasons are a small fixed set of names."""
        self._refused[reason] += events

    async def hand_over(self, note: Callable[[Mapping[str, int]], Awaitable[None]]) -> None:
        """Move the refusals into the ledger; kept for the next time if that fails."""
        if not self._refused:
            return
        counts, self._refused = self._refused, Counter()
        try:
            await note(counts)
        except BaseException:
            self._refused.update(counts)
            raise
