"""Engine, transactions and everything that differs between SQLite and MySQL.

Work is written as plain functions of a SQLAlchemy ``Connection`` and run by ``read`` and ``write`` over an asyncio
driver. That is what ``sqlalchemy.ext.asyncio`` does too, but importing it brings the whole ORM: 6.4 MiB of a budget
of 90. So the engine is made with the flag that ``create_async_engine`` sets, and entered through the same
``greenlet_spawn``; a test holds that no part of the ORM is loaded.

Bounds on SQLite: ``POOL_SIZE`` connections (each has a thread in aiosqlite), ``WAIT_S`` for a connection or a lock.
MySQL's are in ``mysql``.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from collections.abc import AsyncIterator, Callable, Hashable, Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol, TypeVar

from sqlalchemy import Connection, Engine, Table, create_engine, event, exc
from sqlalchemy.engine import URL
from sqlalchemy.util.concurrency import greenlet_spawn

from tracardi_lite import tls
from tracardi_lite.backends.registry.sql.locks import file_lock
from tracardi_lite.errors import BadInput, Misconfigured, Unavailable

T = TypeVar("T")

POOL_SIZE = 2
WAIT_S = 5.0
"""How long a call waits for a free connection, and again for another process's write, before ``Unavailable``."""

SETTLED_NS = 1_000_000_000
"""A file that has not been written to for so long gets another time with its next write, on every file system."""

PRAGMAS = (
    f"PRAGMA busy_timeout = {int(WAIT_S * 1000)}",
    "PRAGMA synchronous = FULL",
    "PRAGMA foreign_keys = ON",
    "PRAGMA cache_size = -512",
)


_HINTS = {
    1045: "; see MYSQL_USERNAME and MYSQL_PASSWORD",
    1049: "; it has to be made by hand: CREATE DATABASE … CHARACTER SET utf8mb4",
    2003: "; see MYSQL_HOST",
}
"""By MySQL's numbers, what an operator can do."""

TRIES = 4
"""Of a transaction that the database ended in favour of another one (a deadlock)."""


class Dialect(Protocol):
    """What a database does in its own way."""

    @property
    def call_max_s(self) -> float | None:
        """Longest that a call may take, where a server can be silent; None: a file answers, one way or the other."""
        ...

    def is_there(self) -> bool:
        """False when connecting would make an empty database."""
        ...

    def stamp(self) -> Hashable | None:
        """Another one after each change, without asking the database; None where that can't be told."""
        ...

    def prepare(self) -> None:
        """Before the first connection. May raise ``OSError``."""
        ...

    def migration_lock(self, engine: Engine, wait_s: float) -> contextlib.AbstractAsyncContextManager[None]:
        """One migration at a time over all processes; ``Unavailable`` after ``wait_s`` seconds."""
        ...

    def lost_to_another(self, error: exc.DBAPIError) -> bool:
        """True when nothing is wrong with a transaction but its neighbours: do it again."""
        ...


class Database:
    """A small pool of connections. What the database does wrong, ``read`` and ``write`` raise as ``Unavailable``."""

    def __init__(self, engine: Engine, dialect: Dialect) -> None:
        self._engine = engine
        self._dialect = dialect

    async def open(self) -> None:
        """Connections are made when first needed."""
        with unavailable():
            self._dialect.prepare()

    def is_there(self) -> bool:
        return self._dialect.is_there()

    def stamp(self) -> Hashable | None:
        """Taken before a reading and equal later: nothing has changed since that reading. None: ask."""
        return self._dialect.stamp()

    async def close(self) -> None:
        await greenlet_spawn(self._engine.dispose)

    async def read(self, work: Callable[..., T], *args: Any) -> T:
        """``work(connection, *args)``, for statements that change nothing."""
        return await self._run(False, work, args, self._dialect.call_max_s)

    async def write(self, work: Callable[..., T], *args: Any) -> T:
        """``work(connection, *args)`` in one transaction: all of it happens, or, when it raises, nothing."""
        return await self._run(True, work, args, self._dialect.call_max_s)

    async def rebuild(self, work: Callable[[Connection], T], max_s: float) -> T:
        """``write`` for a change of the schema, which takes as long as the tables are large."""
        return await self._run(True, work, (), max_s)

    @contextlib.asynccontextmanager
    async def migration_lock(self, wait_s: float) -> AsyncIterator[None]:
        """One migration at a time over all processes; ``Unavailable`` after ``wait_s`` seconds."""
        async with self._dialect.migration_lock(self._engine, wait_s):
            yield

    async def _run(self, write: bool, work: Callable[..., T], args: tuple[Any, ...], max_s: float | None) -> T:
        with unavailable():
            for left in range(TRIES - 1, -1, -1):
                try:
                    async with asyncio.timeout(max_s):
                        return await greenlet_spawn(_transaction, self._engine, write, work, args)
                except TimeoutError as error:
                    raise Unavailable("registry", f"no answer for {max_s:g} s") from error
                except exc.DBAPIError as error:
                    if not left or not self._dialect.lost_to_another(error):
                        raise
        raise AssertionError("the last try returns or raises")


def _transaction(engine: Engine, write: bool, work: Callable[..., T], args: tuple[Any, ...]) -> T:
    with engine.connect() as connection:
        if write:
            connection = connection.execution_options(write=True)
        with connection.begin():
            return work(connection, *args)


