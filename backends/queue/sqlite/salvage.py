"""A damaged segment must not take the queue down: copy what can be read, move the file aside, go on, and say so.

What could not be read leaves a gap in the offsets and in the running counts, which consumers step over and enter in
the ledger as dead (see ``consumer``).

Other processes have the file open. A closed segment never changes, so a copy is a copy; they meet the damage, or that
the file is gone, and find the copy. An open one is closed in the transaction under whose lock it is copied, so nothing
is appended to what is moved aside. Where the damage prevents even that mark, the file is only touched if no other
process has the queue open.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec
import structlog

from tracardi_lite.backends.queue.sqlite import segment as segments
from tracardi_lite.backends.queue.sqlite.batch import Counts, decode_counts, unpack
from tracardi_lite.backends.queue.sqlite.control import passed_at_most
from tracardi_lite.backends.queue.sqlite.database import Damaged, connect, is_damage
from tracardi_lite.backends.queue.sqlite.segment import Name, Row, Start
from tracardi_lite.clock import Clock
from tracardi_lite.errors import Unavailable

LOCK_FILE = "salvage.lock"
OPEN_FILE = "open.lock"
"""Every process that has the queue open holds a shared lock on it."""
LOCK_WAIT_S = 30.0
UNKNOWN_TAIL = 1 << 20
"""Offsets left out after the readable end of a damaged open segment: some may have been used, none is used twice."""
PROBES_MAX = 2_000
"""Attempts to find readable rows behind damage; each is a look-up of microseconds."""
CONTROL_FILE = "control.db"

log = structlog.get_logger(__name__)


@contextmanager
def locked(path: Path, wait_s: float = LOCK_WAIT_S) -> Iterator[None]:
    """An exclusive lock between processes and threads; the kernel gives it back if we die."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        deadline = time.monotonic() + wait_s
        while True:
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise Unavailable("queue", f"{path.name} is held by another process") from None
                time.sleep(0.02)
        yield
    finally:
        os.close(descriptor)


def salvage(folder: Path, name: Name, clock: Clock, *, alone: bool = False) -> None:
    """Replace a damaged segment by a copy of what can be read. ``Unavailable`` if that can't be done now.

    ``alone``: the caller knows that no other process has the queue open.
    """
    with locked(folder / LOCK_FILE):
        names = segments.listed(folder)
        if name not in names:
            return  # another process has done it
        _replace(folder, name, names, clock, alone)


def _replace(folder: Path, name: Name, names: list[Name], clock: Clock, alone: bool) -> None:
    path = folder / name.file
    is_last = name == names[-1]
    following = None if is_last else _start_of_next(folder, names[names.index(name) + 1])
    with _opened(path) as (db, is_original):
        if is_last and not alone and not (is_original and _close(db)):
            raise Unavailable("queue", f"{name.file} is damaged; restart all processes to salvage it", 30.0)
        start = _start_of(db, folder, name, names, clock)
        rows = _readable(db, following.base if following else start.base + UNKNOWN_TAIL)
    end, counts = (rows[-1].end, rows[-1].counts) if rows else (start.base, start.counts)
    segments.create(folder, Name(name.number, name.generation + 1), start, iter(rows))
    if is_last:
        counts = _at_least_passed(folder, counts)
        following = Start(end + UNKNOWN_TAIL, counts, clock.now_ms(), start.incarnation)
        segments.create(folder, Name(name.number + 1), following)
    elif following is not None:
        counts = following.counts
    segments.move_aside(path)
    read = sum(row.count for row in rows)
    log.error(
        "queue_segment_damaged",
        segment=name.file,
        kept_as=f"{name.file}.corrupt",
        messages_read=read,
        messages_lost=sum(counts.messages) - sum(start.counts.messages) - read,
        tail_unknown=is_last,
    )


@contextmanager
def _opened(path: Path) -> Iterator[tuple[sqlite3.Connection, bool]]:
    """The damaged file; or, if its first page is what is damaged, a copy with a new one, and False."""
    try:
        db = connect(path, synchronous="FULL")
        db.execute("PRAGMA wal_autocheckpoint=0")
        is_original = True
    except sqlite3.Error as error:
        if not is_damage(error):
            raise
        is_original = False
        copy = path.with_name(f".{path.name}.first-page")
        _renew_first_page(path, copy)
        db = connect(copy, synchronous="OFF")
    try:
        yield db, is_original
    finally:
        db.close()
        if not is_original:
            for suffix in ("", "-wal", "-shm"):
                Path(f"{copy}{suffix}").unlink(missing_ok=True)


