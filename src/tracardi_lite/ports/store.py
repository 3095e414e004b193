"""The store port: where records live, in partitions by time, and how they are found.

Kinds of records: ``event`` (create-only), ``profile`` and ``session`` (compare-and-set). Beside them the directory:
small entries by key, claimed create-if-absent, the one authority on "which profile does this key mean".

The contract, which ``tracardi_lite.testing.store_suite`` proves of every backend:

* A write that got the verdict STORED is durable. Verdicts come one per item, in order.
* ``create_events`` never overwrites. Two events with one id become one, also when the second arrives in the
  partition after the first's (a client's retry over midnight); the verdict tells a redelivery (SAME) from a
  duplicate sent again in another message (EXISTS).
* ``put`` stores a record only if its version is still the one that was read (None: only if it does not exist).
* ``claim`` is atomic per key over all processes; losers get the winner's entry.
* ``get``, ``lookup`` and ``claim`` are real-time; ``search``, ``count`` and ``histogram`` may lag by a second or so,
  see ``refresh``.
* A record stays in the partition of its birth. A partition is dropped as a whole.

Errors: ``Unavailable``/``Full`` for the whole call (nothing, something or all of it may be done: repeat it; every
operation here is idempotent). Item-level trouble is a verdict, not an exception.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from types import TracebackType
from typing import Any, Literal, Protocol, Self

from msgspec import Struct

from tracardi_lite.query import Where

Kind = Literal["event", "profile", "session"]
KINDS: tuple[Kind, ...] = ("event", "profile", "session")


class Outcome(enum.Enum):
    STORED = "stored"
    SAME = "same"
    """Already there, written by this very message before a crash: as good as stored."""
    EXISTS = "exists"
    """Already there from another message: a duplicate."""
    CONFLICT = "conflict"
    """The version has changed: read again, apply again."""
    RETRY = "retry"
    """Not now (429, 5xx): back off."""
    NEVER = "never"
    """Never, as it is: a dead letter with the reason."""


class Verdict(Struct, frozen=True):
    outcome: Outcome
    reason: str = ""
    version: Any = None
    """After STORED of a ``put``: the new version, to write again without reading."""


STORED = Verdict(Outcome.STORED)
SAME = Verdict(Outcome.SAME)
EXISTS = Verdict(Outcome.EXISTS)
CONFLICT = Verdict(Outcome.CONFLICT)


class EventWrite(Struct):
    """An event to create. ``doc`` is the whole record as JSON (docs/records.md), the rest what is searched by most."""

    id: str
    partition: str
    """Suffix by received time, from ``tracardi_lite.partitioning``: ``2026-11``."""
    doc: bytes
    message: str
    """The message that brings it; also in the doc as ``metadata.aux.message``."""
    type: str
    source: str
    session: str | None
    profile: str | None
    insert_ms: int
    """``metadata.time.insert``, ms since the epoch."""
    foreign_id: bool = False
    """The id is the client's: the partition before this one is looked at too."""


class RecordWrite(Struct):
    """A profile or session to store whole."""

    kind: Kind
    id: str
    partition: str
    doc: bytes
    version: Any
    """As read with the record; None: it must not exist."""
    update_ms: int
    profile: str | None = None
    """For sessions: whose it is."""


class Record(Struct):
    id: str
    partition: str
    doc: bytes
    version: Any


class Entry(Struct, frozen=True):
    """What the directory says of a key.

    Keys: ``p:<profile id>``, ``s:<session id>``, ``k:<hashed merge key>``.
    """

    target: str
    """The profile id that the key means (for ``p:`` keys, itself or, for an alias, the survivor); "" for a session
    without a profile."""
    partition: str
    """Where the key's own record lives (``p:`` → profile partition, ``s:`` → session partition);
    "" for ``k:`` keys and aliases."""
    message: str = ""
    """The message that claimed it: tells a new record from a known one, also on redelivery."""


class Claim(Struct):
    key: str
    entry: Entry


class PartitionInfo(Struct):
    kind: str
    name: str
    records: int
    bytes: int
    first_ms: int | None = None
    last_ms: int | None = None


class Query(Struct, kw_only=True):
    """A search over all partitions of a kind, newest first (``insert`` for events, ``update`` for the others)."""

    where: Where | None = None
    start: int = 0
    limit: int = 20
    """0 … 1000."""
    from_ms: int | None = None
    to_ms: int | None = None
    """Half-open: from_ms <= time < to_ms."""


class Page(Struct):
    total: int
    result: list[bytes]
    """JSON documents."""


class Bar(Struct):
    """One step of a histogram: counts by bucket name ("count" without a group)."""

    at_ms: int
    counts: dict[str, int]


