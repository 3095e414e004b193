"""The registry on a real MariaDB: the port's suite, and what only a server does: going, coming back, being shared."""

from __future__ import annotations

import asyncio
import secrets
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from os import environ
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import Connection, text
from sqlalchemy.engine import make_url

from tracardi_lite import wiring
from tracardi_lite.backends.registry.sql import migrate as migrating
from tracardi_lite.backends.registry.sql import mysql, passwords, tables
from tracardi_lite.backends.registry.sql.database import Database
from tracardi_lite.backends.registry.sql.mysql import mysql_database, open_registry
from tracardi_lite.backends.registry.sql.registry import SqlRegistry
from tracardi_lite.errors import BadInput, Misconfigured, Unavailable
from tracardi_lite.ports.registry import EventSource, Rule
from tracardi_lite.settings import Settings
from tracardi_lite.testing.clock import FakeClock
from tracardi_lite.testing.registry_suite import RegistrySuite

pytestmark = pytest.mark.integration

SERVICE = Path(__file__).parents[1] / "services" / "service"
OWN_PORT = {"MARIADB_PORT": "23306"}


def service(*arguments: str, **variables: str) -> dict[str, str]:
    """``service("start", "mariadb")``: what it prints, as key → value."""
    command = [str(SERVICE), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False, env=environ | variables)
    assert done.returncode == 0, done.stderr
    return dict(pair.partition("=")[::2] for pair in done.stdout.split())


@pytest.fixture(scope="module")
def server() -> str:
    return service("start", "mariadb")["url"]


@pytest.fixture(autouse=True)
def cheap_passwords(monkeypatch: pytest.MonkeyPatch) -> None:
    """The suite hashes hundreds of times; one pass over 64 KiB is argon2id all the same."""
    from argon2 import PasswordHasher

    hasher = PasswordHasher(time_cost=1, memory_cost=64, parallelism=1)
    monkeypatch.setattr(passwords, "_hasher", lambda: hasher)
    monkeypatch.setattr(passwords, "NOBODY", hasher.hash("nobody's"))


async def run_sql(url: str, *statements: str) -> list[tuple[Any, ...]]:
    """In a connection of its own; the rows of the last statement."""

    def work(connection: Connection) -> list[tuple[Any, ...]]:
        results = [connection.execute(text(statement)) for statement in statements]
        return [tuple(row) for row in results[-1]] if results[-1].returns_rows else []

    database = mysql_database(url, Settings())
    try:
        return await database.write(work)
    finally:
        await database.close()


@pytest.fixture
async def url(server: str) -> AsyncIterator[str]:
    """Of a database of its own, so that tests need not know of each other."""
    name = f"tracardi_{secrets.token_hex(6)}"
    await run_sql(server, f"CREATE DATABASE {name}")
    try:
        yield server.removesuffix("/tracardi") + f"/{name}"
    finally:
        await run_sql(server, f"DROP DATABASE {name}")


class TestMysql(RegistrySuite):
    @pytest.fixture
    def connect(self, clock: FakeClock, url: str) -> Callable[[], SqlRegistry]:
        return lambda: open_registry(url, Settings(), clock)


# --- settings ---


async def test_the_host_and_its_settings_are_enough(url: str) -> None:
    parts = make_url(url)
    settings = Settings(
        registry_url="mysql:",
        mysql_host=f"{parts.host}:{parts.port}",
        mysql_username=str(parts.username),
        mysql_password=str(parts.password),
        mysql_database=str(parts.database),
    )
    async with wiring.open_registry(settings) as registry:
        assert await registry.migrate()
    by_url = Settings(registry_url=url.replace("mysql:", "mariadb:"))
    async with wiring.open_registry(by_url) as registry:
        assert await registry.migrate() == []


async def test_a_wrong_password_is_told_and_not_shown(url: str) -> None:
    wrong = url.replace(":tracardi@", ":hunter2@")
    async with open_registry(wrong, Settings()) as registry:
        with pytest.raises(Unavailable, match="denied") as caught:
            await registry.ping()
    assert "hunter2" not in str(caught.value)


async def test_tls_is_refused_by_a_server_without_it_and_not_given_up(url: str) -> None:
    async with open_registry(url, Settings(mysql_tls=True)) as registry:
        with pytest.raises(Unavailable):
            await registry.ping()


# --- the schema ---


async def differences(database: Database) -> object:
    from alembic.autogenerate import compare_metadata
    from alembic.migration import MigrationContext

    return await database.read(lambda c: compare_metadata(MigrationContext.configure(c), tables.metadata))


async def test_the_server_s_schema_is_the_tables(url: str) -> None:
    database = mysql_database(url, Settings())
    try:
        assert len(await migrating.migrate(database)) == 1
        assert await differences(database) == []
    finally:
        await database.close()


@pytest.mark.parametrize("cut", ["after a table", "before the revision"])
async def test_a_making_that_was_cut_off_is_finished_by_the_next_start(url: str, cut: str) -> None:
    database = mysql_database(url, Settings())
    try:
        await migrating.migrate(database)
        if cut == "after a table":
            dropped = ["DROP INDEX token_account ON token", "DROP TABLE alembic_version, rule, decision"]
            await run_sql(url, *dropped)
        else:
            await run_sql(url, "DELETE FROM alembic_version")
        assert len(await migrating.migrate(database)) == 1
        assert await differences(database) == []
        assert await migrating.migrate(database) == []
    finally:
        await database.close()


