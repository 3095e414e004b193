"""The directory's statements: entries by key, claimed create-if-absent, repointed by compare-and-set."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

import msgspec
from msgspec import Struct

from tracardi_lite.backends.store.sqlite import rows
from tracardi_lite.ports.store import Claim, Entry, Kind

_CLAIM = "INSERT OR IGNORE INTO entry (key, target, partition, message) {rows}"
_LOOKUP = """
SELECT json_group_array(json_array(place, target, partition, message))
FROM wanted CROSS JOIN entry ON entry.key = wanted.key
"""
_SAME = "key = ? AND target = ? AND partition = ? AND message = ?"
_decode_entries = msgspec.json.Decoder(list[tuple[int, str, str, str]]).decode

FORGET_ROWS = 20_000
"""Entries that one transaction of ``Forget`` looks at: some 10 ms, in which claims wait."""


def lookup(connection: sqlite3.Connection, keys: Sequence[str]) -> list[Entry | None]:
    found: list[Entry | None] = [None] * len(keys)
    for start in range(0, len(keys), rows.ROWS_MAX):
        chunk = keys[start : start + rows.ROWS_MAX]
        ((packed,),) = connection.execute(*rows.keyed(_LOOKUP, chunk)).fetchall()
        for place, target, partition, message in _decode_entries(packed):
            found[start + place] = Entry(target, partition, message)
    return found


def claim(connection: sqlite3.Connection, claims: Sequence[Claim]) -> list[Entry]:
    """Inside a transaction."""
    held: list[Entry] = []
    for chunk in rows.chunks(claims):
        made = connection.execute(*rows.padded(_CLAIM, 4, chunk, _row)).rowcount
        if made == len(chunk):
            held += [claim.entry for claim in chunk]
            continue
        for entry in lookup(connection, [claim.key for claim in chunk]):
            assert entry is not None, "each key was there or has been made, in this transaction"
            held.append(entry)
    return held


def _row(claim: Claim) -> tuple[object, ...]:
    entry = claim.entry
    return claim.key, entry.target, entry.partition, entry.message


def repoint(connection: sqlite3.Connection, key: str, expected: Entry, entry: Entry | None) -> bool:
    """Inside a transaction."""
    same = (key, expected.target, expected.partition, expected.message)
    if entry is None:
        return connection.execute(f"DELETE FROM entry WHERE {_SAME}", same).rowcount == 1
    new = (entry.target, entry.partition, entry.message)
    sql = f"UPDATE entry SET target = ?, partition = ?, message = ? WHERE {_SAME}"
    return connection.execute(sql, (*new, *same)).rowcount == 1


def remove_own(connection: sqlite3.Connection, kind: Kind, id: str) -> bool:
    """Remove the entry of a deleted record. An alias has no record of its own and stays: it must resolve for ever."""
    sql = "DELETE FROM entry WHERE key = ? AND partition <> ''"
    return connection.execute(sql, (f"{kind[0]}:{id}",)).rowcount == 1


class Forget(Struct, frozen=True):
    """One step of removing the entries of a dropped partition: a call to make inside a transaction."""

    kind: Kind
    partition: str
    after: str

    def __call__(self, connection: sqlite3.Connection) -> str | None:
        """Looks at the next ``FORGET_ROWS`` keys; where to go on, None at the end."""
        first = max(self.after, f"{self.kind[0]}:")
        beyond = f"{self.kind[0]};"  # the character after the colon
        last = connection.execute(
            "SELECT key FROM entry WHERE key > ? AND key < ? ORDER BY key LIMIT 1 OFFSET ?",
            (first, beyond, FORGET_ROWS - 1),
        ).fetchone()
        connection.execute(
            "DELETE FROM entry WHERE key > ? AND key < ? AND key <= ? AND partition = ?",
            (first, beyond, last[0] if last else beyond, self.partition),
        )
        return last[0] if last else None


def probe(connection: sqlite3.Connection, now_ms: int) -> None:
    """Inside a transaction: a smallest real write."""
    connection.execute("INSERT OR REPLACE INTO probe (id, at_ms) VALUES (1, ?)", (now_ms,))
