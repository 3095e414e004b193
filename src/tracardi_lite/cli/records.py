"""``profile`` and ``events``: what is in the store."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import click
import msgspec
from msgspec import Raw, Struct

from tracardi_lite.cli import runtime, show
from tracardi_lite.cli.runtime import json_option, store_of, with_settings
from tracardi_lite.pipeline.merging.marks import history
from tracardi_lite.ports.store import Query, Record, Store
from tracardi_lite.query import Compare, Or
from tracardi_lite.settings import Settings

_ALIAS_HOPS_MAX = 16
"""Aliases of aliases that are followed; chains are short, and a circle must not hang a terminal."""

_IDS_MAX = 100
"""Most ids of a profile that its events are looked for under."""


async def survivor(store: Store, id: str) -> str:
    """The profile that an id means: itself, or the one it was merged into."""
    for _ in range(_ALIAS_HOPS_MAX):
        [entry] = await store.lookup([f"p:{id}"])
        if entry is None or entry.target in ("", id):
            break
        id = entry.target
    return id


async def find_profile(store: Store, id: str) -> Record | None:
    """By a profile id, its own or an alias."""
    target = await survivor(store, id)
    [entry] = await store.lookup([f"p:{target}"])
    if entry is not None and entry.partition:
        [record] = await store.get("profile", [(target, entry.partition)])
        if record is not None:
            return record
    return await store.find("profile", target)


@click.command()
@click.argument("id")
@click.option("--history", "tell", is_flag=True, help="Which profiles became this one: when, why, what came of each.")
@json_option
@with_settings
def profile(settings: Settings, id: str, tell: bool, as_json: bool) -> int:
    """Show the profile that ID means; ids that were merged into another lead to that one.

    \b
    Examples:
      tracardi-lite profile 0c47…
      tracardi-lite profile 0c47… --json | jq .data
      tracardi-lite profile 0c47… --history
    """
    record = runtime.run(_profile(settings, id))
    if record is None:
        click.echo(f"No profile {id}.", err=True)
        return 1
    if tell:
        merges = history(msgspec.json.decode(record.doc))
        if as_json:
            show.as_json(merges)
            return 0
        if record.id != id:
            click.echo(f"{id} is now {record.id}")
        show.table(
            ("when", "profile", "became", "because of", "events", "fields that came from it"),
            [_merge_row(merge) for merge in merges],
            f"{record.id} was never merged with another.",
        )
        return 0
    if as_json:
        click.echo(record.doc)
        return 0
    if record.id != id:
        click.echo(f"{id} is now {record.id}")
    document = msgspec.json.decode(record.doc)
    # The server's own bookkeeping, wider than a terminal; --json has it.
    document.get("metadata", {}).pop("system", None)
    show.table(("field", "value"), list(leaves(document)))
    return 0


def _merge_row(merge: dict[str, Any]) -> tuple[object, ...]:
    return (
        merge.get("at"),
        merge.get("id"),
        merge.get("into"),
        ", ".join(merge.get("why") or ()),
        merge.get("events"),
        ", ".join(merge.get("fields") or ()),
    )


async def _profile(settings: Settings, id: str) -> Record | None:
    async with store_of(settings) as store:
        return await find_profile(store, id)


def leaves(value: Any, path: str = "") -> Iterator[tuple[str, object]]:
    """The fields of a record that hold something, as (dot path, value); lists as one value."""
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from leaves(inner, f"{path}.{name}" if path else name)
    elif isinstance(value, list):
        if value:
            yield path, msgspec.json.encode(value).decode()
    elif value is not None and value != "":
        # As text, so that numbers and words share a column that is aligned left.
        yield path, value if isinstance(value, str) else msgspec.json.encode(value).decode()


@click.command()
@click.option("--profile", "profile_id", metavar="ID", required=True, help="Whose; merged ids are understood.")
@click.option("--limit", type=click.IntRange(1, 1000), default=20, show_default=True, help="How many, newest first.")
@json_option
@with_settings
def events(settings: Settings, profile_id: str, limit: int, as_json: bool) -> None:
    """Show a customer's events, newest first. With --json, one event per line, whole.

    \b
    Examples:
      tracardi-lite events --profile 0c47…
      tracardi-lite events --profile 0c47… --limit 1000 --json | jq -r .type | sort | uniq -c
    """
    found = runtime.run(_events(settings, profile_id, limit))
    if as_json:
        for doc in found.result:
            click.echo(doc)
        return
    rows = [_event_row(doc) for doc in found.result]
    show.table(("time", "type", "id", "source", "session", "properties"), rows, f"No events of {profile_id}.")
    if found.total > len(rows):
        click.echo(f"{len(rows)} of {found.total:,}; --limit shows more.")


async def _events(settings: Settings, profile_id: str, limit: int) -> Any:
    async with store_of(settings) as store:
        await store.refresh()
        record = await find_profile(store, profile_id)
        listed = msgspec.json.decode(record.doc).get("ids") or [] if record is not None else []
        # Events of a merged profile keep the id that they were stored with until they have been moved.
        ids = dict.fromkeys((await survivor(store, profile_id), profile_id, *listed))
        terms = tuple(Compare("profile.id", "=", id) for id in list(ids)[:_IDS_MAX])
        return await store.search("event", Query(where=terms[0] if len(terms) == 1 else Or(terms), limit=limit))


class _Times(Struct):
    insert: str


class _Metadata(Struct):
    time: _Times


class _Ref(Struct):
    id: str


class _Listed(Struct):
    """What a line shows of an event. Properties are not looked into: a client may have sent numbers beyond any type."""

    id: str
    type: str
    metadata: _Metadata
    source: _Ref | None = None
    session: _Ref | None = None
    properties: Raw = Raw(b"{}")


_decode_listed = msgspec.json.Decoder(_Listed).decode


def _event_row(doc: bytes) -> tuple[object, ...]:
    event = _decode_listed(doc)
    # On one line, however the client wrote it.
    properties = msgspec.json.format(bytes(event.properties), indent=-1).decode()
    return (
        event.metadata.time.insert,
        event.type,
        event.id,
        event.source and event.source.id,
        event.session and event.session.id,
        properties if len(properties) <= 60 else properties[:59] + "…",
    )