async def test_an_older_schema_takes_its_steps_even_if_they_were_cut_off(url: str) -> None:
    database = mysql_database(url, Settings())
    try:
        await migrating.migrate(database)
        # As the first version left it, and as a second one that died between two statements did.
        await run_sql(url, "DROP TABLE revision", "UPDATE alembic_version SET version_num = '0001'")
        assert await migrating.migrate(database) == [f"brought the registry's schema from 0001 to {tables.HEAD}"]
        assert await differences(database) == []
    finally:
        await database.close()


async def test_waiting_for_another_process_s_migration_has_an_end(url: str) -> None:
    first, second = mysql_database(url, Settings()), mysql_database(url, Settings())
    try:
        async with first.migration_lock(1):
            with pytest.raises(Unavailable, match="migrating"):
                async with second.migration_lock(0):
                    raise AssertionError("two at once")
        async with second.migration_lock(0):
            pass
    finally:
        await first.close()
        await second.close()


# --- values ---


async def test_ids_are_compared_byte_for_byte_blanks_included(url: str) -> None:
    async with open_registry(url, Settings()) as registry:
        await registry.migrate()
        await registry.save_source(EventSource(id="shop"))
        await registry.save_rule(Rule(kind="mapping", id="m"))
        for other in ("shop ", "SHOP", "shóp", " shop", "shop\0"):
            assert await registry.source(other) is None, other
            assert await registry.delete_source(other) is None, other
        assert await registry.rule("mapping", "m ") is None
        assert await registry.delete_rule("mapping", "m ") is None
        assert await registry.source("shop") is not None


async def test_what_no_column_holds_is_the_sender_s_fault_and_not_the_server_s(url: str) -> None:
    async with open_registry(url, Settings()) as registry:
        await registry.migrate()
        # Three times as many bytes when its case is folded.
        with pytest.raises(BadInput, match="keep"):
            await registry.save_source(EventSource(id="long", description="ΐ" * 25_000))
        assert await registry.sources() == []


async def test_two_hundred_writers_at_once_lose_nothing(url: str) -> None:
    async with open_registry(url, Settings()) as one, open_registry(url, Settings()) as two:
        await one.migrate()
        rules = [Rule(kind="mapping", id=f"r{number % 20}", order=number) for number in range(200)]
        await asyncio.gather(*((one, two)[index % 2].save_rule(rule) for index, rule in enumerate(rules)))
        assert len(await one.rules()) == 20
        assert await two.rules_revision() == 200


async def test_a_deadlock_s_loser_is_done_again(url: str) -> None:
    """Two transactions take two rows in opposite order: the server ends one of them, and nobody notices."""
    met = asyncio.Barrier(2)
    runs = 0

    def crossing(connection: Connection, first: str, second: str) -> None:
        nonlocal runs
        runs += 1
        update = text("UPDATE decision SET value = value + 1 WHERE name = :name")
        connection.execute(update, {"name": first})
        if runs <= 2:
            from sqlalchemy.util import await_only

            await_only(met.wait())
        connection.execute(update, {"name": second})

    database = mysql_database(url, Settings())
    try:
        await migrating.migrate(database)
        await run_sql(url, "INSERT INTO decision VALUES ('a', '0', 0), ('b', '0', 0)")
        await asyncio.gather(database.write(crossing, "a", "b"), database.write(crossing, "b", "a"))
        assert runs == 3
        assert await run_sql(url, "SELECT value FROM decision") == [("2",), ("2",)]
    finally:
        await database.close()


async def test_a_cancelled_call_leaves_the_registry_usable(url: str) -> None:
    async with open_registry(url, Settings(mysql_pool_size=2, mysql_pool_max_overflow=0)) as registry:
        await registry.migrate()
        for number in range(30):
            call = asyncio.create_task(registry.save_source(EventSource(id=f"s{number}")))
            for _ in range(number):
                await asyncio.sleep(0)
            call.cancel()
            await asyncio.wait([call])
        await registry.save_source(EventSource(id="last"))
        assert await registry.source("last") is not None


# --- a server that goes ---


@contextmanager
def own_server() -> Iterator[str]:
    try:
        yield service("start", "mariadb", **OWN_PORT)["url"]
    finally:
        service("stop", "mariadb", "--wipe", **OWN_PORT)


@pytest.mark.slow
async def test_a_server_that_goes_is_unavailable_and_one_that_comes_back_is_used_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with own_server() as url:
        async with open_registry(url, Settings()) as registry:
            await registry.migrate()
            await registry.save_source(EventSource(id="kept"))
            for how in ((), ("--kill",)):
                await asyncio.to_thread(service, "stop", "mariadb", *how, **OWN_PORT)
                for _ in range(3):
                    with pytest.raises(Unavailable) as caught:
                        await registry.source("kept")
                    assert caught.value.part == "registry"
                await asyncio.to_thread(service, "start", "mariadb", **OWN_PORT)
                # At once: the connections that died are found out before they are used.
                assert await registry.source("kept") is not None
                await registry.save_source(EventSource(id="another"))

            monkeypatch.setattr(mysql._Mysql, "call_max_s", 0.2)

            def slow(connection: Connection) -> None:
                connection.execute(text("SELECT sleep(30)"))

            database = mysql_database(url, Settings())
            try:
                with pytest.raises(Unavailable, match="no answer"):
                    await database.read(slow)
            finally:
                await database.close()
        with pytest.raises(Misconfigured):
            open_registry("mysql:", Settings())
