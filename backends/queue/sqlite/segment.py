"""One file of the log: batches in order, appended to until it is closed, then only read, deleted as a whole.

A batch is a row. Its key is the offset of its first message; offsets grow over all segments, and a segment knows where
it begins. ``counts`` is the log's running count after the row, so sums over the log are differences of two rows.

Closing is a committed mark in the file that each append checks in its own transaction: no process writes to a closed
segment. Its successor's beginning follows from its contents alone, so whichever process makes it makes the same.
"""

from __future__ import annotations

import os
import re
import uuid
from collections.abc import Iterator
from pathlib import Path

import msgspec
from msgspec import Struct

from tracardi_lite.backends.queue.sqlite.batch import Counts, Frame, decode_counts, encode_counts
from tracardi_lite.backends.queue.sqlite.database import Damaged, connect

PAGE_SIZE = 16384
"""Measured: 16 KiB takes 115 KB posts as fast as 64 KiB does and rewrites less of it for a lone small message."""
NAME = re.compile(r"functions-(\d{8})(?:\.(\d+))?\.db")
FORMAT = 1

_SCHEMA = """
CREATE TABLE state (closed INTEGER NOT NULL, start BLOB NOT NULL);
CREATE TABLE batches (
    base INTEGER PRIMARY KEY,
    count INTEGER NOT NULL,
    published_ms INTEGER NOT NULL,
    size INTEGER NOT NULL,
    counts BLOB NOT NULL,
    data BLOB NOT NULL
);
"""
# One statement, hence one transaction and one trip without the interpreter lock. It does nothing when the segment
# was closed or another process appended since we last looked.
_APPEND = """
INSERT INTO batches (base, count, published_ms, size, counts, data)
SELECT ?1, ?2, ?3, ?4, ?5, ?6
WHERE (SELECT closed FROM state) = 0 AND coalesce((SELECT max(base) FROM batches), -1) = ?7
"""
_LAST = "SELECT base, count, counts FROM batches ORDER BY base DESC LIMIT 1"
_READ = """
SELECT base, count, published_ms, size, counts, data FROM batches
WHERE base >= coalesce((SELECT max(base) FROM batches WHERE base <= ?1), 0) AND base + count > ?1 ORDER BY base
"""


class Start(Struct, array_like=True):
    """What a segment follows on."""

    base: int
    """Offset of its first message."""
    counts: Counts
    created_ms: int
    incarnation: str
    version: int = FORMAT


class End(Struct):
    """Where the log stands."""

    offset: int
    """Of the next message."""
    counts: Counts
    last_base: int = -1
    """Key of the last row of the segment; -1 when it has none."""


class Row(Struct):
    base: int
    count: int
    published_ms: int
    size: int
    counts: Counts
    data: bytes

    @property
    def end(self) -> int:
        return self.base + self.count


class Name(Struct, frozen=True, order=True):
    """A segment's place in the log; a salvaged copy has the next generation and hides the earlier one."""

    number: int
    generation: int = 0

    @property
    def file(self) -> str:
        generation = f".{self.generation}" if self.generation else ""
        return f"functions-{self.number:08}{generation}.db"


def listed(folder: Path) -> list[Name]:
    """The segments that are there, in order, each in its latest generation."""
    latest: dict[int, Name] = {}
    for file in os.listdir(folder):
        match = NAME.fullmatch(file)
        if match:
            name = Name(int(match[1]), int(match[2] or 0))
            latest[name.number] = max(name, latest.get(name.number, name))
    return [latest[number] for number in sorted(latest)]