class Store(Protocol):
    """An open store. Entered as an async context manager."""

    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    async def create_events(self, events: Sequence[EventWrite]) -> list[Verdict]:
        """Outcomes STORED, SAME, EXISTS, RETRY, NEVER."""
        ...

    async def put(self, writes: Sequence[RecordWrite]) -> list[Verdict]:
        """Outcomes STORED, CONFLICT, RETRY, NEVER."""
        ...

    async def get(self, kind: Kind, keys: Sequence[tuple[str, str]]) -> list[Record | None]:
        """By (id, partition), in order."""
        ...

    async def lookup(self, keys: Sequence[str]) -> list[Entry | None]:
        """Directory entries, in order."""
        ...

    async def claim(self, claims: Sequence[Claim]) -> list[Entry]:
        """Create each key's entry if absent; the entry that holds now, in order."""
        ...

    async def repoint(self, key: str, expected: Entry, entry: Entry | None) -> bool:
        """Compare-and-set one entry (None: remove it); False when it is not ``expected`` any more."""
        ...

    async def find(self, kind: Kind, id: str) -> Record | None:
        """One record by id alone, in whichever partition, directory or not: for people, not for the hot path."""
        ...

    async def delete(self, kind: Kind, id: str) -> bool:
        """Remove a record by id, and its own ``p:``/``s:`` entry with it."""
        ...

    async def search(self, kind: Kind, query: Query) -> Page: ...

    async def count(self, kind: Kind, where: Where | None = None) -> int: ...

    async def histogram(
        self, kind: Kind, query: Query, step_ms: int, group_by: str | None = None, top: int = 5
    ) -> list[Bar]:
        """Counts per step of ``step_ms`` between the query's ``from_ms`` and ``to_ms`` (both needed)."""
        ...

    async def refresh(self) -> None:
        """Make all that was stored visible to ``search``."""
        ...

    async def partitions(self) -> list[PartitionInfo]: ...

    async def create_partition(self, kind: Kind, name: str) -> bool:
        """Make it before it is needed; False if it was there."""
        ...

    async def drop_partition(self, kind: Kind, name: str) -> bool:
        """Remove it and every record in it; False if there is none. Directory entries into it are removed lazily."""
        ...

    async def ping(self) -> None:
        """Raise ``Unavailable`` or ``Full`` if a write would most likely fail now."""
        ...


class Rewriting(Protocol):
    """What a store may offer beyond ``Store``: changing stored events, which merging does to whose they are.

    ``rewriting_of`` says whether it does. Not for partitions that were made read-only: their events stay as they are.
    """

    async def rewrite_events(self, events: Sequence[EventWrite]) -> list[Verdict]:
        """Replace events, found by id and partition, whole. Outcomes STORED; CONFLICT: it is not there, or was changed
        in this moment; RETRY; NEVER."""
        ...


def rewriting_of(store: Store) -> Rewriting | None:
    """The store's attribute ``rewriting``, for stores that have this optional part of the port."""
    return getattr(store, "rewriting", None)


Tier = Literal["hot", "warm", "cold"]


class Snapshot(Struct, frozen=True):
    """A copy of one partition, kept outside the store's own nodes."""

    name: str
    kind: Kind
    partition: str
    state: Literal["success", "partial", "failed", "running"]
    started_ms: int


class Lifecycle(Protocol):
    """What a store may offer beyond ``Store``, for partitions that age; ``lifecycle_of`` says whether it does.

    Every step may be repeated: what is done already stays done. They take as long as the data is large, and wait for
    their end; a call that is cancelled or ``Unavailable`` goes on in the store, and repeating it waits again.
    ``BadInput`` for what the store is not set up for, or does not do to this kind.
    """

    async def move(
        self,
        kind: Kind,
        name: str,
        tier: Tier,
        *,
        read_only: bool = False,
        merge: bool = False,
        replicas: int | None = None,
    ) -> bool:
        """To nodes of a tier, or as near as there are any; False if there is no such partition.

        ``read_only``: for partitions of events that get no more writes; profiles and sessions are written to for ever.
        ``merge``: to as few files as can be. ``replicas``: further copies from now on; None: as it is.
        """
        ...

    async def snapshot(self, kind: Kind, name: str) -> Snapshot:
        """Make one; its state is never "running". ``BadInput`` 404 if there is no such partition."""
        ...

    async def restore(self, kind: Kind, name: str, snapshot: str = "") -> bool:
        """Bring a dropped partition back, from its latest good snapshot or the one named; False if it is there."""
        ...

    async def snapshots(self) -> list[Snapshot]:
        """All of this tenant's, oldest first."""
        ...

    async def drop_snapshot(self, snapshot: str) -> bool:
        """False if there is none of that name."""
        ...


def lifecycle_of(store: Store) -> Lifecycle | None:
    """The store's attribute ``lifecycle``, for stores that have the optional part of the port."""
    return getattr(store, "lifecycle", None)