def _renew_first_page(path: Path, copy: Path) -> None:
    """The first page holds the header and the schema, which are the same in every segment but for three numbers."""
    for suffix in ("", "-wal"):
        if Path(f"{path}{suffix}").exists():
            shutil.copyfile(f"{path}{suffix}", f"{copy}{suffix}")
    page = bytearray(segments.first_page(path.with_name(f".{path.name}.model")))
    page[92:96] = page[24:28]  # "the size below was valid at this change counter", which SQLite checks
    page[28:32] = (path.stat().st_size // segments.PAGE_SIZE).to_bytes(4, "big")
    with copy.open("r+b") as file:
        file.write(page)


def _close(db: sqlite3.Connection) -> bool:
    """Mark it closed and keep the lock until the connection closes; False when the damage prevents it."""
    try:
        db.execute("UPDATE state SET closed = 1")
        db.execute("BEGIN IMMEDIATE")
    except sqlite3.Error as error:
        if not is_damage(error):
            raise
        return False
    return True


def _readable(db: sqlite3.Connection, end: int) -> list[Row]:
    """Every batch below ``end`` that can be reached and whose checksum holds, in order.

    Damage to a page of the tree stops a walk, so each hole is walked to from both sides and then halved.
    """
    found: dict[int, Row] = {}
    holes = [(-1, end)]
    for _ in range(PROBES_MAX):
        if not holes:
            break
        low, high = holes.pop()
        low, whole = _walk(db, "ASC", low, high, found)
        if whole:
            continue
        high, whole = _walk(db, "DESC", low, high, found)
        if not whole and high - low > 2:
            middle = (low + high) // 2
            holes += [(middle, high), (low, middle + 1)]
    return [found[base] for base in sorted(found)]


def _walk(db: sqlite3.Connection, order: str, low: int, high: int, found: dict[int, Row]) -> tuple[int, bool]:
    """Collect between the two bounds, until the other one (True) or damage (False); the last base seen."""
    seen = low if order == "ASC" else high
    query = f"SELECT * FROM batches WHERE base > ? AND base < ? ORDER BY base {order}"  # noqa: S608
    try:
        for values in db.execute(query, (low, high)):
            seen = values[0]
            row = _sound(values)
            if row is not None:
                found[seen] = row
    except sqlite3.Error as error:
        if not is_damage(error):
            raise
        return seen, False
    return seen, True


def _sound(values: tuple[int, int, int, int, bytes, bytes]) -> Row | None:
    base, count, published_ms, size, counts, data = values
    try:
        if len(unpack(base, published_ms, size, data)) != count:
            return None
        return Row(base, count, published_ms, size, decode_counts(counts), data)
    except (Damaged, TypeError):
        return None


def _at_least_passed(folder: Path, counts: Counts) -> Counts:
    """A lost tail may hold what consumers have acknowledged: the log's counts never fall below theirs."""
    db = connect(folder / CONTROL_FILE, synchronous="NORMAL")
    try:
        return passed_at_most(db, counts)
    except sqlite3.Error as error:
        log.warning("queue_cursors_unreadable", error=str(error))
        return counts
    finally:
        db.close()


def _start_of_next(folder: Path, name: Name) -> Start | None:
    try:
        segment = segments.Segment(folder, name)
    except (sqlite3.Error, Damaged):
        return None
    segment.close()
    return segment.start


def _start_of(db: sqlite3.Connection, folder: Path, name: Name, names: list[Name], clock: Clock) -> Start:
    """Its own word if that can be read; else what the segment before says."""
    try:
        (start,) = db.execute("SELECT start FROM state").fetchone()
        return msgspec.msgpack.decode(start, type=Start)
    except (sqlite3.Error, msgspec.DecodeError, TypeError):
        pass
    place = names.index(name)
    for near in [*reversed(names[:place]), *names[place + 1 :]]:
        try:
            neighbour = segments.Segment(folder, near)
        except (sqlite3.Error, Damaged):
            continue
        try:
            if near < name:
                end = neighbour.end()
                return Start(end.offset, end.counts, clock.now_ms(), neighbour.start.incarnation)
            return Start(neighbour.start.base, neighbour.start.counts, clock.now_ms(), neighbour.start.incarnation)
        except (sqlite3.Error, Damaged):
            continue
        finally:
            neighbour.close()
    raise Unavailable("queue", f"{name.file} is damaged beyond reading its beginning", 30.0)
