"""The ledger: what became of every event that was ever received. Pure arithmetic over the queue's totals.

    received + replayed == stored + duplicate + rejected + dead_lettered + pending

holds at every moment, across processes and restarts. What the door refused was received and rejected at once, by
reason; what a worker left out on purpose is rejected as ``not_saved``.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from msgspec import Struct

NOT_SAVED = "not_saved"


class QueueTotals(Protocol):
    """The part of ``ports.queue.Totals`` that counts; in events."""

    received: int
    replayed: int
    stored: int
    duplicate: int
    rejected: int
    dead_lettered: int
    dead: int
    pending: int
    refused: Mapping[str, int]


class Ledger(Struct, frozen=True, kw_only=True):
    """In events, since the installation."""

    received: int
    """Came in at the door, refused ones included, replays not."""
    replayed: int
    stored: int
    duplicate: int
    rejected: dict[str, int]
    """By reason."""
    dead_lettered: int
    """Ever written to the dead letters."""
    dead: int
    """In the dead letters now."""
    pending: int

    @property
    def difference(self) -> int:
        """What came in and is nowhere: 0, or there is a bug."""
        gone = self.stored + self.duplicate + sum(self.rejected.values()) + self.dead_lettered + self.pending
        return self.received + self.replayed - gone


def ledger_of(totals: QueueTotals) -> Ledger:
    rejected = dict(totals.refused)
    rejected[NOT_SAVED] = rejected.get(NOT_SAVED, 0) + totals.rejected
    return Ledger(
        received=totals.received + sum(totals.refused.values()),
        replayed=totals.replayed,
        stored=totals.stored,
        duplicate=totals.duplicate,
        rejected=rejected,
        dead_lettered=totals.dead_lettered,
        dead=totals.dead,
        pending=totals.pending,
    )