class Segment:
    """An open segment, for one thread. ``sqlite3.Error`` passes through; what makes no sense is ``Damaged``."""

    def __init__(self, folder: Path, name: Name, *, busy_ms: int | None = None) -> None:
        self.name = name
        self._db = connect(folder / name.file, synchronous="FULL")
        try:
            # Checkpoints belong to the janitor: in a commit they would stall it.
            self._db.execute("PRAGMA wal_autocheckpoint=0")
            self.start = self._read_start()
            if busy_ms is not None:
                self._db.execute(f"PRAGMA busy_timeout={busy_ms}")
        except BaseException:
            self._db.close()
            raise

    def close(self) -> None:
        self._db.close()

    def is_closed(self) -> bool:
        (closed,) = self._db.execute("SELECT closed FROM state").fetchone()
        return bool(closed)

    def mark_closed(self) -> None:
        """For ever; durable when it returns."""
        self._db.execute("UPDATE state SET closed = 1")

    def end(self) -> End:
        row = self._db.execute(_LAST).fetchone()
        if row is None:
            return End(self.start.base, self.start.counts)
        base, count, counts = row
        return End(base + count, decode_counts(counts), base)

    def append(self, end: End, frame: Frame, published_ms: int) -> End | None:
        """Append durably at ``end``; None when that is not the end, or the segment is closed."""
        counts = end.counts.plus(frame.counts)
        values = (end.offset, frame.count, published_ms, frame.size, encode_counts(counts), frame.data, end.last_base)
        if self._db.execute(_APPEND, values).rowcount != 1:
            return None
        return End(end.offset + frame.count, counts, end.offset)

    def append_locked(self, frame: Frame, published_ms: int) -> End | None:
        """The same where others append too: look and append under the lock. None when the segment is closed."""
        self._db.execute("BEGIN IMMEDIATE")
        try:
            appended = None if self.is_closed() else self.append(self.end(), frame, published_ms)
            self._db.execute("COMMIT")
        except BaseException:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise
        return appended

    def rows(self, offset: int) -> Iterator[Row]:
        """From the batch that holds ``offset``, or the next one after it. Close the iterator, or read it to its end."""
        cursor = self._db.execute(_READ, (offset,))
        try:
            for base, count, published_ms, size, counts, data in cursor:
                yield Row(base, count, published_ms, size, decode_counts(counts), data)
        finally:
            cursor.close()

    def counts_at(self, base: int) -> tuple[int, Counts] | None:
        """The last row at or below ``base``: its own base, and the counts after it."""
        found = self._db.execute(
            "SELECT base, counts FROM batches WHERE base <= ? ORDER BY base DESC LIMIT 1", (base,)
        ).fetchone()
        return None if found is None else (found[0], decode_counts(found[1]))

    def first_since(self, published_ms: int) -> int | None:
        """Offset of the first batch that was published then or later."""
        (base,) = self._db.execute("SELECT min(base) FROM batches WHERE published_ms >= ?", (published_ms,)).fetchone()
        return base  # type: ignore[no-any-return]

    def published_ms(self, base: int) -> int | None:
        found = self._db.execute("SELECT published_ms FROM batches WHERE base = ?", (base,)).fetchone()
        return None if found is None else found[0]

    def check(self) -> None:
        """Look at every page; ``Damaged`` if one is wrong. Reads the whole file."""
        (verdict,) = self._db.execute("PRAGMA quick_check(1)").fetchone()
        if verdict != "ok":
            raise Damaged(verdict)

    def checkpoint(self, mode: str) -> None:
        self._db.execute(f"PRAGMA wal_checkpoint({mode})")

    def _read_start(self) -> Start:
        try:
            row = self._db.execute("SELECT start FROM state").fetchone()
            start = msgspec.msgpack.decode(row[0], type=Start)
        except (msgspec.DecodeError, TypeError) as error:
            raise Damaged("a segment does not know its beginning") from error
        if start.version != FORMAT:
            raise Damaged("a segment of another format")
        return start


def create(folder: Path, name: Name, start: Start, rows: Iterator[Row] | None = None) -> bool:
    """Make a segment, with ``rows`` a complete and closed one. False when another process was first.

    It gets its name when it is complete and durable, by a link, which fails if the name is taken.
    """
    temporary = folder / f".{name.file}.{uuid.uuid4().hex}"
    try:
        _fill(temporary, start, rows)
        try:
            os.link(temporary, folder / name.file)
        except FileExistsError:
            return False
        sync_folder(folder)
        return True
    finally:
        temporary.unlink(missing_ok=True)


def first_page(scratch: Path) -> bytes:
    """Of an empty segment, made for a moment at ``scratch``."""
    try:
        _fill(scratch, Start(0, Counts.zero(1), 0, ""), None)
        with scratch.open("rb") as file:
            return file.read(PAGE_SIZE)
    finally:
        scratch.unlink(missing_ok=True)


def _fill(path: Path, start: Start, rows: Iterator[Row] | None) -> None:
    db = connect(path, synchronous="FULL", create=True)
    try:
        db.execute(f"PRAGMA page_size={PAGE_SIZE}")
        # In WAL mode from the start; the file is whole without its log once that is checkpointed by the last close.
        db.execute("PRAGMA journal_mode=WAL")
        db.executescript(_SCHEMA)
        db.execute("BEGIN IMMEDIATE")
        for row in rows or ():
            values = (row.base, row.count, row.published_ms, row.size, encode_counts(row.counts), row.data)
            db.execute("INSERT INTO batches VALUES (?, ?, ?, ?, ?, ?)", values)
        db.execute("INSERT INTO state VALUES (?, ?)", (rows is not None, msgspec.msgpack.encode(start)))
        db.execute("COMMIT")
        busy, _, _ = db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        assert not busy, "nobody else knows the file"
    finally:
        db.close()
        for suffix in ("-wal", "-shm"):
            Path(f"{path}{suffix}").unlink(missing_ok=True)


def sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def move_aside(path: Path) -> None:
    """Keep a damaged file for people, out of the log."""
    for suffix in ("", "-wal", "-shm"):
        file = Path(f"{path}{suffix}")
        if file.exists():
            file.rename(f"{path}.corrupt{suffix}")
