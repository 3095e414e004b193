"""SQLite's exceptions turned into ours, once, by their result codes (sqlite.org/rescode.html)."""

from __future__ import annotations

import errno
import sqlite3

from tracardi_lite.errors import Full, TryLater, Unavailable

RETRY_AFTER_S = 1.0
FULL_RETRY_AFTER_S = 5.0
"""Space rarely comes back by itself within a second."""

_DAMAGE = {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}
_AWAY = {
    sqlite3.SQLITE_BUSY,
    sqlite3.SQLITE_LOCKED,
    sqlite3.SQLITE_IOERR,
    sqlite3.SQLITE_CANTOPEN,
    sqlite3.SQLITE_READONLY,
    sqlite3.SQLITE_PROTOCOL,
    sqlite3.SQLITE_NOMEM,
    sqlite3.SQLITE_PERM,
    sqlite3.SQLITE_NOLFS,
    sqlite3.SQLITE_INTERRUPT,
    sqlite3.SQLITE_AUTH,
}
_OUT_OF_SPACE = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


def _primary(error: sqlite3.Error) -> int:
    # Errors that the module raises by itself (misuse) have no code: they are bugs, and 1 is SQLITE_ERROR.
    return int(getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR)) & 0xFF


def is_damage(error: BaseException) -> bool:
    """The file's content is not what SQLite wrote."""
    return isinstance(error, sqlite3.DatabaseError) and _primary(error) in _DAMAGE


def breaks_connection(error: BaseException) -> bool:
    """After these the connection is not to be trusted: close it and open another next time."""
    return not isinstance(error, sqlite3.Error) or _primary(error) not in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_FULL}


def translate(error: BaseException, file: str) -> TryLater | None:
    """What the caller should be told; None for a bug, which is left to show itself."""
    if isinstance(error, TryLater):
        return error
    if isinstance(error, OSError):
        if error.errno in _OUT_OF_SPACE:
            return Full("disk", f"no room for {file}", FULL_RETRY_AFTER_S)
        return Unavailable("store", f"{file}: {error.strerror or error}", RETRY_AFTER_S)
    if isinstance(error, sqlite3.Error):
        code = _primary(error)
        if code == sqlite3.SQLITE_FULL:
            return Full("disk", f"no room for {file}", FULL_RETRY_AFTER_S)
        if code in _AWAY or code in _DAMAGE:
            name = getattr(error, "sqlite_errorname", "")
            return Unavailable("store", f"{file}: {error} ({name})", RETRY_AFTER_S)
    return None
