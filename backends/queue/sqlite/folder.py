"""A queue's folder: made on first use, looked over at each opening, and tidied.

``control.db`` and the segments each know the incarnation, so either can be rebuilt around the other.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
import uuid
from pathlib import Path

import msgspec
import structlog

from tracardi_lite.backends.queue.sqlite import segment as segments
from tracardi_lite.backends.queue.sqlite.batch import Counts
from tracardi_lite.backends.queue.sqlite.control import SCHEMA, add_subscription, passed_at_most
from tracardi_lite.backends.queue.sqlite.database import Damaged, connect, is_damage
from tracardi_lite.backends.queue.sqlite.salvage import CONTROL_FILE, OPEN_FILE, UNKNOWN_TAIL, locked, salvage
from tracardi_lite.backends.queue.sqlite.segment import Name, Segment, Start
from tracardi_lite.clock import Clock
from tracardi_lite.ports.queue import SUBSCRIPTION

SETUP_LOCK = "setup.lock"
MEMBERS = "members"
FORMAT = 1

log = structlog.get_logger(__name__)


class Folder:
    """Holds the shared lock that says that this process has the queue open."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = -1

    def open(self, partitions: int, clock: Clock) -> None:
        """Make or check everything. Raises ``sqlite3.Error``, ``OSError`` or the port's errors."""
        self.path.mkdir(mode=0o700, parents=True, exist_ok=True)
        (self.path / MEMBERS).mkdir(exist_ok=True)
        with locked(self.path / SETUP_LOCK):
            alone = self._enter()
            if alone:
                _tidy(self.path)
            names = segments.listed(self.path)
            control = _control_start(self.path, alone)
            if not names:
                start = control or Start(0, Counts.zero(partitions), clock.now_ms(), uuid.uuid4().hex)
                segments.create(self.path, Name(1), start)
            else:
                _check_last(self.path, names[-1], alone, clock)
                if control is not None:
                    _check_end(self.path, control, clock)
            if control is None:
                _make_control(self.path)

    def close(self) -> None:
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1

    def _enter(self) -> bool:
        """Take the shared lock; whether nobody else had it."""
        self._lock = os.open(self.path / OPEN_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            alone = True
        except BlockingIOError:
            alone = False
        fcntl.flock(self._lock, fcntl.LOCK_SH)
        return alone


def _tidy(folder: Path) -> None:
    """Remove what a crash left: half-made files, and logs of segments that are gone."""
    for file in folder.iterdir():
        if file.name.startswith((".functions-", ".probe.", ".control.")):
            file.unlink()
        for suffix in ("-wal", "-shm"):
            if file.name.endswith(suffix) and not file.with_name(file.name.removesuffix(suffix)).exists():
                file.unlink()


def _check_last(folder: Path, name: Name, alone: bool, clock: Clock) -> None:
    """The last segment must be readable before anything is appended; after a crash all of its pages are looked at."""
    crashed = alone and (folder / f"{name.file}-wal").exists()
    try:
        last = Segment(folder, name)
        try:
            if crashed:
                last.check()
            last.end()
        finally:
            last.close()
    except (sqlite3.Error, Damaged) as error:
        if isinstance(error, sqlite3.Error) and not is_damage(error):
            raise
        salvage(folder, name, clock, alone=alone)


def _check_end(folder: Path, control: Start, clock: Clock) -> None:
    """A disk that lost what it had synced may have lost positions that consumers passed: they are not used again."""
    name = segments.listed(folder)[-1]
    last = Segment(folder, name)
    try:
        end = last.end()
        if end.offset >= control.base - UNKNOWN_TAIL:
            return
        log.error("queue_end_lost", segment=name.file, offset=end.offset, cursor=control.base - UNKNOWN_TAIL)
        last.mark_closed()
        counts = end.counts.at_least(control.counts)
        start = Start(control.base, counts, clock.now_ms(), last.start.incarnation)
        segments.create(folder, Name(name.number + 1), start)
    finally:
        last.close()


def _control_start(folder: Path, alone: bool) -> Start | None:
    """What a new log would follow on, from ``control.db``; None when that is not there, or was moved aside."""
    path = folder / CONTROL_FILE
    if not path.exists():
        return None
    try:
        db = connect(path, synchronous="NORMAL")
        try:
            if alone and (folder / f"{CONTROL_FILE}-wal").exists():
                _raise_if_wrong(db)
            incarnation, partitions = db.execute("SELECT incarnation, partitions FROM meta").fetchone()
            counts = Counts.zero(partitions)
            (cursor,) = db.execute("SELECT max(cursor) FROM partitions").fetchone()
            return Start(cursor + UNKNOWN_TAIL, passed_at_most(db, counts), 0, incarnation)
        finally:
            db.close()
    except (sqlite3.Error, TypeError, Damaged) as error:
        if not alone or (isinstance(error, sqlite3.Error) and not is_damage(error)):
            raise
        log.error("queue_control_damaged", kept_as=f"{CONTROL_FILE}.corrupt", error=str(error))
        segments.move_aside(path)
        return None


def _raise_if_wrong(db: sqlite3.Connection) -> None:
    (verdict,) = db.execute("PRAGMA quick_check(1)").fetchone()
    if verdict != "ok":
        raise Damaged(verdict)


def _make_control(folder: Path) -> None:
    """A new ``control.db`` at the beginning of what the log holds.

    After damage everything retained is delivered again, which changes nothing downstream. What the log held before
    that is entered as stored, which it most likely was; dead letters are taken over as far as they can be read.
    """
    first = Segment(folder, segments.listed(folder)[0])
    first.close()
    start = first.start
    temporary = folder / f".control.{uuid.uuid4().hex}"
    try:
        db = connect(temporary, synchronous="FULL", create=True)
        try:
            db.execute("PRAGMA journal_mode=WAL")
            db.executescript(SCHEMA)
            db.execute("BEGIN")
            partitions = len(start.counts.messages)
            db.execute("INSERT INTO meta VALUES (?, ?, ?)", (start.incarnation, partitions, FORMAT))
            add_subscription(db, SUBSCRIPTION, partitions, start.base, start.counts)
            db.execute("UPDATE subscriptions SET stored = ?", (sum(start.counts.events),))
            for letter in _old_letters(folder):
                db.execute("INSERT OR REPLACE INTO letters VALUES (?, ?, ?)", letter)
            db.execute("COMMIT")
            db.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        finally:
            db.close()
        temporary.rename(folder / CONTROL_FILE)
        segments.sync_folder(folder)
    finally:
        temporary.unlink(missing_ok=True)


def _old_letters(folder: Path) -> list[tuple[str, int, bytes]]:
    path = folder / f"{CONTROL_FILE}.corrupt"
    letters: list[tuple[str, int, bytes]] = []
    if not path.exists():
        return letters
    try:
        db = connect(path, synchronous="NORMAL")
        try:
            for row in db.execute("SELECT id, events, letter FROM letters"):
                letters.append(row)  # noqa: PERF402  those before the damage are kept
        finally:
            db.close()
    except (sqlite3.Error, msgspec.MsgspecError) as error:
        log.error("queue_letters_unreadable", read=len(letters), error=str(error))
    return letters
