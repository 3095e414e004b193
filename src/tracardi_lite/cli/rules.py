"""``rules``: what is done with events, as data; list it, change it, try it on an event."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from typing import IO, Any, TypeVar

import click
import msgspec

from tracardi_lite.cli import records, runtime, show
from tracardi_lite.cli.runtime import json_option, registry_of, with_settings, yes_option
from tracardi_lite.clock import SystemClock
from tracardi_lite.errors import BadInput
from tracardi_lite.pipeline.event_types import EventTypes, load_custom
from tracardi_lite.pipeline.rules.dry_run import Desk, Result, Trial
from tracardi_lite.pipeline.rules.fault import RuleFault
from tracardi_lite.pipeline.rules.live import compliance_key, switches
from tracardi_lite.ports.registry import RULE_KINDS, Registry, Rule
from tracardi_lite.settings import Settings

T = TypeVar("T")

FILE_CHARS_MAX = 16 << 20
TEXT_FILE = click.File(encoding="utf-8")

kind_option = click.option("--kind", type=click.Choice(RULE_KINDS), help="Where two kinds have a rule of that id.")


@click.group()
def rules() -> None:
    """Rules for events: validation, reshaping, mapping, to-profile, identification, compliance.

    Changes act within RULES_CACHE_TTL.
    """


@rules.command("list")
@click.option("--kind", type=click.Choice(RULE_KINDS), help="Only these.")
@click.option("--query", default="", metavar="TEXT", help="Only those with it in name, id, type, description or tags.")
@json_option
@with_settings
def list_rules(settings: Settings, kind: str | None, query: str, as_json: bool) -> None:
    """List the rules, in the order in which they act.

    \b
    Examples:
      tracardi-lite rules list
      tracardi-lite rules list --kind validation --query order
    """
    found = _with_registry(settings, lambda registry: registry.rules(kind or "", query))
    if as_json:
        show.as_json(found)
        return
    rows = [
        (each.kind, each.id, each.name, each.event_type or "*", each.source or "*", each.order, _yes(each.enabled))
        for each in found
    ]
    show.table(("kind", "id", "name", "event type", "source", "order", "enabled"), rows, "No rules.")


@rules.command("show")
@click.argument("id")
@kind_option
@with_settings
def show_rule(settings: Settings, id: str, kind: str | None) -> None:
    """Show a rule as JSON, which `rules add` takes.

    \b
    Example:
      tracardi-lite rules show order-has-a-total
    """
    rule = _with_registry(settings, lambda registry: _the_rule(registry, id, kind))
    click.echo(msgspec.json.format(msgspec.json.encode(rule), indent=2))


@rules.command("add")
@click.argument("file", type=TEXT_FILE)
@with_settings
def add_rules(settings: Settings, file: IO[str]) -> None:
    """Save the rules of a JSON FILE (- is standard input): one, or a list. A rule of the same kind and id is replaced.

    All of them are checked first: if one is wrong, none is saved.

    \b
    Examples:
      tracardi-lite rules add order.json
      tracardi-lite rules show r-1 | jq '.order = 5' | tracardi-lite rules add -
    """
    made = _read_rules(file)

    async def add(registry: Registry) -> None:
        desk = await _desk(settings, registry)
        for rule in made:
            try:
                desk.check(rule)
            except RuleFault as fault:
                raise click.ClickException(f"{rule.kind} rule {rule.id}: {fault}") from fault
        for rule in made:
            await registry.save_rule(rule)

    _with_registry(settings, add)
    for rule in made:
        click.echo(f"Saved {rule.kind} rule {rule.id}.")


@rules.command("enable")
@click.argument("id")
@kind_option
@with_settings
def enable_rule(settings: Settings, id: str, kind: str | None) -> None:
    """Let a disabled rule act again.

    \b
    Example:
      tracardi-lite rules enable order-has-a-total
    """
    _switch(settings, id, kind, True)


@rules.command("disable")
@click.argument("id")
@kind_option
@with_settings
def disable_rule(settings: Settings, id: str, kind: str | None) -> None:
    """Keep a rule, and let it do nothing from now on.

    \b
    Example:
      tracardi-lite rules disable order-has-a-total
    """
    _switch(settings, id, kind, False)


@rules.command("delete")
@click.argument("id")
@kind_option
@yes_option
@with_settings
def delete_rule(settings: Settings, id: str, kind: str | None, yes: bool) -> None:
    """Remove a rule, for good. Asks first.

    \b
    Example:
      tracardi-lite rules delete order-has-a-total --yes
    """
    rule = _with_registry(settings, lambda registry: _the_rule(registry, id, kind))
    if not yes:
        click.confirm(f"Delete {rule.kind} rule {rule.id} for good?", abort=True)
    _with_registry(settings, lambda registry: registry.delete_rule(rule.kind, rule.id))
    click.echo(f"Deleted {rule.kind} rule {rule.id}.")


@rules.command("try")
@click.option("--event", "event_file", type=TEXT_FILE, required=True, metavar="FILE", help="JSON; - is stdin.")
@click.option("--source", default="default", show_default=True, metavar="ID", help="From which event source it comes.")
@click.option("--profile", "profile_id", default="", metavar="ID", help="Whose it is.  [default: a new profile]")
@click.option("--rules", "rules_file", type=TEXT_FILE, metavar="FILE", help="Rules to try with the saved ones.")
@json_option
@with_settings
def try_rules(
    settings: Settings,
    event_file: IO[str],
    source: str,
    profile_id: str,
    rules_file: IO[str] | None,
    as_json: bool,
) -> None:
    """Show what the rules would do to an event, and which of them do nothing and why. Nothing is stored.

    FILE holds an event as in a call of /track: {"type", "properties", "context"}.

    \b
    Examples:
      tracardi-lite rules try --event event.json
      echo '{"type": "sign-up"}' | tracardi-lite rules try --event - --rules draft.json --json
    """
    event = _read(event_file)
    if not isinstance(event, dict):
        raise click.ClickException(f"{event_file.name}: expected an event, a JSON object.")
    drafts = _read_rules(rules_file) if rules_file is not None else []

    async def run() -> Result:
        profile: dict[str, Any] = {}
        if profile_id:
            async with runtime.store_of(settings) as store:
                record = await records.find_profile(store, profile_id)
            if record is None:
                raise click.ClickException(f"No profile {profile_id}.")
            profile = msgspec.json.decode(record.doc)
        async with registry_of(settings) as registry:
            desk = await _desk(settings, registry)
            trial = Trial(event=event, source=source, profile=profile, rules=drafts)
            return desk.dry_run(await registry.rules(), trial, SystemClock().now_ms())

    try:
        result = runtime.run(run())
    except BadInput as error:
        raise click.ClickException(_sentence(error)) from error
    if as_json:
        show.as_json(result)
        return
    rows = [(each.kind, each.id, _yes(each.matched), each.why) for each in result.rules]
    show.table(("kind", "rule", "applies", "what it did, or why not"), rows, "No rules.")
    for name in ("event", "profile"):
        changes = list(_changes(getattr(result.before, name), getattr(result.after, name)))
        click.echo("")
        show.table((name, "without rules", "with rules"), changes, f"The {name} stays as it is.")


def _changes(before: dict[str, Any], after: dict[str, Any]) -> Iterator[tuple[str, object, object]]:
    """The fields that differ."""
    old, new = dict(records.leaves(before)), dict(records.leaves(after))
    for path in sorted(old.keys() | new.keys()):
        if old.get(path) != new.get(path):
            yield path, old.get(path, ""), new.get(path, "")


async def _desk(settings: Settings, registry: Registry) -> Desk:
    custom = load_custom(settings.event_types_file) if settings.event_types_file else []
    return Desk(EventTypes(custom=custom), await compliance_key(registry), switches(settings))


async def _the_rule(registry: Registry, id: str, kind: str | None) -> Rule:
    found = [rule for rule in await registry.rules(kind or "") if rule.id == id]
    if not found:
        raise click.ClickException(f"There is no {kind + ' ' if kind else ''}rule {id}.")
    if len(found) > 1:
        kinds = ", ".join(rule.kind for rule in found)
        raise click.ClickException(f"There is more than one rule {id}; say which with --kind: {kinds}.")
    return found[0]


def _switch(settings: Settings, id: str, kind: str | None, enabled: bool) -> None:
    async def switch(registry: Registry) -> Rule:
        rule = await _the_rule(registry, id, kind)
        rule.enabled = enabled
        await registry.save_rule(rule)
        return rule

    rule = _with_registry(settings, switch)
    click.echo(f"{rule.kind} rule {rule.id} is {'enabled' if enabled else 'disabled'}.")


def _read(file: IO[str]) -> Any:
    try:
        data = file.read(FILE_CHARS_MAX + 1)
        if len(data) > FILE_CHARS_MAX:
            raise click.ClickException(f"{file.name}: larger than {FILE_CHARS_MAX} characters.")
        return msgspec.json.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise click.ClickException(f"{file.name}: no JSON: {error}") from error


def _read_rules(file: IO[str]) -> list[Rule]:
    values = _read(file)
    made = []
    for index, value in enumerate(values if isinstance(values, list) else [values]):
        try:
            made.append(msgspec.convert(value, Rule))
        except msgspec.ValidationError as error:
            raise click.ClickException(f"{file.name}: rule {index + 1}: {error}") from error
    return made


def _sentence(error: BadInput) -> str:
    if isinstance(error.detail, list):
        return "; ".join(f"{'.'.join(map(str, each['loc'][1:]))}: {each['msg']}" for each in error.detail)
    return str(error.detail)


def _yes(value: bool) -> str:
    return "yes" if value else "no"


def _with_registry(settings: Settings, work: Callable[[Registry], Awaitable[T]]) -> T:
    async def opened() -> T:
        async with registry_of(settings) as registry:
            return await work(registry)

    return runtime.run(opened())
