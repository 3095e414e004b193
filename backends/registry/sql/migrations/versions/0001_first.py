"""Sources, redirects, accounts, tokens, secrets and decisions."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

MYSQL: dict[str, Any] = {"mysql_engine": "InnoDB", "mysql_charset": "utf8mb4", "mysql_collate": "utf8mb4_bin"}


def upgrade() -> None:
    op.create_table(
        "event_source",
        sa.Column("context", sa.String(16), primary_key=True),
        sa.Column("id", sa.String(190), primary_key=True),
        sa.Column("name", sa.String(255), nullable=False),
        sa.Column("search", sa.Text, nullable=False),
        sa.Column("record", sa.Text, nullable=False),
        sa.Column("updated_ms", sa.BigInteger, nullable=False),
        **MYSQL,
    )
    op.create_table(
        "event_redirect",
        sa.Column("context", sa.String(16), primary_key=True),
        sa.Column("id", sa.String(190), primary_key=True),
        sa.Column("name", sa.String(255), nullable=False),
        sa.Column("record", sa.Text, nullable=False),
        sa.Column("updated_ms", sa.BigInteger, nullable=False),
        **MYSQL,
    )
    op.create_table(
        "account",
        sa.Column("id", sa.String(190), primary_key=True),
        sa.Column("name", sa.String(255), nullable=False),
        sa.Column("roles", sa.Text, nullable=False),
        sa.Column("enabled", sa.Boolean, nullable=False),
        sa.Column("password", sa.String(255), nullable=True),
        sa.Column("created_ms", sa.BigInteger, nullable=False),
        **MYSQL,
    )
    op.create_table(
        "login_failure",
        sa.Column("login", sa.String(64), primary_key=True),
        sa.Column("failures", sa.Integer, nullable=False),
        sa.Column("first_ms", sa.BigInteger, nullable=False),
        **MYSQL,
    )
    op.create_table(
        "token",
        sa.Column("hash", sa.String(64), primary_key=True),
        sa.Column("account_id", sa.String(190), nullable=False),
        sa.Column("expires_ms", sa.BigInteger, nullable=False),
        **MYSQL,
    )
    op.create_index("token_expires", "token", ["expires_ms"])
    op.create_index("token_account", "token", ["account_id"])
    op.create_table(
        "secret",
        sa.Column("name", sa.String(190), primary_key=True),
        sa.Column("generation", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("value", sa.Text, nullable=False),
        sa.Column("created_ms", sa.BigInteger, nullable=False),
        **MYSQL,
    )
    op.create_table(
        "decision",
        sa.Column("name", sa.String(255), primary_key=True),
        sa.Column("value", sa.Text, nullable=False),
        sa.Column("made_ms", sa.BigInteger, nullable=False),
        **MYSQL,
    )
