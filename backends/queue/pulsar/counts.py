"""The ledger's arithmetic over many processes without a shared database. Pure.

Each process counts what it published (by partition, on the broker's receipt) and what it settled (by partition and
outcome), and writes the sums as a record under its own name; all records together are the installation's. *Pending* is
published less settled; *received* is derived: whatever was settled or is pending, and was not replayed. So the ledger
adds up by construction, and what a crash loses of one process's counts is found in the log, see ``scan``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import msgspec
from msgspec import Struct, field

from tracardi_lite.ports.queue import Tally, Totals

REASONS_MAX = 64
"""Names in the count of refused events; further ones are counted as ``other``."""

Position = tuple[int, int, int]
"""(ledger, entry, index in the entry's batch)"""


class Amount(Struct, array_like=True):
    messages: int = 0
    events: int = 0

    def add(self, messages: int, events: int) -> None:
        self.messages += messages
        self.events += events


class Written(Struct, array_like=True):
    """What one writer published to a partition, up to a position of the log."""

    messages: int = 0
    events: int = 0
    replayed: int = 0
    """Of the events."""
    upto: Position = (-1, -1, -1)

    def add(self, events: int, replay: bool, position: Position) -> None:
        self.messages += 1
        self.events += events
        self.replayed += events if replay else 0
        self.upto = max(self.upto, position)


class Counts(Struct, array_like=True):
    """One process's sums since it started."""

    writer: bytes = b""
    stored: int = 0
    duplicate: int = 0
    rejected: int = 0
    dead_lettered: int = 0
    published: dict[int, Written] = field(default_factory=dict)
    """By partition."""
    settled: dict[int, Amount] = field(default_factory=dict)
    """By partition, of the workers' subscription."""
    sought: dict[int, Amount] = field(default_factory=dict)
    """Made pending again by ``seek``, by partition."""
    refused: dict[str, int] = field(default_factory=dict)
    closed: bool = False
    """Nothing of this writer stands in the log beyond what is counted."""
    since_ms: int = 0
    """What of this writer is not counted was sent at this time or later, by the writer's clock."""

    @property
    def is_empty(self) -> bool:
        """Nothing was counted yet, so that nobody needs to know of this process."""
        outcomes = self.stored or self.duplicate or self.rejected or self.dead_lettered
        return not (outcomes or self.published or self.settled or self.sought or self.refused)

    def settle(self, outcomes: Iterable[tuple[int, Tally]], sign: int) -> None:
        """Add messages' outcomes, by partition, or, with a sign of -1, take them out again."""
        for partition, tally in outcomes:
            events = tally.stored + tally.duplicate + tally.rejected + tally.dead
            self.settled.setdefault(partition, Amount()).add(sign, sign * events)
            self.stored += sign * tally.stored
            self.duplicate += sign * tally.duplicate
            self.rejected += sign * tally.rejected
            self.dead_lettered += sign * tally.dead

    def note_refused(self, counts: Mapping[str, int]) -> None:
        for reason, events in counts.items():
            known = reason in self.refused or len(self.refused) < REASONS_MAX
            name = reason if known else "other"
            self.refused[name] = self.refused.get(name, 0) + events


_decoder = msgspec.msgpack.Decoder(Counts)


def encode(counts: Counts) -> bytes:
    return msgspec.msgpack.encode(counts)


def decode(data: bytes) -> Counts:
    return _decoder.decode(data)


def pending(processes: Iterable[Counts], partitions: int) -> list[Amount]:
    """By partition; never negative: what is settled was published, whether or not its count is here yet."""
    sums = [Amount() for _ in range(partitions)]
    for counts in processes:
        for number, written in counts.published.items():
            if number < partitions:
                sums[number].add(written.messages, written.events)
        for number, amount in counts.sought.items():
            if number < partitions:
                sums[number].add(amount.messages, amount.events)
        for number, amount in counts.settled.items():
            if number < partitions:
                sums[number].add(-amount.messages, -amount.events)
    return [Amount(max(0, amount.messages), max(0, amount.events)) for amount in sums]


def totals(processes: Iterable[Counts], waiting: Iterable[Amount], dead: int) -> Totals:
    result = Totals(dead=dead, pending=sum(amount.events for amount in waiting))
    refused: dict[str, int] = {}
    for counts in processes:
        result.stored += counts.stored
        result.duplicate += counts.duplicate
        result.rejected += counts.rejected
        result.dead_lettered += counts.dead_lettered
        result.replayed += sum(written.replayed for written in counts.published.values())
        result.replayed += sum(amount.events for amount in counts.sought.values())
        for reason, events in counts.refused.items():
            refused[reason] = refused.get(reason, 0) + events
    settled = result.stored + result.duplicate + result.rejected + result.dead_lettered
    result.received = settled + result.pending - result.replayed
    result.refused = refused
    return result
