"""``dead-letters``: what can't be processed; look at it, send it again, or let it go."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

import click
import msgspec

from tracardi_lite.cli import runtime, show
from tracardi_lite.cli.runtime import json_option, queue_of, with_settings, yes_option
from tracardi_lite.ports.queue import DeadLetter, Publication, Queue
from tracardi_lite.protocol.envelope import decode_head, encode_head
from tracardi_lite.settings import Settings

_PAGE = 20
"""Letters read at once: each may hold a body of 10 MiB."""


def replay_of(letter: DeadLetter) -> Publication:
    """The letter as a message again, under its own message id, so that nothing of it can be stored twice.

    Of a letter for some events of a message only those are processed; the others had another fate.
    """
    head = letter.head
    if letter.indices is not None:
        decoded = decode_head(letter.head)
        decoded.only = list(letter.indices)
        head = encode_head(decoded)
    return Publication(key=letter.key, head=head, body=letter.body, events=letter.events, replay=True)


async def letters(queue: Queue) -> AsyncIterator[DeadLetter]:
    """All that are there, oldest first, page by page."""
    after = ""
    while page := await queue.dead_letters(limit=_PAGE, after=after):
        for letter in page:
            yield letter
        after = page[-1].id


async def _chosen(queue: Queue, ids: Sequence[str]) -> AsyncIterator[DeadLetter]:
    """Those with the ids; all of them if there are none."""
    wanted = set(ids)
    async for letter in letters(queue):
        if not ids or letter.id in wanted:
            wanted.discard(letter.id)
            yield letter
            if ids and not wanted:
                return
    if wanted:
        raise click.ClickException("No dead letter " + ", ".join(sorted(wanted)) + ".")


@click.group("dead-letters")
def dead_letters() -> None:
    """Events that could not be stored, kept with the reason until they are replayed or dropped."""


@dead_letters.command("list")
@click.option("--limit", type=click.IntRange(1), default=100, show_default=True, help="How many, oldest first.")
@json_option
@with_settings
def list_letters(settings: Settings, limit: int, as_json: bool) -> None:
    """What is there: one line each. With --json one object per line, without the bodies.

    \b
    Example:
      tracardi-lite dead-letters list
    """
    runtime.run(_list(settings, limit, as_json))


async def _list(settings: Settings, limit: int, as_json: bool) -> None:
    rows: list[tuple[object, ...]] = []
    async with queue_of(settings) as queue:
        async for letter in letters(queue):
            if len(rows) == limit:
                break
            rows.append(
                (letter.id, show.moment(letter.died_ms), letter.events, letter.tries, letter.key, letter.reason)
            )
            if as_json:
                show.as_json(_summary(letter))
    if not as_json:
        show.table(("id", "died", "events", "tries", "key", "reason"), rows, "No dead letters.")


def _summary(letter: DeadLetter) -> dict[str, object]:
    names = ("id", "key", "events", "indices", "reason", "died_ms", "tries")
    return {name: getattr(letter, name) for name in names}


@dead_letters.command("show")
@click.argument("id")
@with_settings
def show_letter(settings: Settings, id: str) -> None:
    """One dead letter with its head and body, as JSON.

    \b
    Example:
      tracardi-lite dead-letters show ID | jq .body.events
    """
    runtime.run(_show(settings, id))


async def _show(settings: Settings, id: str) -> None:
    async with queue_of(settings) as queue:
        async for letter in _chosen(queue, [id]):
            whole = {**_summary(letter), "head": _head(letter.head), "body": _body(letter.body)}
            click.echo(msgspec.json.format(msgspec.json.encode(whole), indent=2))


def _head(data: bytes) -> object:
    try:
        return msgspec.structs.asdict(decode_head(data))
    except msgspec.DecodeError:
        return data.decode(errors="backslashreplace")


def _body(data: bytes) -> object:
    """As JSON where it is that; what is dead is often not."""
    try:
        return msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return data.decode(errors="backslashreplace")


@dead_letters.command()
@click.argument("ids", nargs=-1, metavar="ID...")
@click.option("--all", "everything", is_flag=True, help="All that are there.")
@with_settings
def replay(settings: Settings, ids: tuple[str, ...], everything: bool) -> None:
    """Send dead letters to the workers again, after what killed them was repaired.

    They keep their message ids, so nothing is counted or stored twice.

    \b
    Examples:
      tracardi-lite dead-letters replay 1763900000000-8f00
      tracardi-lite dead-letters replay --all
    """
    _one_of(ids, everything)
    count, events = runtime.run(_take(settings, ids, again=True))
    click.echo(f"Replayed {count:,} dead letters with {events:,} events.")


@dead_letters.command()
@click.argument("ids", nargs=-1, metavar="ID...")
@click.option("--all", "everything", is_flag=True, help="All that are there.")
@yes_option
@with_settings
def drop(settings: Settings, ids: tuple[str, ...], everything: bool, yes: bool) -> None:
    """Remove dead letters for good. Asks first.

    \b
    Examples:
      tracardi-lite dead-letters drop 1763900000000-8f00
      tracardi-lite dead-letters drop --all --yes
    """
    _one_of(ids, everything)
    if not yes:
        click.confirm(f"Drop {'all' if everything else len(ids)} dead letters, for good?", abort=True)
    count, events = runtime.run(_take(settings, ids, again=False))
    click.echo(f"Dropped {count:,} dead letters with {events:,} events.")


def _one_of(ids: tuple[str, ...], everything: bool) -> None:
    if bool(ids) is everything:
        raise click.UsageError("Give either ids or --all.")


async def _take(settings: Settings, ids: Sequence[str], *, again: bool) -> tuple[int, int]:
    count = events = 0
    async with queue_of(settings) as queue:
        # A letter that dies again meanwhile is as old as before and stands before the page that is read: no circle.
        async for letter in _chosen(queue, ids):
            try:
                publication = replay_of(letter) if again else None
            except msgspec.DecodeError:
                click.echo(f"{letter.id}: its head can't be read; left where it is.", err=True)
                continue
            if await queue.take_dead_letter(letter.id, replay=publication):
                count += 1
                events += letter.events
    return count, events
