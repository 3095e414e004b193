"""The generated pages and example files: ``python -m tracardi_lite.cli.docs`` in a checkout, or ``make docs``.

Each is a function of the code alone, so tests can tell whether the ones in the repository have drifted.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import click

from tracardi_lite import metrics
from tracardi_lite.cli import cli
from tracardi_lite.pipeline.docs import event_types_page
from tracardi_lite.settings import docs as settings_docs
from tracardi_lite.settings.fields import FIELDS

_WIDTH = 100

_CLI_INTRO = """# Command line

<!-- Generated from the commands' own help by `make docs`; edit src/tracardi_lite/cli/. -->

Exit codes: 0 done; 1 it could not be done; 2 used or configured wrongly, and nothing was done; 130 interrupted.
Results go to standard output, everything else to standard error. Tables are for people and may change; what `--json`
prints keeps its shape. In a pipe tables are plain text, and nothing in them is cut off.

Every command takes its settings from the same places as the server ([settings.md](settings.md)), so give it the same
`--config`, `--data-dir` and environment. The embedded backends are shared by processes: commands work beside a running
server, and without one.
"""

_METRICS_INTRO = """# Metrics

<!-- Generated from src/tracardi_lite/metrics.py by `make docs`; edit that. -->

`GET /metrics` answers in the Prometheus text format; an admin's token is needed where `METRICS_PUBLIC=no`.

The ledger's figures (`tracardi_lite_events_…`) and the backlog's are the installation's: durable, counted over all
processes since the first start, and the same whichever process is asked. All others are this process's, since its
start; where several processes share a port (`--reuse-port`), a scrape meets any one of them.

At every moment, across restarts:

    received + replayed = stored + duplicate + rejected (all reasons) + dead_lettered + pending

As long as no dead letter was replayed or dropped and nothing was sought back to, `events_dead` equals
`events_dead_lettered_total` and `events_replayed_total` is 0, so that also

    received = stored + duplicate + rejected + dead + pending

Process metrics carry the names that every Prometheus client gives them: `process_cpu_seconds_total`,
`process_resident_memory_bytes`, `process_virtual_memory_bytes`, `process_start_time_seconds`, `process_open_fds`,
`process_max_fds`.

| name | kind | unit | labels | meaning |
|---|---|---|---|---|
"""


def commands_page() -> str:
    """docs/cli.md."""
    parts = [_CLI_INTRO]
    context = click.Context(cli, info_name="tracardi-lite", terminal_width=_WIDTH, **cli.context_settings)
    for path, text in _helps(cli, context):
        parts.append(f"\n## {path}\n\n```text\n{text.rstrip()}\n```\n")
    return "".join(parts)


def _helps(command: click.Command, context: click.Context) -> Iterator[tuple[str, str]]:
    yield context.command_path, command.get_help(context)
    if isinstance(command, click.Group):
        for name in command.list_commands(context):
            inner = command.get_command(context, name)
            assert inner is not None
            yield from _helps(inner, click.Context(inner, info_name=name, parent=context))


def metrics_page() -> str:
    """docs/metrics.md."""
    lines = [
        f"| `{row.name}` | {row.kind} | {row.unit} | {', '.join(row.labels)} | {row.text} |" for row in metrics.table()
    ]
    return _METRICS_INTRO + "\n".join(lines) + "\n"


GENERATED: dict[str, Callable[[], str]] = {
    "docs/settings.md": settings_docs.page,
    "docs/metrics.md": metrics_page,
    "docs/cli.md": commands_page,
    "docs/event-types.md": event_types_page,
    **{f"conf/{role}.toml": lambda role=role: settings_docs.example(role) for role in FIELDS["role"].choices},  # type: ignore[misc]
}
"""What each generated file in the repository has to be."""


def write(root: Path) -> None:
    for name, make in GENERATED.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(make(), encoding="utf-8")


if __name__ == "__main__":
    write(Path.cwd())
