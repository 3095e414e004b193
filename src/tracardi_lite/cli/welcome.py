"""The first minute: what the program says when it begins to serve, with a line to paste that works."""

from __future__ import annotations

import shlex
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit

import click

from tracardi_lite import __version__
from tracardi_lite.settings import Settings

NAME = "tracardi-lite"

_EXAMPLE = (
    '{"source":{"id":"default"},"session":{"id":"my-first-session"},'
    '"events":[{"type":"page-view","properties":{"page":"/hello"}}]}'
)


class Report(Protocol):
    """The part of ``install.InstallReport`` that is told."""

    @property
    def lines(self) -> Sequence[str]:
        """What was made or changed; empty when all was there."""

    @property
    def username(self) -> str | None: ...

    @property
    def password(self) -> str | None:
        """The generated one; it is nowhere else in clear."""


def print_welcome(settings: Settings, report: Report, address: str | None) -> None:
    """To standard output, flushed. ``address`` is what is listened on, as a URL: ``http://127.0.0.1:8686``; None when
    the start failed after the installation."""
    click.echo("\n".join(welcome(settings, report, address)))


def welcome(settings: Settings, report: Report, address: str | None) -> list[str]:
    """The lines. A start that made nothing new gets the short form, one that failed only what must not get lost."""
    if address is None:
        return [f"tracardi-lite {__version__}: installed in {settings.data_dir}, but not started", *_made(report)]
    url = reachable(address)
    role = {"all": "collector and workers", "api": "collector", "worker": "workers"}[settings.role]
    lines = [f"tracardi-lite {__version__}: {role} on {url}, data in {settings.data_dir}"]
    if not report.lines and report.password is None:
        return lines
    lines += _made(report)
    if settings.role != "worker":
        lines += [
            "",
            "Send an event:",
            f"  curl -sw '\\n' {url}/track -H 'content-type: application/json' -d '{_EXAMPLE}'",
            "The answer has the profile's id. Then look at it:",
            f"  {command(settings, 'profile ID')}",
            f"  {command(settings, 'events --profile ID')}",
        ]
    lines += ["", f"Next: {url}/health/ready   {url}/metrics   `{command(settings, 'settings')}`", "Ctrl-C stops."]
    return lines


def _made(report: Report) -> list[str]:
    lines = [f"  {line}" for line in report.lines]
    if report.password is not None:
        lines += [
            "",
            "The admin, whose password is shown this once:",
            f"  user      {report.username}",
            f"  password  {report.password}",
        ]
    return lines


def command(settings: Settings, rest: str) -> str:
    """A command line that reaches this installation."""
    where = "" if settings.data_dir == Settings().data_dir else f" --data-dir {shlex.quote(str(settings.data_dir))}"
    return f"{program(sys.argv[0])} {rest}{where}"


def program(started_as: str) -> str:
    """How to call this program in the same shell: by its name only where that finds it."""
    path = Path(started_as)
    if path.parts[-2:] == ("tracardi_lite", "__main__.py"):
        return f"{shlex.quote(sys.executable)} -m tracardi_lite"
    if path.name != NAME or shutil.which(NAME) is not None:
        return NAME
    return shlex.quote(started_as)


def reachable(address: str) -> str:
    """The address to use from this machine: "all interfaces" is none that one can connect to everywhere."""
    parts = urlsplit(address)
    host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(parts.hostname or "")  # noqa: S104 - compared, not bound
    return address.rstrip("/") if host is None else f"{parts.scheme}://{host}:{parts.port}"
