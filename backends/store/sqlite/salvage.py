"""Rescuing what can be read from a damaged file into a fresh one, so that everything else goes on.

The file is kept as ``<name>.corrupt-<ms>`` for people; the fresh one takes its place with every record whose row and
document are whole. While it runs, writes to the partition are told to come again, and reads of it that the store is
away. Records that are lost can be made again by replaying the queue: ids are create-only, so what is there stays.

Rows are copied by ranges of their number; a range that can't be read is halved, down to a single row. Unreadable rows
beyond ``LOST_MAX`` end the search for more. One salvage at a time, over all processes.
"""

from __future__ import annotations

import sqlite3
import time
from abc import ABC, abstractmethod
from bisect import bisect_right
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

from tracardi_lite import partitioning
from tracardi_lite.backends.store.sqlite import faults, files, schema
from tracardi_lite.backends.store.sqlite.files import Files, Identity
from tracardi_lite.ports.store import Kind

LOST_MAX = 50_000
"""Unreadable ranges of one row, at some 60 µs each: a few seconds, then the rest is given up."""

ROWS_MAX = 1 << 26
"""More rows than a partition has (a hundred gigabytes); empty ranges are passed over in steps of thousands."""

_BATCH = 4096
_WAIT_S = 3600.0
"""For another salvage to end; a copy of ten gigabytes takes minutes."""


class Salvaged(Struct):
    kept: int
    lost: int
    """Rows that could not be read whole; damaged pages may have held more that left no trace."""
    aside: str


def salvage(store_files: Files, file: str, damaged: Identity | None, stopped: Callable[[], bool]) -> Salvaged | None:
    """Replace a file, if it is still the damaged one; None when it is gone or replaced already, or ``stopped()``.

    Raises sqlite3 errors and ``OSError`` of the fresh file (a full disk), ``Unavailable`` from waiting.
    """
    with store_files.lock(exclusive=True, name=".salvage", wait_s=_WAIT_S):
        if stopped() or damaged is None or store_files.identity(file) != damaged:
            return None
        fresh = store_files.path(f"{file}.salvaged")
        _remove_all(fresh)
        old = _open_damaged(store_files.path(file))
        try:
            copy = _copied(old, fresh, file, store_files, stopped)
            if copy is None:
                return None
            aside = f"{file}.corrupt-{time.time_ns() // 1_000_000}"
            if not store_files.replace(file, damaged, fresh, aside):
                return None
        finally:
            old.close()
            _remove_all(fresh)
    return Salvaged(copy.kept, copy.lost, aside)


def _remove_all(path: Path) -> None:
    """What an interrupted salvage leaves; nothing after one that succeeded."""
    for suffix in ("", "-wal", "-shm", "-journal"):
        Path(f"{path}{suffix}").unlink(missing_ok=True)


def _open_damaged(path: Path) -> sqlite3.Connection:
    """With its write lock held if it can be had: nobody then writes what would not be copied."""
    connection = sqlite3.connect(path, timeout=files.BUSY_S, isolation_level=None)
    try:
        connection.execute("PRAGMA cell_size_check = ON")
        # Otherwise a file that is shorter than its header says (a torn one) can't be read at all.
        connection.execute("PRAGMA writable_schema = ON")
        connection.execute("BEGIN IMMEDIATE")
    except sqlite3.DatabaseError as error:
        if not faults.is_damage(error):
            connection.close()
            raise
    return connection


def _copied(
    old: sqlite3.Connection, path: Path, file: str, store_files: Files, stopped: Callable[[], bool]
) -> _Copy | None:
    fresh = sqlite3.connect(path, isolation_level=None)
    try:
        files.prepare(fresh, schema.layout_of(file))
        # Nobody sees the file before it is closed, and synced as a whole by the checkpoint.
        fresh.execute("PRAGMA synchronous = OFF")
        copy = _EntryCopy(old, fresh) if file == schema.DIRECTORY else _RecordCopy(old, fresh)
        copy.run(stopped)
        if file == schema.DIRECTORY:
            _restore_entries(fresh, store_files, stopped)
        if stopped():
            return None
        fresh.execute("PRAGMA synchronous = FULL")
        fresh.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    finally:
        fresh.close()
    return copy


class _Copy(ABC):
    def __init__(self, old: sqlite3.Connection, fresh: sqlite3.Connection) -> None:
        self._old = old
        self._fresh = fresh
        self.kept = 0
        self.lost = 0

    @abstractmethod
    def run(self, stopped: Callable[[], bool]) -> None:
        """Copy what can be read, until all is done or ``stopped()``."""

    def _has(self, table: str) -> bool:
        """False where even the list of tables can't be read: nothing can, then."""
        try:
            found = self._old.execute("SELECT count(*) FROM sqlite_master WHERE name = ?", (table,)).fetchone()
        except sqlite3.DatabaseError:
            return False
        return bool(found[0])

    def _insert(self, table: str, rows: list[tuple[object, ...]]) -> None:
        if not rows:
            return
        marks = ",".join("?" * len(rows[0]))
        self._fresh.execute("BEGIN")
        # OR IGNORE: a damaged index may have let an id in twice.
        cursor = self._fresh.executemany(f"INSERT OR IGNORE INTO {table} VALUES ({marks})", rows)
        self._fresh.execute("COMMIT")
        self.kept += cursor.rowcount
        self.lost += len(rows) - cursor.rowcount


