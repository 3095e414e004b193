"""Opening SQLite files, and telling the faults of a disk from those of a file."""

from __future__ import annotations

import sqlite3
from pathlib import Path
from urllib.parse import quote

from tracardi_lite.errors import Full, TryLater, Unavailable

BUSY_TIMEOUT_S = 10.0
"""Longest wait for another process's write; a commit takes milliseconds, unless the disk hangs."""
RETRY_AFTER_S = 2.0


class Damaged(Exception):
    """A file can be read, and what it says is wrong: it has to be salvaged."""


def connect(path: Path, *, synchronous: str, create: bool = False, cache_kib: int = 1024) -> sqlite3.Connection:
    """A connection in autocommit mode, for the one thread that uses it at a time.

    The file has to exist unless ``create``: nothing is made by accident under a name that was just deleted.
    """
    mode = "rwc" if create else "rw"
    connection = sqlite3.connect(
        f"file:{quote(str(path.absolute()))}?mode={mode}",
        uri=True,
        isolation_level=None,
        check_same_thread=False,
        timeout=BUSY_TIMEOUT_S,
    )
    try:
        connection.execute(f"PRAGMA synchronous={synchronous}")
        connection.execute(f"PRAGMA cache_size=-{cache_kib}")
    except BaseException:
        connection.close()
        raise
    return connection


def is_damage(error: sqlite3.Error) -> bool:
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    # The messages' own checks (an impossible number, a missing table) come as plain errors of a wrecked schema.
    return code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB) or "no such table" in str(error)


def is_gone(error: sqlite3.Error) -> bool:
    return getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_CANTOPEN


def is_busy(error: sqlite3.Error) -> bool:
    return getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_BUSY


def is_failed_sync(error: sqlite3.Error) -> bool:
    """After a failed fsync the kernel may have dropped the pages: nothing in that file is certain any more."""
    return getattr(error, "sqlite_errorcode", 0) in (sqlite3.SQLITE_IOERR_FSYNC, sqlite3.SQLITE_IOERR_DIR_FSYNC)


def translated(error: sqlite3.Error | OSError) -> TryLater:
    """The port's error for a client's: no room, or away."""
    name = getattr(error, "sqlite_errorname", type(error).__name__)
    if getattr(error, "sqlite_errorcode", 0) & 0xFF == sqlite3.SQLITE_FULL:
        return Full("disk", "no space left for the queue", RETRY_AFTER_S)
    return Unavailable("queue", f"{name}: {error}", RETRY_AFTER_S)
