"""What commands share: loading settings from their options, and opening backends beside a running server."""

from __future__ import annotations

import asyncio
import functools
import os
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeVar

import click

from tracardi_lite import logs, wiring
from tracardi_lite.errors import Misconfigured
from tracardi_lite.ports.queue import Queue
from tracardi_lite.ports.registry import Registry
from tracardi_lite.ports.store import Store
from tracardi_lite.settings import Loaded, Settings, load
from tracardi_lite.settings.loader import CONFIG_ENV

T = TypeVar("T")

config_option = click.option(
    "--config",
    type=click.Path(path_type=Path),
    envvar=CONFIG_ENV,
    metavar="FILE.toml",
    help=f"Settings file; see conf/ for examples.  [env: {CONFIG_ENV}]",
)
data_dir_option = click.option(
    "--data-dir", metavar="DIR", help="Where the embedded backends keep their files.  [default: ./tracardi-lite-data]"
)
json_option = click.option("--json", "as_json", is_flag=True, help="For programs.")
yes_option = click.option("--yes", "-y", is_flag=True, help="Don't ask.")


def with_loaded(command: Callable[..., T]) -> Callable[..., T]:
    """Adds --config and --data-dir to a command, and hands it the ``Loaded`` settings as its first argument."""

    @config_option
    @data_dir_option
    @functools.wraps(command)
    def wrapped(*args: Any, config: Path | None, data_dir: str | None, **options: Any) -> T:
        loaded = load({"data_dir": data_dir}, os.environ, config)
        # On standard error: results alone go to standard output.
        with logs.configure(loaded.settings.logging_level, loaded.settings.logging_format):
            return command(loaded, *args, **options)

    return wrapped


def with_settings(command: Callable[..., T]) -> Callable[..., T]:
    """The same for commands to which it does not matter where a value came from."""

    @with_loaded
    @functools.wraps(command)
    def wrapped(loaded: Loaded, *args: Any, **options: Any) -> T:
        return command(loaded.settings, *args, **options)

    return wrapped


def run(work: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(work)


@asynccontextmanager
async def queue_of(settings: Settings) -> AsyncIterator[Queue]:
    _reachable(settings, "queue_url")
    async with wiring.open_queue(settings) as queue:
        yield queue


@asynccontextmanager
async def store_of(settings: Settings) -> AsyncIterator[Store]:
    _reachable(settings, "store_url")
    async with wiring.open_store(settings) as store:
        yield store


@asynccontextmanager
async def registry_of(settings: Settings) -> AsyncIterator[Registry]:
    _reachable(settings, "registry_url")
    async with wiring.open_registry(settings) as registry:
        yield registry


def _reachable(settings: Settings, key: str) -> None:
    """Refuse what could only show emptiness: another process's memory, or a directory that is not there yet."""
    url: str = getattr(settings, key)
    if url.startswith("memory:"):
        raise Misconfigured(key, "memory: lives inside the server's process, no command can see it.")
    if url == "sqlite:" and not settings.data_dir.is_dir():
        raise Misconfigured(
            "data_dir",
            f"there is no {settings.data_dir}.",
            "Give the server's --data-dir, or make it with `tracardi-lite serve` or `tracardi-lite install`.",
        )
