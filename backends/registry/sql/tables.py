"""The schema as it is now; ``migrations/`` says how it came to be, and a test that both agree.

Types and lengths are such that both SQLite and MySQL take them: keys are at most 190 characters, compared byte for
byte (MySQL would fold case), times are milliseconds since the epoch, records are JSON in ``TEXT`` (64 KiB).
"""

from __future__ import annotations

from typing import Any

from sqlalchemy import BigInteger, Boolean, Column, Index, Integer, MetaData, String, Table, Text

HEAD = "0002"
"""The newest migration: compared with the stored revision, so that Alembic is imported only when they differ."""

ID_CHARS = 190
NAME_CHARS = 255
RECORD_BYTES = 60_000

MYSQL: dict[str, Any] = {"mysql_engine": "InnoDB", "mysql_charset": "utf8mb4", "mysql_collate": "utf8mb4_bin"}

metadata = MetaData()

event_source = Table(
    "event_source",
    metadata,
    # A source exists separately in the staging and the production context.
    Column("context", String(16), primary_key=True),
    Column("id", String(ID_CHARS), primary_key=True),
    Column("name", String(NAME_CHARS), nullable=False),
    # Case-folded name, id, description and tags: neither database folds all of Unicode by itself.
    Column("search", Text, nullable=False),
    Column("record", Text, nullable=False),
    Column("updated_ms", BigInteger, nullable=False),
    **MYSQL,
)

event_redirect = Table(
    "event_redirect",
    metadata,
    Column("context", String(16), primary_key=True),
    Column("id", String(ID_CHARS), primary_key=True),
    Column("name", String(NAME_CHARS), nullable=False),
    Column("record", Text, nullable=False),
    Column("updated_ms", BigInteger, nullable=False),
    **MYSQL,
)

rule = Table(
    "rule",
    metadata,
    Column("context", String(16), primary_key=True),
    Column("kind", String(32), primary_key=True),
    Column("id", String(ID_CHARS), primary_key=True),
    Column("name", String(NAME_CHARS), nullable=False),
    # Not "order", which every database would want quoted.
    Column("place", Integer, nullable=False),
    Column("search", Text, nullable=False),
    Column("record", Text, nullable=False),
    Column("updated_ms", BigInteger, nullable=False),
    **MYSQL,
)

# Counts the changes of what is cached as a whole, so that caches ask for a number and not for the whole.
revision = Table(
    "revision",
    metadata,
    Column("name", String(255), primary_key=True),
    Column("number", BigInteger, nullable=False),
    **MYSQL,
)

account = Table(
    "account",
    metadata,
    Column("id", String(ID_CHARS), primary_key=True),
    Column("name", String(NAME_CHARS), nullable=False),
    Column("roles", Text, nullable=False),
    Column("enabled", Boolean, nullable=False),
    # argon2id in its own text form, which names its parameters; null: can't log in.
    Column("password", String(255), nullable=True),
    Column("created_ms", BigInteger, nullable=False),
    **MYSQL,
)

login_failure = Table(
    "login_failure",
    metadata,
    # A hash of the login, which is whatever somebody typed, or of login and place.
    Column("login", String(64), primary_key=True),
    Column("failures", Integer, nullable=False),
    Column("first_ms", BigInteger, nullable=False),
    **MYSQL,
)

token = Table(
    "token",
    metadata,
    Column("hash", String(64), primary_key=True),
    Column("account_id", String(ID_CHARS), nullable=False),
    Column("expires_ms", BigInteger, nullable=False),
    Index("token_expires", "expires_ms"),
    Index("token_account", "account_id"),
    **MYSQL,
)

secret = Table(
    "secret",
    metadata,
    Column("name", String(ID_CHARS), primary_key=True),
    Column("generation", Integer, primary_key=True, autoincrement=False),
    Column("value", Text, nullable=False),
    Column("created_ms", BigInteger, nullable=False),
    **MYSQL,
)

# What is decided once: settings that can't change later, and sources that were seeded.
decision = Table(
    "decision",
    metadata,
    Column("name", String(255), primary_key=True),
    Column("value", Text, nullable=False),
    Column("made_ms", BigInteger, nullable=False),
    **MYSQL,
)
