"""``source``, ``user`` and ``secret``: who may send, who may look, and the key of the ids."""

from __future__ import annotations

import secrets
import sys
from collections.abc import Awaitable, Callable
from typing import TypeVar

import click

from tracardi_lite.cli import runtime, show
from tracardi_lite.cli.runtime import json_option, registry_of, with_settings, yes_option
from tracardi_lite.install import IDENTITY_SECRET, PASSWORD_CHARS_MIN
from tracardi_lite.ports.registry import SOURCE_TYPES, EventSource, Registry, User
from tracardi_lite.settings import Settings

T = TypeVar("T")


def _with_registry(settings: Settings, work: Callable[[Registry], Awaitable[T]]) -> T:
    async def opened() -> T:
        async with registry_of(settings) as registry:
            return await work(registry)

    return runtime.run(opened())


@click.group()
def source() -> None:
    """Event sources: the ids under which clients may send. Changes act within SOURCE_CACHE_TTL."""


@source.command("list")
@json_option
@with_settings
def list_sources(settings: Settings, as_json: bool) -> None:
    """List the event sources.

    \b
    Example:
      tracardi-lite source list
    """
    found = _with_registry(settings, lambda registry: registry.sources())
    if as_json:
        show.as_json(found)
        return
    rows = [
        (each.id, each.name, ", ".join(each.type), "yes" if each.enabled else "no", each.channel, each.description)
        for each in found
    ]
    show.table(("id", "name", "type", "enabled", "channel", "description"), rows, "No event sources.")


@source.command("add")
@click.argument("id")
@click.option("--name", help="For people.  [default: the id]")
@click.option("--type", "types", type=click.Choice(SOURCE_TYPES), multiple=True, default=("rest",), show_default=True)
@click.option("--channel", default="", help="Written into the metadata of its events.")
@click.option("--description", default="")
@with_settings
def add_source(
    settings: Settings, id: str, name: str | None, types: tuple[str, ...], channel: str, description: str
) -> None:
    """Allow a new source id.

    \b
    Examples:
      tracardi-lite source add my-shop --name 'My shop' --channel Web
      tracardi-lite source add crm-hook --type webhook
    """
    made = EventSource(id=id, name=name or id, type=list(types), channel=channel, description=description)

    async def add(registry: Registry) -> None:
        if await registry.source(id) is not None:
            raise click.ClickException(f"There is a source {id} already; the admin API changes it.")
        await registry.save_source(made)

    _with_registry(settings, add)
    click.echo(f"Added {', '.join(types)} source {id}.")


@source.command("enable")
@click.argument("id")
@with_settings
def enable_source(settings: Settings, id: str) -> None:
    """Let a disabled source send again.

    \b
    Example:
      tracardi-lite source enable my-shop
    """
    _switch_source(settings, id, True)


@source.command("disable")
@click.argument("id")
@with_settings
def disable_source(settings: Settings, id: str) -> None:
    """Refuse what a source sends from now on; what it has sent stays.

    \b
    Example:
      tracardi-lite source disable my-shop
    """
    _switch_source(settings, id, False)


def _switch_source(settings: Settings, id: str, enabled: bool) -> None:
    async def switch(registry: Registry) -> None:
        found = await registry.source(id)
        if found is None:
            raise click.ClickException(f"There is no source {id}.")
        found.enabled = enabled
        await registry.save_source(found)

    _with_registry(settings, switch)
    click.echo(f"Source {id} is {'enabled' if enabled else 'disabled'}.")


@click.group()
def user() -> None:
    """People who may use the admin API."""


@user.command("list")
@json_option
@with_settings
def list_users(settings: Settings, as_json: bool) -> None:
    """List the users.

    \b
    Example:
      tracardi-lite user list
    """
    found = _with_registry(settings, lambda registry: registry.users())
    if as_json:
        show.as_json(found)
        return
    rows = [(each.id, each.name, ", ".join(each.roles), "yes" if each.enabled else "no") for each in found]
    show.table(("login", "name", "roles", "enabled"), rows, "No users.")


_PASSWORD_HELP = "Asked for when not given, or read from standard input."  # noqa: S105 - a help text


@user.command("add")
@click.argument("email")
@click.option("--name", default="", help="For people.")
@click.option("--password", help=_PASSWORD_HELP)
@with_settings
def add_user(settings: Settings, email: str, name: str, password: str | None) -> None:
    """Add an admin.

    \b
    Examples:
      tracardi-lite user add me@example.com
      pass show tracardi | tracardi-lite user add me@example.com
    """

    async def add(registry: Registry) -> None:
        if await registry.user(email) is not None:
            raise click.ClickException(f"There is a user {email} already; `user password` changes the password.")
        await registry.save_user(User(id=email, name=name), _password(password))

    _with_registry(settings, add)
    click.echo(f"Added {email}.")


@user.command("password")
@click.argument("email")
@click.option("--password", help=_PASSWORD_HELP)
@with_settings
def change_password(settings: Settings, email: str, password: str | None) -> None:
    """Give a user a new password.

    \b
    Example:
      tracardi-lite user password me@example.com
    """

    async def change(registry: Registry) -> None:
        found = await registry.user(email)
        if found is None:
            raise click.ClickException(f"There is no user {email}.")
        await registry.save_user(found, _password(password))

    _with_registry(settings, change)
    click.echo(f"{email} has a new password.")


def _password(given: str | None) -> str:
    if given is None and sys.stdin.isatty():
        given = click.prompt("Password", hide_input=True, confirmation_prompt=True)
    elif given is None:
        given = sys.stdin.readline().rstrip("\r\n")
    if len(given) < PASSWORD_CHARS_MIN:
        raise click.UsageError(f"The password needs at least {PASSWORD_CHARS_MIN} characters.")
    return given


@click.group()
def secret() -> None:
    """The installation's own secrets."""


@secret.command("rotate")
@yes_option
@with_settings
def rotate(settings: Settings, yes: bool) -> None:
    """Issue profile ids with a new key from now on; ids that were issued with older keys stay valid.

    Running processes take the new key at their next start. Restart all of them together: the id of a new session's
    profile is derived with it, and they have to agree.

    \b
    Example:
      tracardi-lite secret rotate
    """
    if not yes:
        click.confirm("Rotate the key of the profile ids?", abort=True)
    _with_registry(settings, lambda registry: registry.rotate_secret(IDENTITY_SECRET, secrets.token_urlsafe(32)))
    click.echo("Rotated. Restart the servers.")
