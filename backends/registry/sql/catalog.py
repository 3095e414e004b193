"""Event sources and redirects: what may be saved, and the statements, as functions of a connection.

A record is kept as one JSON text, so that a new field of a source needs no migration; what is searched stands in
columns beside it. ``context`` is ``production`` or ``staging``: the two have their own sources.
"""

from __future__ import annotations

import msgspec
from msgspec import Struct
from sqlalchemy import Connection, delete, select

from tracardi_lite.backends.registry.sql.database import insert_absent, upsert
from tracardi_lite.backends.registry.sql.tables import (
    ID_CHARS,
    NAME_CHARS,
    RECORD_BYTES,
    decision,
    event_redirect,
    event_source,
)
from tracardi_lite.errors import BadInput
from tracardi_lite.ports.registry import SOURCE_TYPES, EventSource, Redirect

_decode_source = msgspec.json.Decoder(EventSource).decode
_decode_redirect = msgspec.json.Decoder(Redirect).decode


def checked_source(source: EventSource) -> str:
    """The record's JSON text. Raises ``BadInput`` 422 for what can't be a source."""
    check_names(source.id, source.name)
    if source.id.startswith("@"):
        raise BadInput(422, "Ids that begin with @ are reserved for internal sources.")
    unknown = [kind for kind in source.type if kind not in SOURCE_TYPES]
    if unknown or not source.type:
        wrong = f"Unknown event source type {', '.join(unknown)}" if unknown else "An event source needs a type"
        raise BadInput(422, f"{wrong}. Known: {', '.join(SOURCE_TYPES)}.")
    return encoded(source)


def checked_redirect(redirect: Redirect) -> str:
    """The record's JSON text. Raises ``BadInput`` 422 for what can't be a redirect."""
    check_names(redirect.id, redirect.name)
    if not redirect.url.startswith(("http://", "https://")):
        raise BadInput(422, "The URL of a redirect begins with http:// or https://.")
    if any(ord(sign) < 0x21 for sign in redirect.url):
        raise BadInput(422, "The URL of a redirect has no white space or control characters.")
    if not redirect.event_type.strip():
        raise BadInput(422, "A redirect needs an event type.")
    if not redirect.source.id:
        raise BadInput(422, "A redirect needs a source id.")
    return encoded(redirect)


def check_names(id: str, name: str) -> None:
    """Raises ``BadInput`` 422 for an id or a name that the columns, a path or a terminal could not bear."""
    if not is_id(id):
        raise BadInput(422, f"An id has 1 to {ID_CHARS} characters, no control characters and no blanks around it.")
    if len(name) > NAME_CHARS:
        raise BadInput(422, f"A name has at most {NAME_CHARS} characters.")


def is_id(id: str) -> bool:
    """Only such ids are kept, and no others may be asked for: to MySQL, ``shop`` and ``shop `` are equal."""
    return 0 < len(id) <= ID_CHARS and id == id.strip() and all(ord(sign) >= 0x20 for sign in id)


def encoded(record: Struct) -> str:
    """The record's JSON text. Raises ``BadInput`` 422 for one that is too large for its column."""
    data = msgspec.json.encode(record)
    if len(data) > RECORD_BYTES:
        raise BadInput(422, f"The record is larger than {RECORD_BYTES} bytes.")
    return data.decode()


# --- sources ---


def get_source(connection: Connection, context: str, id: str) -> EventSource | None:
    if not is_id(id):
        return None
    query = select(event_source.c.record).where(event_source.c.context == context, event_source.c.id == id)
    record = connection.execute(query).scalar()
    return None if record is None else _decode_source(record)


def list_sources(connection: Connection, context: str, words: str, limit: int) -> list[EventSource]:
    """By name; with ``words``, those whose name, id, description or tags contain them, whatever the case."""
    query = select(event_source.c.record).where(event_source.c.context == context)
    if words.strip():
        query = query.where(event_source.c.search.contains(words.strip().casefold(), autoescape=True))
    query = query.order_by(event_source.c.name, event_source.c.id).limit(limit)
    return [_decode_source(record) for record in connection.execute(query).scalars()]


def save_source(connection: Connection, context: str, source: EventSource, record: str, now_ms: int) -> None:
    values = _source_values(source, record, now_ms)
    keys = {"context": context, "id": source.id}
    connection.execute(upsert(connection.dialect.name, event_source, keys | values, values))


def seed_source(
    connection: Connection, context: str, source: EventSource, record: str, now_ms: int, nonce: str
) -> bool:
    """Create it unless it was seeded before (deleted since or not) or is there; whether this call did."""
    dialect = connection.dialect.name
    name = f"seeded:{context}:{source.id}"
    connection.execute(insert_absent(dialect, decision, {"name": name, "value": nonce, "made_ms": now_ms}))
    first = connection.execute(select(decision.c.value).where(decision.c.name == name)).scalar() == nonce
    if not first or get_source(connection, context, source.id) is not None:
        return False
    values = {"context": context, "id": source.id} | _source_values(source, record, now_ms)
    connection.execute(insert_absent(dialect, event_source, values))
    return True


def _source_values(source: EventSource, record: str, now_ms: int) -> dict[str, str | int]:
    search = "\n".join((source.name, source.id, source.description, *source.tags))
    return {"name": source.name, "search": search.casefold(), "record": record, "updated_ms": now_ms}


def delete_source(connection: Connection, context: str, id: str) -> EventSource | None:
    """The source as it was; None when there was none."""
    source = get_source(connection, context, id)
    if source is not None:
        where = (event_source.c.context == context, event_source.c.id == id)
        connection.execute(delete(event_source).where(*where))
    return source


# --- redirects ---


def get_redirect(connection: Connection, context: str, id: str) -> Redirect | None:
    if not is_id(id):
        return None
    query = select(event_redirect.c.record).where(event_redirect.c.context == context, event_redirect.c.id == id)
    record = connection.execute(query).scalar()
    return None if record is None else _decode_redirect(record)


def list_redirects(connection: Connection, context: str, limit: int) -> list[Redirect]:
    query = select(event_redirect.c.record).where(event_redirect.c.context == context)
    query = query.order_by(event_redirect.c.name, event_redirect.c.id).limit(limit)
    return [_decode_redirect(record) for record in connection.execute(query).scalars()]


def save_redirect(connection: Connection, context: str, redirect: Redirect, record: str, now_ms: int) -> None:
    values = {"name": redirect.name, "record": record, "updated_ms": now_ms}
    keys = {"context": context, "id": redirect.id}
    connection.execute(upsert(connection.dialect.name, event_redirect, keys | values, values))


def delete_redirect(connection: Connection, context: str, id: str) -> bool:
    where = (event_redirect.c.context == context, event_redirect.c.id == id)
    return is_id(id) and connection.execute(delete(event_redirect).where(*where)).rowcount > 0
