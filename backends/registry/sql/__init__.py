"""The registry on SQL: one implementation for SQLite (a file in the data directory) and for MySQL or MariaDB.

Statements are SQLAlchemy Core, the schema moves by Alembic migrations shipped beside this file. The parts:

* ``database``: engine, transactions, what differs between dialects, errors; ``mysql``: the other dialect, its own door
* ``tables``, ``migrations/``, ``migrate``: the schema, how it came to be, and how it is brought up to date
* ``catalog``, ``rules``, ``accounts``, ``state``: statements, as plain functions of a connection
* ``passwords``: argon2id
* ``registry``: the port's methods

Memory is counted: an API process has 90 MiB in all, so the ORM is never imported and Alembic only to migrate.
"""

from __future__ import annotations

from tracardi_lite.backends.registry.sql.database import sqlite_database, sqlite_file
from tracardi_lite.backends.registry.sql.registry import SqlRegistry
from tracardi_lite.clock import Clock, SystemClock
from tracardi_lite.settings import Settings


def open_registry(url: str, settings: Settings, clock: Clock | None = None) -> SqlRegistry:
    """``sqlite:`` is ``<data_dir>/registry.db``; ``sqlite:PATH`` and ``sqlite:///PATH`` name another file.

    Raises ``Misconfigured`` for other URLs. Nothing is touched before the registry is entered.
    """
    database = sqlite_database(sqlite_file(url, settings.data_dir))
    return SqlRegistry(database, production=settings.production, clock=clock or SystemClock())
