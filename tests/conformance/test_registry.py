"""The registry's contract on SQLite, and what is this backend's own: file, migrations, errors, footprint."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from unittest.mock import AsyncMock, patch

import pytest
from sqlalchemy import Connection
from sqlalchemy.dialects import mysql, sqlite
from sqlalchemy.schema import CreateIndex, CreateTable

from tracardi_lite.backends.registry.sql import open_registry, passwords, tables
from tracardi_lite.backends.registry.sql.database import insert_absent, sqlite_database, sqlite_file, upsert
from tracardi_lite.backends.registry.sql.locks import file_lock
from tracardi_lite.backends.registry.sql.registry import SqlRegistry
from tracardi_lite.errors import Misconfigured, Unavailable
from tracardi_lite.ports.registry import EventSource, Rule
from tracardi_lite.settings import Settings
from tracardi_lite.testing.clock import FakeClock
from tracardi_lite.testing.registry_suite import ANN, PASSWORD, TTL_S, RegistrySuite


@pytest.fixture(autouse=True)
def cheap_passwords(monkeypatch: pytest.MonkeyPatch) -> None:
    """The suite hashes hundreds of times; one pass over 64 KiB is argon2id all the same."""
    from argon2 import PasswordHasher

    hasher = PasswordHasher(time_cost=1, memory_cost=64, parallelism=1)
    monkeypatch.setattr(passwords, "_hasher", lambda: hasher)
    monkeypatch.setattr(passwords, "NOBODY", hasher.hash("nobody's"))


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(data_dir=tmp_path / "data")


class TestSqlite(RegistrySuite):
    @pytest.fixture
    def connect(self, clock: FakeClock, settings: Settings) -> Callable[[], SqlRegistry]:
        return lambda: open_registry("sqlite:", settings, clock)


def rows(settings: Settings, query: str) -> list[tuple[object, ...]]:
    connection = sqlite3.connect(settings.data_dir / "registry.db")
    try:
        return connection.execute(query).fetchall()
    finally:
        connection.close()


async def test_nothing_secret_is_stored_as_it_is(settings: Settings) -> None:
    async with open_registry("sqlite:", settings) as registry:
        await registry.migrate()
        await registry.save_user(ANN, PASSWORD)
        token = await registry.issue_token(ANN.id, TTL_S)
        await registry.authenticate("someone@private.example", PASSWORD)
    data = b"".join(path.read_bytes() for path in settings.data_dir.iterdir())
    assert PASSWORD.encode() not in data
    assert token.encode() not in data
    assert b"someone@private.example" not in data
    assert str(rows(settings, "SELECT password FROM account")[0][0]).startswith("$argon2id$")


async def test_a_token_is_written_at_most_every_tenth_of_its_life(settings: Settings) -> None:
    clock = FakeClock()
    async with open_registry("sqlite:", settings, clock) as registry:
        await registry.migrate()
        await registry.save_user(ANN, PASSWORD)
        token = await registry.issue_token(ANN.id, 1000)
        seen = set()
        for _ in range(100):
            clock.advance(10)
            await registry.check_token(token, 1000)
            seen.add(rows(settings, "SELECT expires_ms FROM token")[0])
        assert len(seen) == 11  # as issued, and ten times later


async def test_expired_tokens_and_old_failures_do_not_pile_up(settings: Settings) -> None:
    clock = FakeClock()
    async with open_registry("sqlite:", settings, clock) as registry:
        await registry.migrate()
        await registry.save_user(ANN, PASSWORD)
        for number in range(5):
            await registry.issue_token(ANN.id, TTL_S)
            await registry.authenticate(f"{number}@example.com", "x")
        clock.advance(TTL_S + 1)
        await registry.issue_token(ANN.id, TTL_S)
        await registry.authenticate("last@example.com", "x")
    assert rows(settings, "SELECT count(*) FROM token") == [(1,)]
    assert rows(settings, "SELECT count(*) FROM login_failure") == [(2,)], "the last one's, from there and in all"


async def test_a_user_has_a_bounded_number_of_tokens(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    from tracardi_lite.backends.registry.sql import accounts

    monkeypatch.setattr(accounts, "TOKENS_MAX", 3)
    clock = FakeClock()
    async with open_registry("sqlite:", settings, clock) as registry:
        await registry.migrate()
        await registry.save_user(ANN, PASSWORD)
        tokens = []
        for _ in range(5):
            clock.advance(1)
            tokens.append(await registry.issue_token(ANN.id, TTL_S))
        assert [await registry.check_token(token, TTL_S) is not None for token in tokens] == [False] * 2 + [True] * 3


async def test_a_hash_with_old_parameters_is_renewed_at_login(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    from argon2 import PasswordHasher

    async with open_registry("sqlite:", settings) as registry:
        await registry.migrate()
        await registry.save_user(ANN, PASSWORD)
        stronger = PasswordHasher(time_cost=2, memory_cost=128, parallelism=1)
        monkeypatch.setattr(passwords, "_hasher", lambda: stronger)
        assert await registry.authenticate(ANN.id, PASSWORD) == ANN
        assert await registry.authenticate(ANN.id, PASSWORD) == ANN
    assert "m=128,t=2" in str(rows(settings, "SELECT password FROM account")[0][0])


async def test_staging_and_production_have_their_own_sources(tmp_path: Path) -> None:
    staging, production = (Settings(data_dir=tmp_path, production=flag) for flag in (False, True))
    async with open_registry("sqlite:", staging) as here, open_registry("sqlite:", production) as there:
        await here.migrate()
        await here.save_source(EventSource(id="shop", name="staging"))
        assert await there.source("shop") is None
        assert await there.seed_source(EventSource(id="shop", name="production"))
        assert (await here.sources())[0].name == "staging"
        assert await there.delete_source("shop") is not None
        assert await here.source("shop") is not None


async def test_staging_and_production_have_their_own_rules(tmp_path: Path) -> None:
    staging, production = (Settings(data_dir=tmp_path, production=flag) for flag in (False, True))
    async with open_registry("sqlite:", staging) as here, open_registry("sqlite:", production) as there:
        await here.migrate()
        await here.save_rule(Rule(kind="mapping", id="m", name="staging"))
        assert await there.rules() == []
        assert await there.rules_revision() == 0
        await there.save_rule(Rule(kind="mapping", id="m", name="production"))
        assert [rule.name for rule in await here.rules()] == ["staging"]


# --- passwords as they are in production ---


def test_the_hash_for_nobody_takes_as_long_as_a_real_one() -> None:
    from argon2 import Parameters, extract_parameters
    from argon2.low_level import Type

    expected = Parameters(Type.ID, 19, 16, 32, passwords.PASSES, passwords.MEMORY_KIB, passwords.LANES)
    # The module's own constant, not the fixture's cheap one.
    source = Path(passwords.__file__).read_text()
    constant = next(line.split('"')[1] for line in source.splitlines() if line.startswith("NOBODY"))
    assert extract_parameters(constant) == expected


async def test_too_many_logins_at_once_are_told_to_come_later(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(passwords, "WAITING_MAX", 1)
    guard = passwords.Passwords()
    async with guard.turn():
        with pytest.raises(Unavailable):
            async with guard.turn():
                raise AssertionError("two at once")
    async with guard.turn():
        pass


# --- schema ---


def test_the_head_constant_is_the_newest_migration() -> None:
    from alembic.config import Config
    from alembic.script import ScriptDirectory

    config = Config()
    config.set_main_option("script_location", str(Path(tables.__file__).with_name("migrations")))
    script = ScriptDirectory.from_config(config)
    assert script.get_current_head() == tables.HEAD
    revisions = [step.revision for step in script.walk_revisions()]
    assert revisions == sorted(revisions, reverse=True), "the text order is the order of time"


def pretend_to_be_older(settings: Settings) -> None:
    """A database with Alembic's table and no step taken: what the first migration starts from."""
    settings.data_dir.mkdir()
    connection = sqlite3.connect(settings.data_dir / "registry.db")
    connection.execute("CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL PRIMARY KEY)")
    connection.close()


