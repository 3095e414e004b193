"""The store's folder: opening, making, replacing and removing its files, safely while other processes use them.

A file may be removed (a partition is dropped) or replaced (a damaged one is salvaged) under an open connection. Three
rules keep this safe:

1. Files are opened and made, and removed or replaced, under a lock on ``.lock`` (flock; milliseconds long), so that a
   connection never has one file and the log of another. SQLite itself leaves the log of a file that was moved alone
   when it closes.
2. A connection remembers its file's inode; before each use, and again once it holds the write lock, the name must
   still lead there. What was opened stays valid (Unix keeps it), so a late reader sees the old file and harms nothing.
3. A write that commits into a file in the moment in which it is dropped was dropped with it.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import quote

from tracardi_lite.backends.store.sqlite import schema
from tracardi_lite.errors import Unavailable

BUSY_S = 10.0
"""How long a lock is waited for, SQLite's or the folder's; then ``Unavailable``."""

_POLL_S = 0.01
_STATEMENTS = 24
"""Prepared statements kept per connection: those of hundreds of rows take up to a megabyte each."""
_SUFFIXES = ("", "-wal", "-shm")

Identity = tuple[int, int]
"""A file's device and inode."""


class Files:
    """Used by all threads of a store; keeps nothing but the path."""

    connection_class: type[sqlite3.Connection] = sqlite3.Connection
    """What is opened: the seam at which tests put faults between the store and the disk."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def prepare(self) -> None:
        """Make the folder, durably, for this user only: what is in it is about people."""
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        sync_folder(self.folder.parent)

    def names(self) -> list[str]:
        """All files, the complete ones and the others."""
        try:
            return sorted(name for name in os.listdir(self.folder) if name.endswith(".db"))
        except FileNotFoundError:
            return []

    def path(self, name: str) -> Path:
        return self.folder / name

    def identity(self, name: str) -> Identity | None:
        """Which file the name leads to now; None when there is none."""
        try:
            found = os.stat(self.folder / name)
        except FileNotFoundError:
            return None
        return found.st_dev, found.st_ino

    def bytes(self, name: str) -> int:
        """What it takes on disk, its log included."""
        total = 0
        for suffix in _SUFFIXES:
            try:
                total += os.stat(self.folder / (name + suffix)).st_size
            except FileNotFoundError:
                continue
        return total

    def remove(self, name: str) -> bool:
        """False when there was none."""
        with self.lock(exclusive=True):
            if self.identity(name) is None:
                return False
            # The file first, which is the one step that counts: SQLite throws away a log that it finds beside an
            # empty file.
            for suffix in _SUFFIXES:
                (self.folder / (name + suffix)).unlink(missing_ok=True)
            sync_folder(self.folder)
        return True

    def replace(self, name: str, expected: Identity, fresh: Path, aside: str) -> bool:
        """Keep a file and its log under another name, and put a complete and closed one in its place.

        False, and nothing changed, if the name no longer leads to the expected file (it was dropped meanwhile).
        """
        with self.lock(exclusive=True):
            if self.identity(name) != expected:
                return False
            for suffix in ("", "-wal"):
                if (self.folder / (name + suffix)).exists():
                    os.link(self.folder / (name + suffix), self.folder / (aside + suffix))
            # A crash from here on finds everything under the new name, and never the fresh file with the old log.
            for suffix in ("-wal", "-shm"):
                (self.folder / (name + suffix)).unlink(missing_ok=True)
            os.rename(fresh, self.folder / name)
            sync_folder(self.folder)
        return True

    @contextmanager
    def lock(self, *, exclusive: bool, name: str = ".lock", wait_s: float | None = None) -> Iterator[None]:
        """A lock of the folder over threads and processes. ``Unavailable`` after ``wait_s`` (None: ``BUSY_S``)."""
        handle = os.open(self.folder / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        try:
            deadline = time.monotonic() + (BUSY_S if wait_s is None else wait_s)
            while True:
                try:
                    fcntl.flock(handle, (fcntl.LOCK_EX if exclusive else fcntl.LOCK_SH) | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() > deadline:
                        raise Unavailable("store", f"another process holds {name} in {self.folder}") from None
                    time.sleep(_POLL_S)
            yield
        finally:
            os.close(handle)

    def open_to_write(self, name: str) -> tuple[sqlite3.Connection, Identity]:
        """Open, or make. Raises sqlite3 errors, ``OSError``, ``Unavailable``."""
        with self.lock(exclusive=True):
            connection = self._connect(name, "rwc")
            try:
                prepare(connection, schema.layout_of(name))
                identity = self.identity(name)
                assert identity is not None, "nobody removes a file while the folder is locked"
            except BaseException:
                connection.close()
                raise
        return connection, identity

    def open_to_read(self, name: str) -> tuple[sqlite3.Connection, Identity] | None:
        """None when there is no such file, or an unfinished one. Rows come as bytes where they are text."""
        with self.lock(exclusive=False):
            identity = self.identity(name)
            if identity is None:
                return None
            connection = self._connect(name, "rw")
            try:
                (version,) = connection.execute("PRAGMA user_version").fetchone()
                connection.execute("PRAGMA query_only = ON")
                connection.text_factory = bytes
            except BaseException:
                connection.close()
                raise
            if version != schema.VERSION:
                connection.close()
                return None
        return connection, identity

    def _connect(self, name: str, mode: str) -> sqlite3.Connection:
        # Each connection is used by one thread at a time, though not by the one that opened it: the last to use it
        # may be the one that closes the store.
        return sqlite3.connect(
            f"file:{quote(str(self.folder / name))}?mode={mode}",
            uri=True,
            timeout=BUSY_S,
            factory=self.connection_class,
            cached_statements=_STATEMENTS,
            isolation_level=None,
            check_same_thread=False,
        )


def prepare(connection: sqlite3.Connection, layout: schema.Layout) -> None:
    """Pragmas, and the tables if they are not there. A file whose making was cut short is made again."""
    connection.execute(f"PRAGMA page_size = {layout.page_bytes}")
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute(f"PRAGMA wal_autocheckpoint = {schema.WAL_BYTES // layout.page_bytes}")
    connection.execute(f"PRAGMA journal_size_limit = {schema.WAL_BYTES}")
    connection.execute(f"PRAGMA cache_size = -{layout.cache_kib}")
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version == schema.VERSION:
        return
    if version > schema.VERSION:
        raise Unavailable("store", f"a file of version {version} was written by a newer program than this")
    connection.execute("BEGIN IMMEDIATE")
    try:
        for statement in layout.tables:
            connection.execute(statement)
        connection.execute(f"PRAGMA user_version = {schema.VERSION}")
        connection.execute("COMMIT")
    finally:
        if connection.in_transaction:
            connection.execute("ROLLBACK")


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