class _RecordCopy(_Copy):
    """By ranges of row numbers."""

    def run(self, stopped: Callable[[], bool]) -> None:
        if not self._has("record"):
            return
        columns = [row[1] for row in self._fresh.execute("PRAGMA table_info(record)")]
        self._select = f"SELECT {', '.join(columns)} FROM record NOT INDEXED WHERE seq BETWEEN ? AND ?"
        self._id, self._doc = columns.index("id"), columns.index("doc")
        ranges = [(1, self._last())]
        while ranges and not stopped() and self.lost < LOST_MAX:
            first, last = ranges.pop()
            if last - first >= _BATCH:
                ranges += [(first + _BATCH, last), (first, first + _BATCH - 1)]
                continue
            try:
                rows = self._old.execute(self._select, (first, last)).fetchall()
            except sqlite3.DatabaseError:
                if first == last:
                    self.lost += 1
                else:
                    middle = (first + last) // 2
                    ranges += [(middle + 1, last), (first, middle)]
                continue
            whole = [row for row in rows if self._is_whole(row)]
            self.lost += len(rows) - len(whole)
            self._insert("record", whole)

    def _last(self) -> int:
        """The greatest row number, from the table or else from an index; if neither can be read, one surely greater."""
        for where in ("NOT INDEXED", "INDEXED BY record_at"):
            try:
                (last,) = self._old.execute(f"SELECT max(seq) FROM record {where}").fetchone()
            except sqlite3.DatabaseError:
                continue
            return int(last or 0)
        return ROWS_MAX

    def _is_whole(self, row: tuple[Any, ...]) -> bool:
        """A page of zeros inside a long document is no damage to SQLite; to JSON it is."""
        try:
            head = msgspec.json.decode(row[self._doc], type=_Identified)
        except (msgspec.DecodeError, UnicodeDecodeError, TypeError):
            return False
        return bool(head.id == row[self._id])


class _Identified(Struct):
    id: str


class _EntryCopy(_Copy):
    """In the order of keys; where a page can't be read, on from the next of many places at which keys may begin."""

    _SELECT = "SELECT key, target, partition, message FROM entry WHERE key > ? ORDER BY key LIMIT ?"
    # Keys are hexadecimal behind their prefix, but for foreign ids: a damaged page then costs a 4096th of a kind's.
    _STARTS = tuple(f"{prefix}:{number:03x}" for prefix in "kps" for number in range(4096))

    def run(self, stopped: Callable[[], bool]) -> None:
        if not self._has("entry"):
            return
        at, limit = "", _BATCH
        while not stopped():
            try:
                rows = self._old.execute(self._SELECT, (at, limit)).fetchall()
            except sqlite3.DatabaseError:
                if limit > 1:
                    limit //= 2
                    continue
                self.lost += 1
                after = bisect_right(self._STARTS, at)
                if after == len(self._STARTS):
                    return
                at, limit = self._STARTS[after], _BATCH
                continue
            if not rows:
                return
            self._insert("entry", rows)
            at = rows[-1][0]


def _restore_entries(fresh: sqlite3.Connection, store_files: Files, stopped: Callable[[], bool]) -> None:
    """Entries that every profile and session says of itself, oldest partition first; lost aliases stay lost."""
    kinds: tuple[Kind, ...] = ("profile", "session")
    for kind in kinds:
        found = (schema.partition_of_file(kind, name) for name in store_files.names())
        for partition in reversed(partitioning.newest_first(name for name in found if name)):
            opened = store_files.open_to_read(schema.file_name(kind, partition))
            if opened is None:
                continue
            try:
                _restore_from(fresh, opened[0], kind, partition, stopped)
            except sqlite3.DatabaseError as error:
                # A second damaged file: its records' entries come back when they are next seen.
                if not faults.is_damage(error):
                    raise
            finally:
                opened[0].close()


def _restore_from(
    fresh: sqlite3.Connection, source: sqlite3.Connection, kind: Kind, partition: str, stopped: Callable[[], bool]
) -> None:
    after = 0
    while not stopped():
        rows = source.execute(
            "SELECT seq, id, profile FROM record WHERE seq > ? ORDER BY seq LIMIT ?", (after, _BATCH)
        ).fetchall()
        if not rows:
            return
        after = rows[-1][0]
        fresh.execute("BEGIN")
        fresh.executemany(
            "INSERT OR IGNORE INTO entry (key, target, partition, message) VALUES (?, ?, ?, '')",
            [_own_entry(kind, id.decode(), (profile or b"").decode(), partition) for _, id, profile in rows],
        )
        fresh.execute("COMMIT")


def _own_entry(kind: Kind, id: str, profile: str, partition: str) -> tuple[str, str, str]:
    return f"{kind[0]}:{id}", id if kind == "profile" else profile, partition
