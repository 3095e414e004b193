"""The registry on MySQL or MariaDB, for installations of more than one machine. Needs the extra ``mysql``.

Connections are pinged before they are used, so a server that was restarted costs a call nothing but the ping. A server
that is silent (and not gone) costs at most ``mysql_pool_timeout`` for a connection and ``CALL_MAX_S`` for the answer.

Transactions are READ COMMITTED: what is inserted if absent is read afterwards, and must be seen whoever made it; there
are fewer deadlocks, too, and the loser of one is done again. Text columns pad with blanks when compared, which is why
``catalog.is_id`` keeps ids with blanks around them from being asked for.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import ssl
from collections.abc import AsyncIterator
from typing import Any

import asyncmy  # noqa: F401  # so that its absence is found out here, and told with the extra's name
from sqlalchemy import Connection, Engine, create_engine, exc, text
from sqlalchemy.engine import URL, make_url
from sqlalchemy.util.concurrency import greenlet_spawn

from tracardi_lite import tls
from tracardi_lite.backends.registry.sql.database import Database, unavailable
from tracardi_lite.backends.registry.sql.registry import SqlRegistry
from tracardi_lite.clock import Clock, SystemClock
from tracardi_lite.errors import Misconfigured, Unavailable
from tracardi_lite.settings import Settings

CONNECT_MAX_S = 5.0
CALL_MAX_S = 15.0

_DEADLOCK, _LOCK_TIMEOUT = 1213, 1205


def open_registry(url: str, settings: Settings, clock: Clock | None = None) -> SqlRegistry:
    """``mysql://user:password@host:3306/database``; what the URL leaves out, down to ``mysql:``, is in the settings.

    Raises ``Misconfigured`` for other URLs. Nothing is connected before it is needed.
    """
    database = mysql_database(url, settings)
    return SqlRegistry(database, production=settings.production, clock=clock or SystemClock())


def address(url: str, settings: Settings) -> URL:
    """Where a URL leads, together with the settings."""
    scheme, _, rest = url.partition(":")
    try:
        given = make_url(f"mysql:{rest}" if rest.startswith("//") else "mysql://")
        port = given.port
    except (ValueError, exc.ArgumentError):
        given, port = URL.create("mysql"), None
        rest = "?"
    if scheme.partition("+")[0] not in ("mysql", "mariadb") or given.query or (rest and not rest.startswith("//")):
        raise Misconfigured(
            "registry_url", "is not a MySQL address.", "Use mysql:, or mysql://user:password@host:port/database."
        )
    named = settings.mysql_host.partition("://")[2] or settings.mysql_host
    host, _, named_port = named.partition(":")
    host = given.host or host
    if not host:
        raise Misconfigured("registry_url", "names no host, and mysql_host neither.", "Set MYSQL_HOST.")
    if named_port and not named_port.isdecimal():
        raise Misconfigured("mysql_host", "is not a host or host:port.")
    return URL.create(
        "mysql+asyncmy",
        username=given.username or settings.mysql_username,
        password=given.password or settings.mysql_password or None,
        host=host,
        port=port or (int(named_port) if named_port and not given.host else settings.mysql_port),
        database=given.database or settings.mysql_database,
        query={"charset": "utf8mb4"},
    )


def mysql_database(url: str, settings: Settings) -> Database:
    where = address(url, settings)
    arguments: dict[str, Any] = {"connect_timeout": int(CONNECT_MAX_S)}
    if context := _tls(settings):
        arguments["ssl"] = context
    engine = create_engine(
        where,
        connect_args=arguments,
        isolation_level="READ COMMITTED",
        pool_size=settings.mysql_pool_size,
        max_overflow=settings.mysql_pool_max_overflow,
        pool_timeout=settings.mysql_pool_timeout,
        pool_recycle=settings.mysql_pool_recycle,
        pool_pre_ping=True,
        _is_async=True,
    )
    return Database(engine, _Mysql(str(where.database)))


def _tls(settings: Settings) -> ssl.SSLContext | None:
    if not (settings.mysql_tls or settings.mysql_ca_file):
        return None
    return tls.context(settings, "mysql")


class _Mysql:
    call_max_s: float | None = CALL_MAX_S

    def __init__(self, database: str) -> None:
        # Names of locks are the whole server's, and have at most 64 characters.
        self._lock = "tracardi-lite:" + hashlib.sha256(database.encode()).hexdigest()[:32]

    def stamp(self) -> None:
        return None

    def is_there(self) -> bool:
        return True

    def prepare(self) -> None:
        pass

    @contextlib.asynccontextmanager
    async def migration_lock(self, engine: Engine, wait_s: float) -> AsyncIterator[None]:
        """The lock is its connection's: the server frees it when the holder dies."""
        with unavailable():
            connection = await greenlet_spawn(engine.connect)
        try:
            with unavailable():
                async with asyncio.timeout(wait_s + CALL_MAX_S):
                    if not await greenlet_spawn(_lock, connection, self._lock, wait_s):
                        raise Unavailable("registry", f"another process has been migrating it for {wait_s:g} s")
            yield
        finally:
            # Not back to the pool, where the lock would live on.
            await greenlet_spawn(_end, connection)

    def lost_to_another(self, error: exc.DBAPIError) -> bool:
        code = error.orig.args[0] if error.orig is not None and error.orig.args else None
        return code in (_DEADLOCK, _LOCK_TIMEOUT)


def _lock(connection: Connection, name: str, wait_s: float) -> bool:
    found = connection.execute(text("SELECT GET_LOCK(:name, :wait_s)"), {"name": name, "wait_s": wait_s})
    return bool(found.scalar())


def _end(connection: Connection) -> None:
    connection.invalidate()
    connection.close()
