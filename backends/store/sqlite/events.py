"""Creating events: one statement when all are new, and looking closer only when some are not."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence

import msgspec

from tracardi_lite.backends.store.sqlite import rows
from tracardi_lite.backends.store.sqlite.schema import EVENT_COLUMNS
from tracardi_lite.ports.store import CONFLICT, EXISTS, SAME, STORED, EventWrite, Outcome, Verdict

_INSERT = f"INSERT OR IGNORE INTO record ({', '.join(EVENT_COLUMNS)}) {{rows}}"
_REWRITE = "UPDATE record SET doc = ?, profile = ? WHERE id = ? AND message = ?"
_KNOWN = """
SELECT json_group_array(json_array(place, message, seq))
FROM wanted CROSS JOIN record ON record.id = wanted.key
"""
_decode_known = msgspec.json.Decoder(list[tuple[int, str, int]]).decode

# What binding a value can raise: text that is not Unicode, numbers and documents beyond SQLite's.
UNSTORABLE = (UnicodeEncodeError, OverflowError, sqlite3.DataError)

Known = dict[int, tuple[str, int]]
"""By place in the call: the message that brought the event, and its row."""


def _row(event: EventWrite) -> tuple[object, ...]:
    return (
        event.id,
        event.insert_ms,
        event.profile,
        event.session,
        event.type,
        event.source,
        event.message,
        event.doc,
    )


def known(connection: sqlite3.Connection, ids: Sequence[str]) -> Known:
    """Which of these ids are there, by place in ``ids``."""
    found: Known = {}
    for start in range(0, len(ids), rows.ROWS_MAX):
        ((packed,),) = connection.execute(*rows.keyed(_KNOWN, ids[start : start + rows.ROWS_MAX])).fetchall()
        for place, message, seq in _decode_known(packed):
            found[start + place] = (message, seq)
    return found


def create(
    connection: sqlite3.Connection, events: Sequence[EventWrite], before: Callable[[Sequence[str]], Known]
) -> list[Verdict]:
    """Inside a transaction on the events' partition; ``before`` looks ids up in the partition before it."""
    verdicts: list[Verdict | None] = [None] * len(events)
    foreign = [place for place, event in enumerate(events) if event.foreign_id]
    if foreign:
        for index, (message, _) in before([events[place].id for place in foreign]).items():
            place = foreign[index]
            verdicts[place] = _judge(events[place], message)
    fresh = [place for place, verdict in enumerate(verdicts) if verdict is None]
    for chunk in rows.chunks(fresh):
        for place, verdict in zip(chunk, _create(connection, [events[place] for place in chunk]), strict=True):
            verdicts[place] = verdict
    return [verdict for verdict in verdicts if verdict is not None]


def _create(connection: sqlite3.Connection, events: Sequence[EventWrite]) -> list[Verdict]:
    try:
        cursor = connection.execute(*rows.padded(_INSERT, len(EVENT_COLUMNS), events, _row))
    except UNSTORABLE as error:
        if len(events) == 1:
            return [Verdict(Outcome.NEVER, f"can't be stored: {error}")]
        # Nothing of the statement was done; the bad one is found by halves, with the good ones stored in their order.
        half = len(events) // 2
        return _create(connection, events[:half]) + _create(connection, events[half:])
    stored = cursor.rowcount
    if stored == len(events):
        return [STORED] * stored
    # A statement's rows get consecutive numbers, in order, so the new ones are told from the old by theirs.
    newest = (cursor.lastrowid or 0) - stored if stored else None
    there = known(connection, [event.id for event in events])
    taken: set[str] = set()
    verdicts = []
    for place, event in enumerate(events):
        message, seq = there[place]
        if newest is not None and seq > newest and event.id not in taken:
            taken.add(event.id)
            verdicts.append(STORED)
        else:
            verdicts.append(_judge(event, message))
    return verdicts


def rewrite(connection: sqlite3.Connection, events: Sequence[EventWrite]) -> list[Verdict]:
    """Inside a transaction on the events' partition."""
    verdicts = []
    for event in events:
        changed = connection.execute(_REWRITE, (event.doc, event.profile, event.id, event.message)).rowcount
        verdicts.append(STORED if changed == 1 else CONFLICT)
    return verdicts


def _judge(event: EventWrite, message: str) -> Verdict:
    return SAME if event.message == message else EXISTS
