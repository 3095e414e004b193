"""Bringing the schema up to date, once, however many processes start together.

The stored revision is read first, in one small query; only when it is not ``tables.HEAD`` is the lock taken, the
revision read again (another process may have done the work), and Alembic imported. On SQLite the whole upgrade is one
transaction: a crash in it leaves the old schema.
"""

from __future__ import annotations

from pathlib import Path

from sqlalchemy import Connection, inspect, text

from tracardi_lite.backends.registry.sql.database import Database
from tracardi_lite.backends.registry.sql.tables import HEAD
from tracardi_lite.errors import Misconfigured

LOCK_WAIT_S = 60.0


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
        await database.write(_upgrade)
    return [f"registry schema {before or '(none)'} → {HEAD}"]


async def _current(database: Database) -> str:
    revision = await database.read(_revision)
    if revision > HEAD:
        raise Misconfigured(
            "registry_url",
            f"its schema is {revision}, and this version of the program knows only {HEAD}.",
            "Start the newer version.",
        )
    return revision


def _revision(connection: Connection) -> str:
    if not inspect(connection).has_table("alembic_version"):
        return ""
    return str(connection.execute(text("SELECT version_num FROM alembic_version")).scalar() or "")


def _upgrade(connection: Connection) -> None:
    from alembic import command
    from alembic.config import Config

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).with_name("migrations")).replace("%", "%%"))
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
