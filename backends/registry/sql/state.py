"""The installation's own state: secrets and what was decided once. Statements, as functions of a connection."""

from __future__ import annotations

from sqlalchemy import Connection, func, select

from tracardi_lite.backends.registry.sql.database import insert_absent
from tracardi_lite.backends.registry.sql.tables import decision, secret


def get_secret(connection: Connection, name: str) -> list[str]:
    """Newest first; [] when it was never made."""
    query = select(secret.c.value).where(secret.c.name == name).order_by(secret.c.generation.desc())
    return list(connection.execute(query).scalars())


def make_secret(connection: Connection, name: str, value: str, now_ms: int) -> list[str]:
    """Make the first generation unless another process has; what holds now."""
    values = {"name": name, "generation": 1, "value": value, "created_ms": now_ms}
    connection.execute(insert_absent(connection.dialect.name, secret, values))
    return get_secret(connection, name)


def add_secret(connection: Connection, name: str, value: str, now_ms: int) -> bool:
    """Put a value in front. False when another process took the same generation: do it again."""
    newest = connection.execute(select(func.max(secret.c.generation)).where(secret.c.name == name)).scalar() or 0
    values = {"name": name, "generation": newest + 1, "value": value, "created_ms": now_ms}
    connection.execute(insert_absent(connection.dialect.name, secret, values))
    return value in get_secret(connection, name)


def get_decision(connection: Connection, name: str) -> str | None:
    return connection.execute(select(decision.c.value).where(decision.c.name == name)).scalar()


def decide(connection: Connection, name: str, value: str, now_ms: int) -> str:
    """Write it unless it is written; what holds now."""
    values = {"name": name, "value": value, "made_ms": now_ms}
    connection.execute(insert_absent(connection.dialect.name, decision, values))
    holds = get_decision(connection, name)
    assert holds is not None
    return holds
