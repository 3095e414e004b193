"""Installing: everything once, nothing twice, and refusing what can't change."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest

from tracardi_lite.backends.registry.sql import open_registry
from tracardi_lite.errors import BadInput, Misconfigured
from tracardi_lite.install import DEFAULT_ADMIN, IDENTITY_SECRET, LOCKED, install
from tracardi_lite.ports.registry import Registry, User
from tracardi_lite.settings import Settings


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(data_dir=tmp_path, installation_token="let-me-in-please")


@pytest.fixture
async def registry(settings: Settings) -> AsyncIterator[Registry]:
    async with open_registry("sqlite:", settings) as registry:
        yield registry


async def test_the_first_installation_makes_everything_and_says_so(settings: Settings, registry: Registry) -> None:
    report = await install(settings, registry)
    assert len(report.lines) == 4
    assert report.username == DEFAULT_ADMIN
    assert report.password is not None
    assert not any(report.password in line for line in report.lines)
    admin = await registry.authenticate(DEFAULT_ADMIN, report.password)
    assert admin is not None
    assert admin.roles == ["admin"]
    source = await registry.source("default")
    assert source is not None
    assert source.type == ["rest"]
    assert source.enabled


async def test_the_second_changes_nothing(settings: Settings, registry: Registry) -> None:
    await install(settings, registry)
    before = await registry.secret(IDENTITY_SECRET, lambda: "unused")
    again = await install(settings, registry)
    assert (again.lines, again.username, again.password) == ([], None, None)
    assert await registry.secret(IDENTITY_SECRET, lambda: "unused") == before


async def test_processes_that_install_together_make_one_of_each(settings: Settings) -> None:
    async def process() -> tuple[int, str | None]:
        async with open_registry("sqlite:", settings) as registry:
            report = await install(settings, registry)
            return len(report.lines), report.password

    reports = await asyncio.gather(*(process() for _ in range(4)))
    assert sum(lines for lines, _ in reports) == 4
    passwords = [password for _, password in reports if password]
    async with open_registry("sqlite:", settings) as registry:
        assert len(passwords) == 1
        assert await registry.authenticate(DEFAULT_ADMIN, passwords[0]) is not None


async def test_a_default_source_that_was_deleted_stays_deleted(settings: Settings, registry: Registry) -> None:
    await install(settings, registry)
    await registry.delete_source("default")
    assert (await install(settings, registry)).lines == []
    assert await registry.source("default") is None


async def test_a_given_administrator_is_made_instead_of_the_default_one(settings: Settings, registry: Registry) -> None:
    report = await install(settings, registry, username="ann@example.com", password="long enough")
    assert report.password is None
    assert [user.id for user in await registry.users()] == ["ann@example.com"]
    assert await registry.authenticate("ann@example.com", "long enough") is not None
    assert (await install(settings, registry)).lines == []


async def test_a_given_password_replaces_the_old_one_and_revives_the_user(
    settings: Settings, registry: Registry
) -> None:
    await install(settings, registry)
    await registry.save_user(User(id=DEFAULT_ADMIN, roles=["developer"], enabled=False), None)
    report = await install(settings, registry, password="a new password")
    assert report.lines == [f"set the password of {DEFAULT_ADMIN}"]
    user = await registry.authenticate(DEFAULT_ADMIN, "a new password")
    assert user is not None
    assert user.roles == ["developer", "admin"]
    assert (await install(settings, registry, password="a new password")).lines == []


async def test_a_username_alone_gets_a_generated_password_once(settings: Settings, registry: Registry) -> None:
    report = await install(settings, registry, username="ann@example.com")
    assert report.password is not None
    assert await registry.authenticate("ann@example.com", report.password) is not None
    assert (await install(settings, registry, username="ann@example.com")).password is None


@pytest.mark.parametrize(
    ("given", "status"),
    [
        ({"username": "root", "password": "long enough"}, 403),
        ({"username": "a@b c", "password": "long enough"}, 403),
        ({"username": "a@b", "password": "short"}, 422),
        ({"token": "guess"}, 403),
        ({"token": ""}, 403),
    ],
    ids=str,
)
async def test_what_is_wrong_is_refused_before_anything_is_made(
    settings: Settings, registry: Registry, given: dict[str, str], status: int
) -> None:
    with pytest.raises(BadInput) as caught:
        await install(settings, registry, **given)
    assert caught.value.status == status
    assert await registry.migrate(), "not even the schema"


async def test_a_token_is_checked_against_the_setting(settings: Settings, registry: Registry) -> None:
    await install(settings, registry, token="let-me-in-please")
    without = msgspec.structs.replace(settings, installation_token="")
    with pytest.raises(BadInput, match="not set"):
        await install(without, registry, token="")


@pytest.mark.parametrize("key", LOCKED)
async def test_a_setting_that_records_depend_on_cannot_change(settings: Settings, registry: Registry, key: str) -> None:
    await install(settings, registry)
    other = {"tenant_name": "other", "queue_partitions": 16}.get(key, "year")
    with pytest.raises(Misconfigured) as caught:
        await install(msgspec.structs.replace(settings, **{key: other}), registry)
    assert caught.value.key == key
    assert str(getattr(settings, key)) in caught.value.fix
    await install(settings, registry)
