"""``settings`` and ``check-config``: what is set, where it came from, and whether one could start with it."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import click

from tracardi_lite import wiring
from tracardi_lite.cli import show
from tracardi_lite.cli.runtime import json_option, with_loaded
from tracardi_lite.errors import Misconfigured
from tracardi_lite.install import check_merging
from tracardi_lite.settings import Loaded, Settings, near_misses
from tracardi_lite.settings.fields import FIELDS, Field
from tracardi_lite.settings.values import plain, shown


@click.command()
@click.argument("words", nargs=-1, metavar="[WORD]...")
@click.option("--changed", is_flag=True, help="Only those that are not at their default.")
@json_option
@with_loaded
def settings(loaded: Loaded, words: tuple[str, ...], changed: bool, as_json: bool) -> None:
    """List every setting: value, where it came from, default, unit and meaning.

    WORDs choose those whose key, environment name or meaning has one of them. Secrets are masked.

    \b
    Examples:
      tracardi-lite settings
      tracardi-lite settings bulk retry
      BULK_SIZE=1000 tracardi-lite settings --changed
    """
    fields = [
        field
        for field in FIELDS.values()
        if (not words or any(_matches(field, word.lower()) for word in words))
        and not (changed and loaded.origins[field.key].kind == "default")
    ]
    if as_json:
        show.as_json([_described(field, loaded) for field in fields])
        return
    rows: list[tuple[str, ...]] = []
    for field in fields:
        default = shown(field, field.default, is_default=True)
        value = shown(field, getattr(loaded.settings, field.key), is_default=_at_default(field, loaded))
        meaning = field.option.text.replace("``", "")
        origin = str(loaded.origins[field.key])
        rows.append((field.key, field.env_names[0], value, origin, default, field.option.unit, meaning))
    if sys.stdout.isatty() and shutil.get_terminal_size().columns < _WIDE and rows:
        for row in rows:
            click.echo(_block(*row))
    else:
        show.table(("key", "environment", "value", "from", "default", "unit", "meaning"), rows, "No such setting.")


_WIDE = 120
"""Columns that the table needs; on a narrower terminal it would be a column of broken words."""


def _block(key: str, environment: str, value: str, origin: str, default: str, unit: str, meaning: str) -> str:
    facts = f"from {origin}, default {default or 'empty'}" if origin != "default" else "the default"
    shown_unit = f" {unit}" if unit and not value.endswith("iB") else ""
    heading = f"{click.style(key, bold=True)} = {value or 'empty'}{shown_unit}  ({facts})"
    return f"{heading}\n    {meaning}\n    {environment}"


def _matches(field: Field, word: str) -> bool:
    return any(word in text.lower() for text in (field.key, *field.env_names, field.option.text))


def _at_default(field: Field, loaded: Loaded) -> bool:
    return bool(getattr(loaded.settings, field.key) == field.default)


def _described(field: Field, loaded: Loaded) -> dict[str, object]:
    origin = loaded.origins[field.key]
    return {
        "key": field.key,
        "value": plain(field, getattr(loaded.settings, field.key), is_default=_at_default(field, loaded)),
        "source": {"kind": origin.kind, "name": origin.name},
        "default": plain(field, field.default, is_default=True),
        "unit": field.option.unit,
        "expected": field.expected,
        "environment": list(field.env_names),
        "flag": field.option.flag or None,
        "secret": field.option.secret,
        "meaning": field.option.text,
    }


@click.command("check-config")
@with_loaded
def check_config(loaded: Loaded) -> None:
    """Say OK, or everything that would stop `serve` from starting with these settings.

    Checks the values, that the backends can be found, and the directories. Connects to nothing, changes nothing.

    \b
    Example:
      tracardi-lite check-config --config conf/all.toml
    """
    for line in near_misses(os.environ):
        click.echo(f"Warning: {line}", err=True)
    problems = list(_obstacles(loaded.settings))
    if problems:
        raise click.UsageError("The settings are well-formed, but:\n" + "\n".join(f"  {each}" for each in problems))
    given = sum(origin.kind != "default" for origin in loaded.origins.values())
    click.echo(f"OK: {given} of {len(FIELDS)} settings given, role {loaded.settings.role}.")


def _obstacles(settings: Settings) -> Iterator[str]:
    for open_backend in (wiring.open_queue, wiring.open_store, wiring.open_cache, wiring.open_registry):
        try:
            # Made, not entered: it is entering that connects and creates files.
            open_backend(settings)
        except Misconfigured as error:
            yield str(error)
    try:
        check_merging(settings)
    except Misconfigured as error:
        yield str(error)
    if not _writable(settings.data_dir.absolute()):
        yield f"data_dir: {settings.data_dir} can't be written to"
    if settings.tracker_dir and not Path(settings.tracker_dir).is_dir():
        yield f"tracker_dir: {settings.tracker_dir} is not a directory"


def _writable(directory: Path) -> bool:
    """Whether it is there and may be written, or could be made."""
    existing = next(path for path in (directory, *directory.parents) if path.exists())
    return existing.is_dir() and os.access(existing, os.W_OK | os.X_OK)
