"""``control.db``: everything about the queue that changes. For one thread per open queue.

* ``partitions``: a row per subscription and partition with the cursor, what it has passed, and the lease: owner and
  fencing number. Whoever moves a cursor names both in the same statement, so a late act changes nothing.
* ``members``: live consumers, with an expiry in monotonic time, which all processes of one boot share.
* ``subscriptions``: the ledger, in the same transactions as the cursors.
* ``tries``: messages beyond a cursor that were put back. ``letters``: dead letters. ``refused``: counts of the door.

Commits are not synced (``synchronous=NORMAL``): a power cut may take the last ones back, but all of each, in order, so
cursor and ledger go back together and messages come again. What must not be taken back is synced: dead letters before
the cursor passes their message, and everything before segments are deleted (``harden``).
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import msgspec
from msgspec import Struct, field

from tracardi_lite.backends.queue.routing import fair_shares
from tracardi_lite.backends.queue.sqlite.batch import Counts
from tracardi_lite.backends.queue.sqlite.database import connect, translated
from tracardi_lite.backends.queue.window import MESSAGES_MAX, Passed
from tracardi_lite.errors import LeaseLost
from tracardi_lite.ports.queue import DeadLetter

NARROWER = 8
"""When its holder dies, a partition's window becomes so much narrower, and wider again by what the cursor passes. So a
message that kills its workers is alone after a few of them, gets its tries counted, and its neighbours get through."""
REASONS_MAX = 64
"""Names in the count of refused events; further ones are counted as ``other``."""

SCHEMA = f"""
CREATE TABLE meta (incarnation TEXT NOT NULL, partitions INTEGER NOT NULL, version INTEGER NOT NULL);
CREATE TABLE subscriptions (
    name TEXT PRIMARY KEY,
    stored INTEGER NOT NULL DEFAULT 0,
    duplicate INTEGER NOT NULL DEFAULT 0,
    rejected INTEGER NOT NULL DEFAULT 0,
    dead_lettered INTEGER NOT NULL DEFAULT 0,
    sought INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID;
CREATE TABLE partitions (
    subscription TEXT NOT NULL,
    partition INTEGER NOT NULL,
    cursor INTEGER NOT NULL,
    messages INTEGER NOT NULL,
    events INTEGER NOT NULL,
    owner TEXT,
    fence INTEGER NOT NULL DEFAULT 0,
    width INTEGER NOT NULL DEFAULT {MESSAGES_MAX},
    PRIMARY KEY (subscription, partition)
) WITHOUT ROWID;
CREATE TABLE members (
    joined INTEGER PRIMARY KEY AUTOINCREMENT,
    member TEXT NOT NULL UNIQUE,
    subscription TEXT NOT NULL,
    boot TEXT NOT NULL,
    expires REAL NOT NULL
);
CREATE TABLE tries (
    subscription TEXT NOT NULL,
    partition INTEGER NOT NULL,
    offset INTEGER NOT NULL,
    tries INTEGER NOT NULL,
    due_ms INTEGER NOT NULL,
    PRIMARY KEY (subscription, partition, offset)
) WITHOUT ROWID;
CREATE TABLE letters (id TEXT PRIMARY KEY, events INTEGER NOT NULL, letter BLOB NOT NULL);
CREATE TABLE refused (reason TEXT PRIMARY KEY, events INTEGER NOT NULL) WITHOUT ROWID;
"""


class Lease(Struct):
    """A partition just taken, and where its work goes on."""

    partition: int
    fence: int
    cursor: int
    messages: int
    events: int
    width: int
    """How many messages beyond the cursor may be worked on, see ``NARROWER``."""
    tries: dict[int, tuple[int, int]] = {}
    """Offset → tries, when due (ms since the epoch)."""


class Standing(Struct):
    """What a member knows after ``sync``."""

    taken: list[Lease]
    lost: list[int]
    share: int
    peers: list[str]
    """The other live members."""


class Save(Struct):
    """A partition's progress, to be stored under its fence."""

    partition: int
    fence: int
    passed: Passed


class Cursor(Struct):
    subscription: str
    partition: int
    messages: int
    events: int


class Ledger(Struct):
    stored: int = 0
    duplicate: int = 0
    rejected: int = 0
    dead_lettered: int = 0
    sought: int = 0
    passed: int = 0
    """Events that the cursors have passed, in the same snapshot."""
    dead: int = 0
    refused: dict[str, int] = field(default_factory=dict)


class Control:
    """Raises the port's errors only."""

    def __init__(self, path: Path) -> None:
        with _translating():
            self._db = connect(path, synchronous="NORMAL")
            try:
                self.incarnation, self.partitions = self._db.execute(
                    "SELECT incarnation, partitions FROM meta"
                ).fetchone()
            except BaseException:
                self._db.close()
                raise

    def close(self) -> None:
        self._db.close()

    # --- membership ---
    def subscribe(self, subscription: str, start: int, counts: Counts) -> None:
        """Make a subscription that begins at ``start``, unless it is there."""
        with self._write():
            add_subscription(self._db, subscription, self.partitions, start, counts)

    def sync(
        self,
        subscription: str,
        member: str,
        held: Mapping[int, int],
        dead: Sequence[str],
        boot: str,
        now: float,
        ttl_s: float,
    ) -> Standing:
        """Renew this member, bury silent and dead ones, give up what is not in ``held``, take what is free.

        ``held`` maps the partitions that it works on to their fences; ``dead`` names members whose process is known
        to be gone. ``now`` is monotonic.
        """
        with self._write():
            db = self._db
            self._bury(subscription, member, dead, boot, now)
            db.execute(
                "INSERT INTO members (member, subscription, boot, expires) VALUES (?, ?, ?, ?)"
                " ON CONFLICT (member) DO UPDATE SET expires = excluded.expires",
                (member, subscription, boot, now + ttl_s),
            )
            members = [
                name
                for (name,) in db.execute(
                    "SELECT member FROM members WHERE subscription = ? ORDER BY joined", (subscription,)
                )
            ]
            share = fair_shares(self.partitions, len(members))[members.index(member)]
            mine = dict(
                db.execute(
                    "SELECT partition, fence FROM partitions WHERE subscription = ? AND owner = ?",
                    (subscription, member),
                ).fetchall()
            )
            lost = [partition for partition, fence in held.items() if mine.get(partition) != fence]
            for partition in mine.keys() - (held.keys() - lost):
                self._free(subscription, partition)
            taken = self._take(subscription, member, share - (len(held) - len(lost)))
            return Standing(taken, lost, share, [name for name in members if name != member])

    def leave(self, member: str) -> None:
        with self._write():
            self._db.execute("UPDATE partitions SET owner = NULL, fence = fence + 1 WHERE owner = ?", (member,))
            self._db.execute("DELETE FROM members WHERE member = ?", (member,))

    # --- progress ---
    def save(self, subscription: str, saves: Sequence[Save], letters: Sequence[DeadLetter] = ()) -> None:
        """Move cursors and enter what they passed, all or nothing; letters are durable when it returns.

        Raises ``LeaseLost`` if one of the partitions has moved on.
        """
        if not saves and not letters:
            return
        with self._write(durable=bool(letters)):
            for letter in letters:
                self._db.execute(
                    "INSERT OR REPLACE INTO letters VALUES (?, ?, ?)",
                    (letter.id, letter.events, msgspec.msgpack.encode(letter)),
                )
            for save in saves:
                self._save(subscription, save)

    def put_back(self, subscription: str, tries: Sequence[tuple[int, int, int, int]]) -> None:
        """Remember (partition, offset, tries, due_ms)."""
        with self._write():
            self._db.executemany(
                "INSERT OR REPLACE INTO tries VALUES (?, ?, ?, ?, ?)", [(subscription, *row) for row in tries]
            )

    def seek(self, subscription: str, start: int, counts: Counts) -> int:
        """Move every cursor that is further than ``start`` back to it; the events that are pending again."""
        with self._write(durable=True):
            again = 0
            rows = self._db.execute(
                "SELECT partition, messages, events FROM partitions WHERE subscription = ?", (subscription,)
            ).fetchall()
            for partition, messages, events in rows:
                if counts.messages[partition] >= messages:
                    continue
                again += events - counts.events[partition]
                self._db.execute(
                    "UPDATE partitions SET cursor = ?, messages = ?, events = ?, owner = NULL, fence = fence + 1"
                    " WHERE subscription = ? AND partition = ?",
                    (start, counts.messages[partition], counts.events[partition], subscription, partition),
                )
                self._db.execute(
                    "DELETE FROM tries WHERE subscription = ? AND partition = ?", (subscription, partition)
                )
            self._db.execute("UPDATE subscriptions SET sought = sought + ? WHERE name = ?", (again, subscription))
            return again

    # --- looking ---
    def ledger(self, subscription: str) -> Ledger:
        """One snapshot: outcomes and cursors belong together."""
        with self._read():
            db = self._db
            row = db.execute(
                "SELECT stored, duplicate, rejected, dead_lettered, sought FROM subscriptions WHERE name = ?",
                (subscription,),
            ).fetchone()
            (passed,) = db.execute(
                "SELECT sum(events) FROM partitions WHERE subscription = ?", (subscription,)
            ).fetchone()
            (dead,) = db.execute("SELECT coalesce(sum(events), 0) FROM letters").fetchone()
            refused = dict(db.execute("SELECT reason, events FROM refused").fetchall())
            outcomes = Ledger(*row)
            outcomes.passed, outcomes.dead, outcomes.refused = passed, dead, refused
            return outcomes

    def cursors(self) -> list[Cursor]:
        with _translating():
            rows = self._db.execute("SELECT subscription, partition, messages, events FROM partitions").fetchall()
        return [Cursor(*row) for row in rows]

    # --- the rest ---
    def refuse(self, counts: Mapping[str, int]) -> None:
        with self._write():
            known = {reason for (reason,) in self._db.execute("SELECT reason FROM refused")}
            for reason, events in counts.items():
                name = reason if reason in known or len(known) < REASONS_MAX else "other"
                known.add(name)
                self._db.execute(
                    "INSERT INTO refused VALUES (?, ?)"
                    " ON CONFLICT (reason) DO UPDATE SET events = events + excluded.events",
                    (name, events),
                )

    def letters(self, limit: int, after: str) -> list[DeadLetter]:
        with _translating():
            rows = self._db.execute(
                "SELECT letter FROM letters WHERE id > ? ORDER BY id LIMIT ?", (after, limit)
            ).fetchall()
        return [msgspec.msgpack.decode(letter, type=DeadLetter) for (letter,) in rows]

    def has_letter(self, id: str) -> bool:
        with _translating():
            return self._db.execute("SELECT 1 FROM letters WHERE id = ?", (id,)).fetchone() is not None

    def drop_letter(self, id: str) -> bool:
        with self._write():
            return self._db.execute("DELETE FROM letters WHERE id = ?", (id,)).rowcount == 1

    def harden(self) -> None:
        """Make all commits so far survive a power cut."""
        with self._write(durable=True):
            self._db.execute("UPDATE meta SET version = version")

    def _bury(self, subscription: str, member: str, dead: Sequence[str], boot: str, now: float) -> None:
        silent = self._db.execute(
            "SELECT member FROM members WHERE subscription = ? AND member != ? AND (expires < ? OR boot != ?)",
            (subscription, member, now, boot),
        ).fetchall()
        for name in {*dead, *(name for (name,) in silent)}:
            self._db.execute(
                "UPDATE partitions SET owner = NULL, fence = fence + 1, width = max(1, width / ?) WHERE owner = ?",
                (NARROWER, name),
            )
            self._db.execute("DELETE FROM members WHERE member = ?", (name,))

    def _free(self, subscription: str, partition: int) -> None:
        self._db.execute(
            "UPDATE partitions SET owner = NULL, fence = fence + 1 WHERE subscription = ? AND partition = ?",
            (subscription, partition),
        )

    def _take(self, subscription: str, member: str, count: int) -> list[Lease]:
        taken: list[Lease] = []
        if count <= 0:
            return taken
        rows = self._db.execute(
            "SELECT partition, fence + 1, cursor, messages, events, width FROM partitions"
            " WHERE subscription = ? AND owner IS NULL ORDER BY partition LIMIT ?",
            (subscription, count),
        ).fetchall()
        for row in rows:
            lease = Lease(*row)
            self._db.execute(
                "UPDATE partitions SET owner = ?, fence = ? WHERE subscription = ? AND partition = ?",
                (member, lease.fence, subscription, lease.partition),
            )
            tries = self._db.execute(
                "SELECT offset, tries, due_ms FROM tries WHERE subscription = ? AND partition = ?",
                (subscription, lease.partition),
            )
            lease.tries = {offset: (count, due_ms) for offset, count, due_ms in tries}
            taken.append(lease)
        return taken

    def _save(self, subscription: str, save: Save) -> None:
        passed = save.passed
        moved = self._db.execute(
            "UPDATE partitions SET cursor = ?, messages = messages + ?, events = events + ?,"
            " width = min(?, width + ?) WHERE subscription = ? AND partition = ? AND fence = ?",
            (
                passed.cursor,
                passed.messages,
                passed.events,
                MESSAGES_MAX,
                passed.messages,
                subscription,
                save.partition,
                save.fence,
            ),
        ).rowcount
        if moved != 1:
            raise LeaseLost("a partition has moved to another consumer")
        self._db.execute(
            "DELETE FROM tries WHERE subscription = ? AND partition = ? AND offset < ?",
            (subscription, save.partition, passed.cursor),
        )
        self._db.execute(
            "UPDATE subscriptions SET stored = stored + ?, duplicate = duplicate + ?, rejected = rejected + ?,"
            " dead_lettered = dead_lettered + ? WHERE name = ?",
            (passed.stored, passed.duplicate, passed.rejected, passed.dead, subscription),
        )

    @contextmanager
    def _write(self, *, durable: bool = False) -> Iterator[None]:
        with _translating():
            if durable:
                self._db.execute("PRAGMA synchronous=FULL")
            try:
                self._db.execute("BEGIN IMMEDIATE")
                try:
                    yield
                    self._db.execute("COMMIT")
                except BaseException:
                    if self._db.in_transaction:
                        self._db.execute("ROLLBACK")
                    raise
            finally:
                if durable:
                    self._db.execute("PRAGMA synchronous=NORMAL")

    @contextmanager
    def _read(self) -> Iterator[None]:
        with _translating():
            self._db.execute("BEGIN")
            try:
                yield
            finally:
                self._db.execute("COMMIT")


def passed_at_most(db: sqlite3.Connection, counts: Counts) -> Counts:
    """The counts of the furthest cursors, where they are beyond ``counts``."""
    furthest = Counts.zero(len(counts.messages))
    for partition, messages, events in db.execute("SELECT partition, messages, events FROM partitions"):
        furthest.messages[partition] = max(furthest.messages[partition], messages)
        furthest.events[partition] = max(furthest.events[partition], events)
    return counts.at_least(furthest)


def add_subscription(db: sqlite3.Connection, name: str, partitions: int, start: int, counts: Counts) -> None:
    if db.execute("INSERT OR IGNORE INTO subscriptions (name) VALUES (?)", (name,)).rowcount != 1:
        return
    db.executemany(
        "INSERT INTO partitions (subscription, partition, cursor, messages, events) VALUES (?, ?, ?, ?, ?)",
        [(name, number, start, counts.messages[number], counts.events[number]) for number in range(partitions)],
    )


@contextmanager
def _translating() -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        raise translated(error) from error