@pytest.mark.parametrize("start", ["empty", "older"])
async def test_the_migrations_and_the_tables_are_the_same_schema(settings: Settings, start: str) -> None:
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    def differences(connection: Connection) -> object:
        return compare_metadata(MigrationContext.configure(connection), tables.metadata)

    if start == "older":
        pretend_to_be_older(settings)
    database = sqlite_database(sqlite_file("sqlite:", settings.data_dir))
    async with open_registry("sqlite:", settings) as registry:
        assert len(await registry.migrate()) == 1
        assert await registry.migrate() == []
        assert await database.read(differences) == []
    await database.close()
    assert rows(settings, "SELECT version_num FROM alembic_version") == [(tables.HEAD,)]


async def test_a_newer_schema_stops_the_start(settings: Settings) -> None:
    async with open_registry("sqlite:", settings) as registry:
        await registry.migrate()
        with sqlite3.connect(settings.data_dir / "registry.db") as connection:
            connection.execute("UPDATE alembic_version SET version_num = '9999'")
        connection.close()
        with pytest.raises(Misconfigured, match="9999"):
            await registry.migrate()


async def test_a_migration_that_fails_leaves_nothing_behind(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    from alembic.operations import Operations

    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("pulled the plug")

    pretend_to_be_older(settings)
    async with open_registry("sqlite:", settings) as registry:
        with monkeypatch.context() as patch:
            patch.setattr(Operations, "create_index", fail)
            with pytest.raises(RuntimeError, match="plug"):
                await registry.migrate()
        assert rows(settings, "SELECT name FROM sqlite_master WHERE type = 'table'") == [("alembic_version",)]
        assert await registry.migrate()


async def test_waiting_for_another_process_migration_has_an_end(tmp_path: Path) -> None:
    async with file_lock(tmp_path / "lock", 1):
        with pytest.raises(Unavailable):
            async with file_lock(tmp_path / "lock", 0.05):
                raise AssertionError("two at once")


@pytest.mark.parametrize("table", tables.metadata.sorted_tables, ids=str)
def test_mysql_would_take_the_schema_and_the_statements(table: tables.Table) -> None:
    dialect = mysql.dialect()  # type: ignore[no-untyped-call]
    ddl = str(CreateTable(table).compile(dialect=dialect))
    assert "utf8mb4_bin" in ddl
    # InnoDB: 3072 bytes of key, four to a character.
    assert sum(column.type.length or 0 for column in table.primary_key if hasattr(column.type, "length")) * 4 <= 3072
    for index in table.indexes:
        assert str(CreateIndex(index).compile(dialect=dialect))
    values = dict.fromkeys(column.name for column in table.columns)
    keys = {column.name for column in table.primary_key}
    rest = {name: None for name in values if name not in keys}
    assert "ON DUPLICATE KEY UPDATE" in str(insert_absent("mysql", table, values).compile(dialect=dialect))
    assert "ON DUPLICATE KEY UPDATE" in str(upsert("mysql", table, values, rest).compile(dialect=dialect))
    assert "DO NOTHING" in str(insert_absent("sqlite", table, values).compile(dialect=sqlite.dialect()))


# --- the file ---


def test_the_url_says_which_file(tmp_path: Path) -> None:
    assert sqlite_file("sqlite:", tmp_path) == tmp_path / "registry.db"
    assert sqlite_file("sqlite:///srv/registry.db", tmp_path) == Path("/srv/registry.db")
    assert sqlite_file("sqlite:here.db", tmp_path) == Path("here.db")
    for url in ("postgresql://x", "sqlite::memory:"):
        with pytest.raises(Misconfigured):
            sqlite_file(url, tmp_path)


async def test_a_file_that_is_no_database_is_unavailable_not_a_crash(settings: Settings) -> None:
    settings.data_dir.mkdir()
    (settings.data_dir / "registry.db").write_bytes(b"not a database at all" * 500)
    async with open_registry("sqlite:", settings) as registry:
        with pytest.raises(Unavailable) as caught:
            await registry.ping()
        assert caught.value.part == "registry"


async def test_a_directory_that_cannot_be_made_is_unavailable(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(Unavailable):
        async with open_registry("sqlite:", Settings(data_dir=tmp_path / "file" / "data")):
            pass


async def test_a_lock_that_another_process_keeps_is_unavailable_in_the_end(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tracardi_lite.backends.registry.sql import database

    monkeypatch.setattr(database, "PRAGMAS", ("PRAGMA busy_timeout = 30",))
    async with open_registry("sqlite:", settings) as registry:
        await registry.migrate()
        holder = sqlite3.connect(settings.data_dir / "registry.db", isolation_level=None)
        try:
            holder.execute("BEGIN IMMEDIATE")
            with pytest.raises(Unavailable):
                await registry.save_source(EventSource(id="s"))
            assert await registry.sources() == [], "reading goes on"
            holder.execute("ROLLBACK")
            await registry.save_source(EventSource(id="s"))
        finally:
            holder.close()


async def test_a_cancelled_call_leaves_the_registry_usable(settings: Settings) -> None:
    async with open_registry("sqlite:", settings) as registry:
        await registry.migrate()
        for number in range(20):
            call = asyncio.create_task(registry.save_source(EventSource(id=f"s{number}")))
            for _ in range(number):
                await asyncio.sleep(0)
            call.cancel()
            await asyncio.wait([call])
        await registry.save_source(EventSource(id="last"))
        assert await registry.source("last") is not None


FOOTPRINT = """
import asyncio, sys
from pathlib import Path
from tracardi_lite.backends.registry.sql import open_registry
from tracardi_lite.settings import Settings

async def main():
    async with open_registry("sqlite:", Settings(data_dir=Path(sys.argv[1]))) as registry:
        assert await registry.migrate() == []
        await registry.ping()

asyncio.run(main())
print(*[name for name in ("sqlalchemy.orm", "alembic", "mako", "argon2") if name in sys.modules])
"""


async def test_opening_a_registry_that_is_up_to_date_loads_neither_orm_nor_alembic(settings: Settings) -> None:
    async with open_registry("sqlite:", settings) as registry:
        await registry.migrate()
    command = [sys.executable, "-c", FOOTPRINT, str(settings.data_dir)]
    loaded = await asyncio.to_thread(subprocess.run, command, check=True, capture_output=True, text=True)
    assert loaded.stdout.strip() == ""


async def test_the_revision_is_not_read_again_from_a_file_that_nobody_has_written_to(settings: Settings) -> None:
    async with open_registry("sqlite:", settings) as registry, open_registry("sqlite:", settings) as other:
        await registry.migrate()
        await registry.save_rule(Rule(kind="mapping", id="m", name="first"))
        old = time.time() - 10
        for file in settings.data_dir.glob("registry.db*"):
            os.utime(file, (old, old))
        revision = await registry.rules_revision()
        reading = AsyncMock(side_effect=AssertionError("nothing has changed"))
        with patch.object(registry._database, "read", reading):
            assert await registry.rules_revision() == revision
        await other.save_rule(Rule(kind="mapping", id="m", name="second"))
        assert await registry.rules_revision() > revision
