"""``backlog``, ``ledger`` and ``seek``: what waits in the queue, what became of the rest, and doing it again."""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Sequence
from datetime import UTC, datetime

import click

from tracardi_lite.cli import runtime, show
from tracardi_lite.cli.runtime import json_option, queue_of, with_settings
from tracardi_lite.ledger import Ledger, ledger_of
from tracardi_lite.ports.queue import SUBSCRIPTION, PartitionBacklog
from tracardi_lite.settings import Settings


@click.command()
@json_option
@click.option("--watch", is_flag=True, help="Show it again and again until Ctrl-C.")
@click.option("--every", type=click.FloatRange(0.1, 3600), default=2.0, show_default=True, help="Seconds in between.")
@click.option("--times", type=click.IntRange(1), help="With --watch: stop after so many.")
@with_settings
def backlog(settings: Settings, as_json: bool, watch: bool, every: float, times: int | None) -> None:
    """Show what waits for the workers: messages and events per partition, and the age of the oldest.

    \b
    Examples:
      tracardi-lite backlog
      tracardi-lite backlog --watch
      tracardi-lite backlog --json | jq 'map(.messages) | add'
    """
    runtime.run(_backlog(settings, as_json, every, (times or -1) if watch else 1))


async def _backlog(settings: Settings, as_json: bool, every_s: float, rounds: int) -> None:
    """``rounds`` below 0: until interrupted."""
    async with queue_of(settings) as queue:
        while True:
            rows = await queue.backlog(rough=rounds != 1)
            if as_json:
                show.as_json(rows)
            else:
                _show_backlog(rows, live=rounds != 1)
            rounds -= 1
            if rounds == 0:
                return
            await asyncio.sleep(every_s)


def _show_backlog(rows: Sequence[PartitionBacklog], live: bool) -> None:
    now = time.time()
    if live:
        # Does nothing where standard output is no terminal: a file gets one table after the other.
        click.clear()
        click.echo(show.moment(int(now * 1000)))
    table: list[tuple[object, ...]] = [
        (row.partition, row.subscription, row.messages, row.events, _age(row, now)) for row in rows
    ]
    table.append(("all", "", sum(row.messages for row in rows), sum(row.events for row in rows), ""))
    show.table(("partition", "subscription", "messages", "events", "oldest"), table)


def _age(row: PartitionBacklog, now: float) -> str:
    return "" if row.oldest_ms is None else show.span(now - row.oldest_ms / 1000)


@click.command()
@json_option
@with_settings
def ledger(settings: Settings, as_json: bool) -> int:
    """Show what became of every event since the installation, and whether it adds up. It has to; 1 if not.

    \b
    Examples:
      tracardi-lite ledger
      tracardi-lite ledger --json | jq .pending
    """
    found = runtime.run(_ledger(settings))
    if as_json:
        show.as_json(
            {name: getattr(found, name) for name in found.__struct_fields__} | {"difference": found.difference}
        )
    else:
        _show_ledger(found)
    return 1 if found.difference else 0


async def _ledger(settings: Settings) -> Ledger:
    async with queue_of(settings) as queue:
        return ledger_of(await queue.totals())


def _show_ledger(found: Ledger) -> None:
    rows: list[tuple[str, int]] = [("received", found.received), ("replayed", found.replayed)]
    rows += [("  stored", found.stored), ("  duplicate", found.duplicate)]
    rows += [(f"  rejected: {reason}", count) for reason, count in sorted(found.rejected.items())]
    rows += [("  dead-lettered", found.dead_lettered), ("  pending", found.pending), ("dead now", found.dead)]
    show.table(("what", "events"), rows)
    if found.difference:
        click.echo(f"It does NOT add up: {found.difference:+,} events unaccounted for. Please report this.", err=True)
    else:
        click.echo("received + replayed = all that is indented: it adds up.")


@click.command()
@click.option("--to", "moment", metavar="TIME", help="A time (ISO 8601, UTC) or how long ago: 90m, 2h, 7d.")
@click.option("--from-start", is_flag=True, help="All that is retained.")
@click.option("--subscription", default=SUBSCRIPTION, show_default=True, help="Whose place in the queue.")
@with_settings
def seek(settings: Settings, moment: str | None, from_start: bool, subscription: str) -> None:
    """Let the workers process again what was published since a time: after the store lost data, or a repair.

    Harmless where nothing was lost: events that are stored are recognised, and profiles know what they have seen.

    \b
    Examples:
      tracardi-lite seek --to 2h
      tracardi-lite seek --to 2026-11-23T08:00:00Z
      tracardi-lite seek --from-start
    """
    if (moment is None) is not from_start:
        raise click.UsageError("Give either --to TIME or --from-start.")
    to_ms = None if moment is None else parse_moment(moment, time.time_ns() // 1_000_000)
    made = runtime.run(_seek(settings, subscription, to_ms))
    click.echo(f"{made:,} events are pending again.")


async def _seek(settings: Settings, subscription: str, to_ms: int | None) -> int:
    async with queue_of(settings) as queue:
        return await queue.seek(subscription, to_ms)


_AGO_MS = {"s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000, "w": 7 * 86_400_000}


def parse_moment(text: str, now_ms: int) -> int:
    """Ms since the epoch. Naive times are UTC. Raises ``click.BadParameter``, for the future too."""
    if match := re.fullmatch(r"([0-9]{1,9})([smhdw])", text.strip()):
        return max(now_ms - int(match[1]) * _AGO_MS[match[2]], 0)
    try:
        at = datetime.fromisoformat(text.strip())
    except ValueError:
        hint = "expected a time such as 2026-11-23T08:00:00Z, or how long ago, such as 2h"
        raise click.BadParameter(hint, param_hint="--to") from None
    at_ms = int((at if at.tzinfo else at.replace(tzinfo=UTC)).timestamp() * 1000)
    if at_ms > now_ms:
        raise click.BadParameter("that is in the future", param_hint="--to")
    return max(at_ms, 0)
