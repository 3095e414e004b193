"""Bringing the schema up to date, once, however many processes start together.

The stored revision is read first, in one small query; only when it is not ``tables.HEAD`` is the lock taken and the
revision read again, since another process may have done the work. An empty database gets today's tables at once and
is stamped with ``HEAD``; only an older one needs the steps, and Alembic, which would stay in memory (10 MiB) until
the next restart. A test holds that both ways end in the same schema.

On SQLite all of it is one transaction: a crash leaves the old schema. On MySQL, where each DDL statement commits by
itself, every statement can be repeated: tables and indices are made if absent, there and in the steps.
"""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import Column, Connection, MetaData, String, Table, inspect, select

from tracardi_lite.backends.registry.sql.database import Database
from tracardi_lite.backends.registry.sql.tables import HEAD, metadata
from tracardi_lite.errors import Misconfigured

LOCK_WAIT_S = 60.0
REBUILD_MAX_S = 600.0

# Alembic's own table, as Alembic makes it.
alembic_version = Table("alembic_version", MetaData(), Column("version_num", String(32), primary_key=True))


async def migrate(database: Database) -> list[str]:
    """One line per step taken; [] when there was nothing to do.

    ``Misconfigured`` when a newer version of the program has been here; ``Unavailable`` when the lock is not free
    within ``LOCK_WAIT_S``.
    """
    if await _current(database) == HEAD:
        return []
    async with database.migration_lock(LOCK_WAIT_S):
        before = await _current(database)
        if before == HEAD:
            return []
        if before is None:
            await database.rebuild(_create, REBUILD_MAX_S)
            return [f"made the registry's tables (schema {HEAD})"]
        await database.rebuild(_upgrade, REBUILD_MAX_S)
        return [f"brought the registry's schema from {before or '0000'} to {HEAD}"]


async def pending(database: Database) -> list[str]:
    """What ``migrate`` would do, and what an installation then adds to new tables; looks, and makes nothing."""
    before = await _current(database) if database.is_there() else None
    if before == HEAD:
        return []
    if before is None:
        return [f"make the tables (schema {HEAD}), a secret for profile ids, the source default, an administrator"]
    return [f"bring the schema from {before} to {HEAD}"]


async def _current(database: Database) -> str | None:
    revision = await database.read(_revision)
    if revision is not None and revision > HEAD:
        raise Misconfigured(
            "registry_url",
            f"its schema is {revision}, and this version of the program knows only {HEAD}.",
            "Start the newer version.",
        )
    return revision


def _revision(connection: Connection) -> str | None:
    """None: an empty database, or one whose making was cut off before its end."""
    if not inspect(connection).has_table("alembic_version"):
        return None
    found = str(connection.execute(select(alembic_version.c.version_num)).scalar() or "")
    # Only where DDL is not transactional can the table be there without its row.
    return found if found or connection.dialect.name == "sqlite" else None


def _create(connection: Connection) -> None:
    metadata.create_all(connection)
    for table in metadata.sorted_tables:
        for index in table.indexes:
            index.create(connection, checkfirst=True)
    alembic_version.create(connection, checkfirst=True)
    connection.execute(alembic_version.insert().values(version_num=HEAD))


def _upgrade(connection: Connection) -> None:
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).with_name("migrations")).replace("%", "%%"))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
