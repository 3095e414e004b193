"""``queue policy``: what the queue's own server keeps, for how long, and what it moves to cold storage."""

from __future__ import annotations

import click

from tracardi_lite import wiring
from tracardi_lite.cli import runtime, show
from tracardi_lite.cli.runtime import json_option, with_settings
from tracardi_lite.ports.provision import Policed, Provisioned
from tracardi_lite.settings import Settings


@click.group()
def queue() -> None:
    """The queue's server."""


@queue.command("policy")
@click.option("--set", "is_set", is_flag=True, help="Make it what the settings say first, and say what changed.")
@json_option
@with_settings
def policy(settings: Settings, is_set: bool, as_json: bool) -> None:
    """Show how long Pulsar keeps messages, when it moves them to cold storage, and how much of each partition it has.

    QUEUE_RETENTION, QUEUE_RETENTION_BYTES, PULSAR_MESSAGE_TTL, PULSAR_OFFLOAD_THRESHOLD and PULSAR_OFFLOAD_DELETION_LAG
    are what --set sets.

    \b
    Examples:
      tracardi-lite queue policy
      PULSAR_OFFLOAD_THRESHOLD=10GB tracardi-lite queue policy --set
    """
    changes, rows = runtime.run(_policy(settings, is_set))
    if as_json:
        show.as_json({"changes": changes, "policy": dict(rows)})
        return
    for line in changes:
        click.echo(line)
    show.table(("what", "value"), rows)


async def _policy(settings: Settings, is_set: bool) -> tuple[list[str], list[tuple[str, str]]]:
    from tracardi_lite.provision import check_allowed

    backend = wiring.open_queue(settings)
    if not isinstance(backend, Policed):
        scheme = settings.queue_url.partition(":")[0]
        raise click.ClickException(f"The queue {scheme}: has no server with a policy; QUEUE_RETENTION acts by itself.")
    changes: list[str] = []
    if is_set and isinstance(backend, Provisioned):
        check_allowed(settings)
        changes = await backend.provision()
    return changes, await backend.policy()
