"""A thread's open connections: found by file name, checked before use, bounded in number; their errors translated."""

from __future__ import annotations

import sqlite3
from collections import OrderedDict
from collections.abc import Callable
from typing import TypeVar

from msgspec import Struct

from tracardi_lite.backends.store.sqlite import faults
from tracardi_lite.backends.store.sqlite.files import Files, Identity
from tracardi_lite.errors import Unavailable

T = TypeVar("T")

OPEN_MAX = 12
"""Per thread. A year of months, which is what a search walks through; a write needs two or three."""

_REPLACED_MAX = 3
"""Files are replaced by hand or by a salvage, never in a loop."""


class Damaged(Unavailable):
    """A file holds what SQLite did not write; it is being salvaged, and works again after that."""

    def __init__(self, file: str, identity: Identity | None, reason: str) -> None:
        super().__init__("store", f"{file} is damaged: {reason}", faults.FULL_RETRY_AFTER_S)
        self.file = file
        self.identity = identity


class _Open(Struct):
    connection: sqlite3.Connection
    identity: Identity


class Connections:
    """Belongs to one thread; ``close`` may be called by another after that one has ended."""

    def __init__(self, files: Files, check: Callable[[str], None]) -> None:
        """``check`` raises for a file that is not to be read now (it is being salvaged)."""
        self.files = files
        self._check = check
        self._readers: OrderedDict[str, _Open] = OrderedDict()
        self._writers: OrderedDict[str, _Open] = OrderedDict()

    def read(self, file: str, work: Callable[[sqlite3.Connection], T]) -> T | None:
        """``work`` on a reading connection, in autocommit; None if there is no such file.

        Raises ``Damaged``, ``Full``, ``Unavailable``.
        """
        self._check(file)
        found: _Open | None = None
        try:
            found = self._current(self._readers, file)
            if found is None:
                opened = self.files.open_to_read(file)
                if opened is None:
                    return None
                found = self._keep(self._readers, file, _Open(*opened))
            return work(found.connection)
        except (sqlite3.Error, OSError) as error:
            raise self._failed(self._readers, file, found, error) from error

    def write(self, file: str, work: Callable[[sqlite3.Connection], T]) -> T:
        """``work`` in one durable transaction, on the file that is there now, made if there is none.

        Raises what ``read`` does; then nothing was written, or (a failed sync) it is not known to be.
        """
        for _ in range(_REPLACED_MAX):
            found: _Open | None = None
            try:
                found = self._current(self._writers, file)
                if found is None:
                    found = self._keep(self._writers, file, _Open(*self.files.open_to_write(file)))
                connection = found.connection
                connection.execute("BEGIN IMMEDIATE")
                try:
                    # Once more under the write lock: who replaces a file holds that lock while copying it.
                    if self.files.identity(file) != found.identity:
                        continue
                    result = work(connection)
                    connection.execute("COMMIT")
                    return result
                finally:
                    if connection.in_transaction:
                        connection.execute("ROLLBACK")
            except (sqlite3.Error, OSError) as error:
                raise self._failed(self._writers, file, found, error) from error
        raise Unavailable("store", f"{file} keeps being replaced", faults.RETRY_AFTER_S)

    def close(self) -> None:
        for each in (self._readers, self._writers):
            while each:
                each.popitem()[1].connection.close()

    def _current(self, kept: OrderedDict[str, _Open], file: str) -> _Open | None:
        """The open connection, if its file is still the one of that name."""
        found = kept.get(file)
        if found is None:
            return None
        if self.files.identity(file) != found.identity:
            del kept[file]
            found.connection.close()
            return None
        kept.move_to_end(file)
        return found

    def _keep(self, kept: OrderedDict[str, _Open], file: str, opened: _Open) -> _Open:
        kept[file] = opened
        if len(kept) > OPEN_MAX:
            kept.popitem(last=False)[1].connection.close()
        return opened

    def _failed(
        self, kept: OrderedDict[str, _Open], file: str, found: _Open | None, error: sqlite3.Error | OSError
    ) -> BaseException:
        if found is not None and faults.breaks_connection(error) and kept.pop(file, None) is not None:
            found.connection.close()
        if faults.is_damage(error):
            return Damaged(file, found.identity if found else self.files.identity(file), str(error))
        return faults.translate(error, file) or error
