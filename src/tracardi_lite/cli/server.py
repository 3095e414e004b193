"""``serve``, ``install`` and ``healthcheck``."""

from __future__ import annotations

import asyncio
import http.client
import os
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit

import click

from tracardi_lite import data_dir, logs, wiring
from tracardi_lite.cli import runtime
from tracardi_lite.cli.runtime import config_option, data_dir_option, with_settings
from tracardi_lite.cli.welcome import Report, print_welcome, reachable
from tracardi_lite.clock import SystemClock
from tracardi_lite.settings import Settings, load, near_misses
from tracardi_lite.waiting import Patience

_HEALTH_TIMEOUT_S = 5.0
"""Longer than the server takes to judge its parts, shorter than what container runtimes allow by default."""


@click.command()
@click.option("--role", metavar="all|api|worker", help="Which half runs.  [default: all]")
@click.option("--api", is_flag=True, help="The same as --role api; with --worker, as --role all.")
@click.option("--worker", is_flag=True, help="The same as --role worker.")
@click.option("--host", metavar="ADDRESS", help="Address to listen on.  [default: 127.0.0.1]")
@click.option(
    "--port", metavar="N", help="Port to listen on; 0 picks a free one.  [default: 8686; with --worker alone 8687]"
)
@data_dir_option
@click.option("--reuse-port/--no-reuse-port", default=None, help="Share the port with other processes of this program.")
@config_option
def serve(
    role: str | None,
    api: bool,
    worker: bool,
    host: str | None,
    port: str | None,
    data_dir: str | None,
    reuse_port: bool | None,
    config: Path | None,
) -> int:
    """Start the server: collector, workers, or both.

    The first start in an empty data directory makes everything it needs, and says how to send the first event.
    SIGTERM or Ctrl-C stops it: requests are finished, the queue's work is flushed, nothing is lost.

    \b
    Examples:
      tracardi-lite serve
      tracardi-lite serve --config conf/all.toml --port 9000
      tracardi-lite serve --api --reuse-port      several of these, and
      tracardi-lite serve --worker                several of those, on one --data-dir

    Every other setting comes from --config or the environment: `tracardi-lite settings` lists them.
    """
    flags: dict[str, object] = {"role": _role(role, api, worker), "host": host, "port": port, "data_dir": data_dir}
    flags["reuse_port"] = reuse_port
    loaded = load(flags, os.environ, config)
    if loaded.settings.role == "worker" and port is not None:
        # Whoever says --port means the one that this process listens on.
        loaded = load({**flags, "worker_port": port}, os.environ, config)
    for line in near_misses(os.environ):
        click.echo(f"Warning: {line}", err=True)
    # Imported here: no other command needs the web server and the pipeline.
    from tracardi_lite import app

    return app.run(loaded.settings, print_welcome)


def _role(role: str | None, api: bool, worker: bool) -> str | None:
    """None if nothing was said; the settings decide then."""
    if not api and not worker:
        return role
    short = "all" if api and worker else "api" if api else "worker"
    if role is not None and role.strip().lower() != short:
        flags = " ".join(name for name, given in (("--api", api), ("--worker", worker)) if given)
        raise click.UsageError(f"--role {role} and {flags} say different things; give one of them.")
    return short


@click.command()
@click.option("--username", metavar="EMAIL", help="The admin's login.  [default: admin@localhost]")
@click.option("--password", help="The admin's password; without it one is made and shown.")
@click.option("--token", help="The installation token, where INSTALLATION_TOKEN is set.")
@click.option("--dry-run", is_flag=True, help="Say what would be done, and do nothing.")
@with_settings
def install(settings: Settings, username: str | None, password: str | None, token: str | None, dry_run: bool) -> None:
    """Make what the server needs, without serving: the registry's schema, an admin, the source `default`; in Pulsar
    tenant, namespace, topics and policies; in Elasticsearch templates, first partitions and the snapshot repository.

    Idempotent: what is there stays as it is, and each line says what was made or set. What does not fit what is there
    and can't be changed any more is refused. Servers beside this machine's data directory need INSTALLATION_TOKEN, and
    are waited for as at a start, for WAIT_FOR_DEPENDENCIES.

    \b
    Examples:
      tracardi-lite install --username me@example.com --password 'correct horse'
      tracardi-lite install --dry-run
    """
    if dry_run:
        lines = runtime.run(_plan(settings))
        for line in lines or ["Nothing to do: all is there."]:
            click.echo(line)
    else:
        # What is waited for is said on standard error.
        with logs.configure("warning", settings.logging_format):
            runtime.run(_install(settings, username, password, token))


async def _plan(settings: Settings) -> list[str]:
    from tracardi_lite import provision

    provision.check_allowed(settings)
    return await provision.plan(settings)


async def _install(settings: Settings, username: str | None, password: str | None, token: str | None) -> None:
    from tracardi_lite import install as installation
    from tracardi_lite import provision

    provision.check_allowed(settings)
    patience = Patience(settings.wait_for_dependencies, SystemClock(), asyncio.Event())
    # Looked at everywhere before anything is changed anywhere: what is refused, or away, must leave no half of it.
    await patience.ready(None, lambda: provision.plan(settings))
    data_dir.prepare(settings)
    async with wiring.open_registry(settings) as registry:
        report = await installation.install(settings, registry, username=username, password=password, token=token)
    try:
        # Again from the start after a failure: what was made by then is found, and not said once more.
        lines = await patience.ready(None, lambda: provision.provision(settings, dry_run=False))
    except BaseException:
        # A server that goes away meanwhile must not cost the only sight of the password.
        _tell(report.lines, report)
        raise
    _tell([*report.lines, *lines] or ["Nothing to do: all is there."], report)


def _tell(lines: Sequence[str], report: Report) -> None:
    for line in lines:
        click.echo(line)
    if report.password is not None:
        click.echo(f"\nThe admin, whose password is shown this once:\n  user      {report.username}")
        click.echo(f"  password  {report.password}")


@click.command()
@click.option("--url", help="What to ask.  [default: /health/ready of the configured host and port]")
@with_settings
def healthcheck(settings: Settings, url: str | None) -> int:
    """Ask a server whether it is ready: exit code 0 if so, else 1 with its answer. For containers and scripts.

    \b
    Examples:
      tracardi-lite healthcheck
      tracardi-lite healthcheck --url http://10.0.0.5:8686/health/ready
    """
    host = f"[{settings.host}]" if ":" in settings.host else settings.host
    port = settings.worker_port if settings.role == "worker" else settings.port
    target = url or reachable(f"http://{host}:{port}") + "/health/ready"
    try:
        status, answer = _get(target)
    except (OSError, http.client.HTTPException) as error:
        click.echo(f"{target}: {error or type(error).__name__}", err=True)
        return 1
    click.echo(answer, err=status != 200)
    return 0 if status == 200 else 1


def _get(url: str) -> tuple[int, str]:
    """Status and the beginning of the body."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise click.BadParameter("expected http://… or https://…", param_hint="--url")
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = kind(parts.hostname, parts.port, timeout=_HEALTH_TIMEOUT_S)
    try:
        connection.request("GET", (parts.path or "/") + (f"?{parts.query}" if parts.query else ""))
        response = connection.getresponse()
        return response.status, response.read(10_000).decode(errors="replace")
    finally:
        connection.close()