@contextlib.contextmanager
def unavailable() -> Iterator[None]:
    """Turn the database's and the disk's errors into ours, once, keeping the cause."""
    try:
        yield
    except exc.DataError as error:
        # What no column can hold, and no check has refused: the sender's, for repeating it would never help.
        raise BadInput(422, f"The registry can't keep this: {error.orig}") from error
    except exc.DBAPIError as error:
        raise tls.fault("registry", "mysql", error) or Unavailable("registry", _said(error)) from error
    except (exc.TimeoutError, OSError) as error:
        raise Unavailable("registry", str(error)) from error


def _said(error: exc.DBAPIError) -> str:
    """The database's own sentence: MySQL's comes as a pair of number and text."""
    arguments = error.orig.args if error.orig is not None else ()
    if len(arguments) != 2:
        return str(error.orig)
    number, text = arguments
    return f"{text} ({number})" + _HINTS.get(number, "")


# --- SQLite ---


def sqlite_file(url: str, data_dir: Path) -> Path:
    """Which file a ``sqlite:`` URL means."""
    scheme, _, rest = url.partition(":")
    if scheme != "sqlite" or ":memory:" in rest:
        raise Misconfigured("registry_url", f"{scheme}:{rest} is not a file.", "Use sqlite: or sqlite:PATH.")
    path = rest.removeprefix("//")
    return Path(path) if path else data_dir / "registry.db"


class _Sqlite:
    call_max_s: float | None = None

    def __init__(self, file: Path) -> None:
        self._file = file

    def is_there(self) -> bool:
        return self._file.exists()

    def stamp(self) -> Hashable | None:
        """Times and sizes of the file and its log. A change may fall into the same tick of the file system's clock as
        the one before, so what has just changed can't be told."""
        try:
            file = os.stat(self._file)
            log = os.stat(f"{self._file}-wal")
        except OSError:
            return None
        if time.time_ns() - max(file.st_mtime_ns, log.st_mtime_ns) < SETTLED_NS:
            return None
        return file.st_ino, file.st_mtime_ns, file.st_size, log.st_ino, log.st_mtime_ns, log.st_size

    def prepare(self) -> None:
        # Secrets are in it, and everything about customers beside it.
        self._file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)

    @contextlib.asynccontextmanager
    async def migration_lock(self, engine: Engine, wait_s: float) -> AsyncIterator[None]:
        async with file_lock(self._file.with_suffix(".lock"), wait_s):
            # The journal mode stays with the file, so it is set once, here, and never in a race.
            with unavailable():
                await greenlet_spawn(_transaction, engine, False, _use_wal, ())
            yield

    def lost_to_another(self, error: exc.DBAPIError) -> bool:
        return False  # it has waited for the others' writes already


def sqlite_database(file: Path) -> Database:
    engine = create_engine(
        URL.create("sqlite+aiosqlite", database=str(file)),
        # Without the driver's own BEGINs: transactions begin below, and writing ones with the write lock in hand,
        # since a reader that turns writer fails at once when another has written meanwhile.
        connect_args={"isolation_level": None, "timeout": WAIT_S},
        pool_size=POOL_SIZE,
        max_overflow=0,
        pool_timeout=WAIT_S,
        _is_async=True,
    )
    event.listen(engine, "connect", _set_pragmas)
    event.listen(engine, "begin", _begin)
    return Database(engine, _Sqlite(file))


def _set_pragmas(connection: Any, _record: object) -> None:
    cursor = connection.cursor()
    try:
        for pragma in PRAGMAS:
            cursor.execute(pragma)
    finally:
        cursor.close()


def _begin(connection: Connection) -> None:
    if connection.get_execution_options().get("write"):
        connection.exec_driver_sql("BEGIN IMMEDIATE")


def _use_wal(connection: Connection) -> None:
    connection.exec_driver_sql("PRAGMA journal_mode = WAL")


# --- the two statements that SQL has no common form for ---


def insert_absent(dialect: str, table: Table, values: Mapping[str, Any]) -> Any:
    """Insert a row unless its primary key is there. Says nothing of which happened: select it afterwards."""
    keys = [column.name for column in table.primary_key]
    if dialect == "sqlite":
        from sqlalchemy.dialects.sqlite import insert

        return insert(table).values(**values).on_conflict_do_nothing(index_elements=keys)
    from sqlalchemy.dialects.mysql import insert as mysql_insert

    # Not INSERT IGNORE, which would swallow values that don't fit as well.
    return mysql_insert(table).values(**values).on_duplicate_key_update({keys[0]: table.c[keys[0]]})


def upsert(dialect: str, table: Table, values: Mapping[str, Any], update: Mapping[str, Any]) -> Any:
    """Insert a row, or, when its primary key is there, change it as ``update`` says (values or expressions)."""
    if dialect == "sqlite":
        from sqlalchemy.dialects.sqlite import insert

        keys = [column.name for column in table.primary_key]
        return insert(table).values(**values).on_conflict_do_update(index_elements=keys, set_=dict(update))
    from sqlalchemy.dialects.mysql import insert as mysql_insert

    return mysql_insert(table).values(**values).on_duplicate_key_update(dict(update))
