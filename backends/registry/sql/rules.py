"""Rules: what may be saved, and the statements, as functions of a connection.

What a rule says is not understood here, so that a new kind of content needs neither a migration nor a new backend.
Every change makes the context's revision larger in the same transaction: who has read a revision and then the rules,
has read at least that revision's rules.
"""

from __future__ import annotations

import msgspec
from sqlalchemy import Connection, case, delete, func, select

from tracardi_lite.backends.registry.sql.catalog import check_names, encoded, is_id
from tracardi_lite.backends.registry.sql.database import upsert
from tracardi_lite.backends.registry.sql.tables import revision, rule
from tracardi_lite.errors import BadInput
from tracardi_lite.ports.registry import RULE_KINDS, RULES_MAX, Rule

PLACE_MAX = 1_000_000
"""Largest ``order``, either way; a column of 32 bits holds it."""

_decode = msgspec.json.Decoder(Rule).decode
# By kind in the order in which they act, not by the alphabet.
_KIND = case({kind: place for place, kind in enumerate(RULE_KINDS)}, value=rule.c.kind, else_=len(RULE_KINDS))


def checked_rule(made: Rule) -> str:
    """The record's JSON text. Raises ``BadInput`` 422 for what can't be a rule of any kind."""
    check_names(made.id, made.name)
    if made.kind not in RULE_KINDS:
        raise BadInput(422, f"Unknown kind of rule. Known: {', '.join(RULE_KINDS)}.")
    if not -PLACE_MAX <= made.order <= PLACE_MAX:
        raise BadInput(422, f"The order of a rule is a number from -{PLACE_MAX} to {PLACE_MAX}.")
    return encoded(made)


def get_rule(connection: Connection, context: str, kind: str, id: str) -> Rule | None:
    if kind not in RULE_KINDS or not is_id(id):
        return None
    query = select(rule.c.record).where(rule.c.context == context, rule.c.kind == kind, rule.c.id == id)
    record = connection.execute(query).scalar()
    return None if record is None else _decode(record)


def list_rules(connection: Connection, context: str, kind: str, words: str, limit: int) -> list[Rule]:
    query = select(rule.c.record).where(rule.c.context == context)
    if kind:
        query = query.where(rule.c.kind == kind)
    if words.strip():
        query = query.where(rule.c.search.contains(words.strip().casefold(), autoescape=True))
    query = query.order_by(_KIND, rule.c.place, rule.c.name, rule.c.id).limit(limit)
    return [_decode(record) for record in connection.execute(query).scalars()]


def save_rule(connection: Connection, context: str, made: Rule, record: str, now_ms: int) -> None:
    if get_rule(connection, context, made.kind, made.id) is None:
        count = connection.execute(select(func.count()).select_from(rule).where(rule.c.context == context)).scalar()
        if (count or 0) >= RULES_MAX:
            raise BadInput(409, f"There are {RULES_MAX} rules, and there can't be more. Delete one.")
    search = "\n".join((made.name, made.id, made.event_type, made.description, *made.tags)).casefold()
    values = {"name": made.name, "place": made.order, "search": search, "record": record, "updated_ms": now_ms}
    keys = {"context": context, "kind": made.kind, "id": made.id}
    connection.execute(upsert(connection.dialect.name, rule, keys | values, values))
    _advance(connection, context)


def delete_rule(connection: Connection, context: str, kind: str, id: str) -> Rule | None:
    found = get_rule(connection, context, kind, id)
    if found is not None:
        where = (rule.c.context == context, rule.c.kind == kind, rule.c.id == id)
        connection.execute(delete(rule).where(*where))
        _advance(connection, context)
    return found


def get_revision(connection: Connection, context: str) -> int:
    """0 before the first change."""
    return connection.execute(select(revision.c.number).where(revision.c.name == _name(context))).scalar() or 0


def _advance(connection: Connection, context: str) -> None:
    values = {"name": _name(context), "number": 1}
    grown = {"number": revision.c.number + 1}
    connection.execute(upsert(connection.dialect.name, revision, values, grown))


def _name(context: str) -> str:
    return f"rules:{context}"
