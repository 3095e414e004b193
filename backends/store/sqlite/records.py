"""Profiles and sessions: read by id, and written by compare-and-set.

A version is a random number, new with each write. After a statement that did not change as many rows as it was given,
the version in the file says which of them are ours; and a record that was deleted and made anew never has the version
that an old reader remembers.
"""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Sequence

from msgspec import Struct

from tracardi_lite.backends.store.sqlite import rows
from tracardi_lite.backends.store.sqlite.events import UNSTORABLE
from tracardi_lite.backends.store.sqlite.schema import RECORD_COLUMNS
from tracardi_lite.ports.store import CONFLICT, Outcome, Record, RecordWrite, Verdict

_INSERT = f"INSERT OR IGNORE INTO record ({', '.join(RECORD_COLUMNS)}) {{rows}}"
# The columns of VALUES: id, at_ms, new version, profile, doc, old version.
_UPDATE = """
UPDATE record SET at_ms = new.column2, version = new.column3, profile = new.column4, doc = new.column5
FROM ({rows}) AS new
WHERE record.id = new.column1 AND record.version = new.column6
"""
_VERSIONS = """
SELECT group_concat(place || ' ' || version)
FROM wanted CROSS JOIN record ON record.id = wanted.key
"""
# Documents are packed end to end, cut apart by their lengths in bytes: whatever is in them, it can't be mistaken.
_READ = """
SELECT group_concat(place || ' ' || length(doc) || ' ' || coalesce({version}, '')), group_concat(CAST(doc AS TEXT), '')
FROM wanted CROSS JOIN record ON record.id = wanted.key
"""


def put(connection: sqlite3.Connection, writes: Sequence[RecordWrite]) -> list[Verdict]:
    """Inside a transaction on the records' partition."""
    verdicts: list[Verdict] = [CONFLICT] * len(writes)
    new = [place for place, write in enumerate(writes) if write.version is None]
    # What is no number was never a version of this store's.
    old = [place for place, write in enumerate(writes) if isinstance(write.version, int)]
    for places, template in ((new, _INSERT), (old, _UPDATE)):
        for chunk in rows.chunks(places):
            found = _put(connection, template, [writes[place] for place in chunk])
            for place, verdict in zip(chunk, found, strict=True):
                verdicts[place] = verdict
    return verdicts


def _put(connection: sqlite3.Connection, template: str, writes: Sequence[RecordWrite]) -> list[Verdict]:
    versions = [random.getrandbits(62) for _ in writes]
    fresh = iter(versions)

    def row(write: RecordWrite) -> tuple[object, ...]:
        if template is _INSERT:
            return write.id, write.update_ms, next(fresh), write.profile, write.doc
        return write.id, write.update_ms, next(fresh), write.profile, write.doc, write.version

    columns = len(RECORD_COLUMNS) + (template is _UPDATE)
    try:
        changed = connection.execute(*rows.padded(template, columns, writes, row)).rowcount
    except UNSTORABLE as error:
        if len(writes) == 1:
            return [Verdict(Outcome.NEVER, f"can't be stored: {error}")]
        half = len(writes) // 2
        return _put(connection, template, writes[:half]) + _put(connection, template, writes[half:])
    stored = [Verdict(Outcome.STORED, version=version) for version in versions]
    if changed == len(writes):
        return stored
    ((packed,),) = connection.execute(*rows.keyed(_VERSIONS, [write.id for write in writes])).fetchall()
    there: dict[int, int] = {}
    for pair in packed.split(",") if packed else []:
        place, _, version = pair.partition(" ")
        there[int(place)] = int(version)
    return [verdict if there.get(place) == verdict.version else CONFLICT for place, verdict in enumerate(stored)]


class Read(Struct, frozen=True):
    """Reading by id from one partition: a call to make with a reading connection (text as bytes)."""

    partition: str
    ids: Sequence[str]
    version: str
    """The layout's expression."""

    def __call__(self, connection: sqlite3.Connection) -> list[Record | None]:
        """In the order of the ids."""
        found: list[Record | None] = []
        template = _READ.replace("{version}", self.version)
        for chunk in rows.chunks(self.ids):
            ((sizes, docs),) = connection.execute(*rows.keyed(template, chunk)).fetchall()
            records: list[Record | None] = [None] * len(chunk)
            at = 0
            for size in sizes.split(b",") if sizes else []:
                place, length, version = size.split(b" ")
                end = at + int(length)
                id = chunk[int(place)]
                records[int(place)] = Record(id, self.partition, docs[at:end], int(version) if version else None)
                at = end
            found += records
        return found
