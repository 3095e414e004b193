"""Reminding the broker of what it has forgotten to deliver. Pure; ``fetcher`` does the sending.

When a consumer goes, the broker puts what that one held into the partition's replay queue. If it is just then waiting
for something new to be published there, it may fail to look into that queue until something is: consumers with free
hands wait for messages that lie ready, for ever on a quiet partition (apache/pulsar#23845; with Pulsar 4.0.8, after one
in ten kills of a consumer). A consumer's request to redeliver all that it has not acknowledged makes the broker look.
One for a single message does not, unless it names one that the consumer has.

Such a request takes away what the consumer has, perhaps in favour of another. So it is made only by one that has
nothing, and then it costs a few bytes; whether anything is missing is not looked for, since to find that out would cost
more, and would need the admin API or an exact ledger at the very moment when processes die.
"""

from __future__ import annotations

from collections.abc import Iterable

QUIET_S = 3.0
"""Without a message from some partition, and between two requests."""


class Quiet:
    """Whether some partition has been quiet for too long. Times are seconds of one monotonic clock."""

    def __init__(self, partitions: int, now: float) -> None:
        self._last = dict.fromkeys(range(partitions), now)

    def heard(self, partitions: Iterable[int], now: float) -> None:
        """Messages came from these."""
        for number in partitions:
            self._last[number] = now

    def asks(self, now: float) -> bool:
        """Whether to ask now; if so, the next time comes when a partition stays quiet for as long again."""
        if now - min(self._last.values(), default=now) < QUIET_S:
            return False
        self._last = dict.fromkeys(self._last, now)
        return True
