"""What the processes tell each other, folded into what each of them knows. Pure; ``log`` moves the bytes.

The journal is a compacted topic: of each key, the last record counts. Kinds of records, by the key's first letter:

* ``c:<process>``: the process's counts and, of a consumer, the entries that the same acknowledgement settled. It is
  written before the broker is told, so that a crash between the two redelivers entries which are known to be settled.
  A process that has counted nothing writes none: a command that only looks leaves no trace.
* ``t:<subscription>:<partition>:<ledger>:<entry>:<index>``: how often a message was tried.
* ``s:<subscription>``: somebody went back in the log; what was settled before this record may come again.
* ``i:<name>``: a proposal for the topic's incarnation; the first in the log is the one.

Bounds: ``SETTLED_MAX`` entries are remembered over all processes; older ones that a crash brings again are processed
again, which changes no record but counts them twice in the ledger.
"""

from __future__ import annotations

from collections import OrderedDict

import msgspec
from msgspec import Struct

from tracardi_lite.backends.queue.pulsar.counts import Counts
from tracardi_lite.backends.queue.pulsar.ids import EntryId

SETTLED_MAX = 200_000
TRIES_MAX = 100_000


class Report(Struct, array_like=True):
    counts: Counts
    subscription: str = ""
    settled: list[int] = []
    """Partition, ledger, entry; partition, ledger, entry; …"""


_decoder = msgspec.msgpack.Decoder(Report)


class Journal:
    def __init__(self) -> None:
        self.own: set[str] = set()
        """Names under which this process writes: what it settled it knows by itself, and better."""
        self.incarnation = ""
        self.processes: dict[str, Counts] = {}
        self.heard_ms: dict[str, int] = {}
        """When each process wrote last, by the clock that stamps the journal's messages."""
        self.epochs: dict[str, str] = {}
        """By subscription: which ``seek`` was the last."""
        self.tries: OrderedDict[str, int] = OrderedDict()
        self._settled: dict[str, OrderedDict[EntryId, None]] = {}

    def settled(self, subscription: str, entry: EntryId) -> bool:
        known = self._settled.get(subscription)
        return known is not None and entry in known

    def note_settled(self, subscription: str, entries: list[EntryId]) -> None:
        known = self._settled.setdefault(subscription, OrderedDict())
        for entry in entries:
            known[entry] = None
        while len(known) > SETTLED_MAX:
            known.popitem(last=False)

    def apply(self, key: str, payload: bytes, written_ms: int) -> None:
        """Take in the next record of the log."""
        kind, _, name = key.partition(":")
        match kind:
            case "c" if payload:
                report = _decoder.decode(payload)
                self.processes[name] = report.counts
                self.heard_ms[name] = written_ms
                numbers = report.settled
                if numbers and name not in self.own:
                    self.note_settled(report.subscription, list(map(EntryId, *[iter(numbers)] * 3)))
            case "t" if payload:
                self.tries[name] = int(payload)
                self.tries.move_to_end(name)
                if len(self.tries) > TRIES_MAX:
                    self.tries.popitem(last=False)
            case "t":
                self.tries.pop(name, None)
            case "s" if payload:
                self.epochs[name] = payload.decode()
                self._settled.pop(name, None)
            case "i" if payload and not self.incarnation:
                self.incarnation = name


def encode_report(counts: Counts, subscription: str = "", settled: list[EntryId] | None = None) -> bytes:
    numbers = [number for entry in settled or () for number in entry]
    return msgspec.msgpack.encode(Report(counts, subscription, numbers))


def tries_key(subscription: str, partition: int, position: tuple[int, ...]) -> str:
    return ":".join((subscription, str(partition), *map(str, position)))
