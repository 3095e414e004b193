"""Searching one file: counts, the newest records, steps of a histogram. The store puts the files' answers together."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import msgspec
from msgspec import Struct

from tracardi_lite.backends.store.sqlite import where as where_sql
from tracardi_lite.backends.store.sqlite.schema import Layout
from tracardi_lite.backends.store.sqlite.where import Sql
from tracardi_lite.errors import Unavailable
from tracardi_lite.ports.store import Query
from tracardi_lite.query.histogram import bucket_name

SEARCH_S = 30.0
"""The longest search, over all files; a month of two million documents is read in about half of it."""

GROUPS_MAX = 1000
"""Names that a file proposes for a histogram's biggest groups; exact within a file, and over files unless a name is
beyond the thousandth in each."""

_OPERATIONS = 100_000
"""SQLite's virtual operations between two looks at the clock: some milliseconds."""

Key = tuple[int, int]
"""(time, row): newest first means greatest first."""

Group = tuple[str, str | int | float]
"""A value and its JSON type."""


class Deadline:
    """Stops a search that takes too long, or whose store is being closed."""

    def __init__(self, closing: Callable[[], bool], limit_s: float = SEARCH_S) -> None:
        self._closing = closing
        self._ends = time.monotonic() + limit_s
        self._limit_s = limit_s

    @contextmanager
    def watch(self, connection: sqlite3.Connection) -> Iterator[None]:
        self.check()
        connection.set_progress_handler(self.over, _OPERATIONS)
        try:
            yield
        except sqlite3.OperationalError:
            self.check()
            raise
        finally:
            connection.set_progress_handler(None, 0)

    def over(self) -> bool:
        return self._closing() or time.monotonic() > self._ends

    def check(self) -> None:
        if self.over():
            raise Unavailable("store", f"a search ends after {self._limit_s:.0f} s: narrow its time or its fields")


class Condition(Struct, frozen=True):
    """What follows WHERE, its parameters, and how the document is read."""

    sql: str
    values: list[object]
    doc: str


def condition(query: Query, layout: Layout, doc: str = where_sql.DOC) -> Condition:
    parts: list[str] = []
    values: list[object] = []
    for sign, bound in ((">=", query.from_ms), ("<", query.to_ms)):
        if bound is not None:
            parts.append(f"record.at_ms {sign} ?")
            values.append(bound)
    if query.where is not None:
        sql, more = where_sql.compiled(query.where, layout, doc)
        parts.append(sql)
        values += more
    return Condition(" AND ".join(parts) or "1", values, doc)


def is_malformed(error: sqlite3.Error) -> bool:
    """A document is no JSON; SQLite has no code of its own for that."""
    return "malformed JSON" in str(error)


def count(connection: sqlite3.Connection, wanted: Condition) -> int:
    (number,) = connection.execute(f"SELECT count(*) FROM record WHERE {wanted.sql}", wanted.values).fetchone()
    return int(number)


def newest(connection: sqlite3.Connection, wanted: Condition, limit: int) -> list[Key]:
    """The first ``limit`` keys, newest first."""
    sql = f"""
        SELECT json_group_array(json_array(at_ms, seq)) FROM (
            SELECT at_ms, seq FROM record WHERE {wanted.sql} ORDER BY at_ms DESC, seq DESC LIMIT ?
        )"""
    (packed,) = connection.execute(sql, [*wanted.values, limit]).fetchone()
    keys = msgspec.json.decode(packed, type=list[Key])
    return sorted(keys, reverse=True)


def documents(connection: sqlite3.Connection, seqs: Sequence[int]) -> dict[int, bytes]:
    """By row number; one that was deleted meanwhile is missing. At most a page of a thousand."""
    marks = ",".join("?" * len(seqs))
    sql = f"""
        SELECT group_concat(seq || ' ' || length(doc)), group_concat(CAST(doc AS TEXT), '')
        FROM record WHERE seq IN ({marks})"""
    sizes, packed = connection.execute(sql, list(seqs)).fetchone()
    found: dict[int, bytes] = {}
    at = 0
    for size in sizes.split(b",") if sizes else []:
        seq, length = map(int, size.split())
        found[seq] = packed[at : at + length]
        at += length
    return found


def span(connection: sqlite3.Connection) -> tuple[int, int | None, int | None]:
    """(records, first time, last time)."""
    # Apart from each other, each of the three is a walk along the index or one step to its end.
    (records,) = connection.execute("SELECT count(*) FROM record").fetchone()
    (first,) = connection.execute("SELECT min(at_ms) FROM record").fetchone()
    (last,) = connection.execute("SELECT max(at_ms) FROM record").fetchone()
    return records, first, last


def groups(connection: sqlite3.Connection, wanted: Condition, field: str, layout: Layout) -> dict[Group, int]:
    """Counts of a field's most frequent values."""
    source, values = _values(field, wanted, layout)
    sql = f"SELECT kind, value, count(*) FROM ({source}) GROUP BY 1, 2 ORDER BY 3 DESC LIMIT {GROUPS_MAX}"
    return {_group(kind, value): number for kind, value, number in connection.execute(sql, values)}


def steps(connection: sqlite3.Connection, wanted: Condition, first_ms: int, step_ms: int) -> dict[int, int]:
    """Counts by step."""
    sql = f"""
        SELECT json_group_array(json_array(step, number)) FROM (
            SELECT (record.at_ms - ?) / ? AS step, count(*) AS number FROM record WHERE {wanted.sql} GROUP BY 1
        )"""
    (packed,) = connection.execute(sql, [first_ms, step_ms, *wanted.values]).fetchone()
    return dict(msgspec.json.decode(packed, type=list[tuple[int, int]]))


def grouped_steps(
    connection: sqlite3.Connection,
    wanted: Condition,
    first_ms: int,
    step_ms: int,
    field: str,
    among: Sequence[Group],
    layout: Layout,
) -> dict[tuple[int, Group], int]:
    """Counts by step and value, of these values only."""
    source, values = _values(field, wanted, layout)
    marks = ",".join(["(?, ?, ?)"] * len(among))
    sql = f"""
        WITH chosen (place, kind, value) AS (VALUES {marks})
        SELECT json_group_array(json_array(step, place, number)) FROM (
            SELECT (found.at_ms - ?) / ? AS step, place, count(*) AS number FROM ({source}) AS found
            JOIN chosen ON chosen.kind = found.kind AND chosen.value = found.value GROUP BY 1, 2
        )"""
    chosen = [part for place, group in enumerate(among) for part in (place, *group)]
    (packed,) = connection.execute(sql, [*chosen, first_ms, step_ms, *values]).fetchone()
    counts = msgspec.json.decode(packed, type=list[tuple[int, int, int]])
    return {(step, among[place]): number for step, place, number in counts}


def group_name(group: Group) -> str | None:
    """The bucket of a value as SQLite gives it."""
    kind, value = group
    return bucket_name(value == 1 if kind in ("true", "false") else value)


def _values(field: str, wanted: Condition, layout: Layout) -> Sql:
    """A source of ``at_ms``, ``kind`` (JSON type) and ``value``: each value of a field once per record."""
    if field in layout.columns:
        column = f"record.{layout.columns[field]}"
        sql = f"SELECT at_ms, 'text' AS kind, {column} AS value FROM record WHERE {column} IS NOT NULL AND {wanted.sql}"
        return sql, list(wanted.values)
    sql = f"""
        SELECT DISTINCT record.seq, record.at_ms, item.type AS kind, item.value AS value
        FROM record, json_each({wanted.doc}, ?) AS item
        WHERE typeof(item.key) <> 'text' AND item.type IN ('text', 'integer', 'real', 'true', 'false')
        AND {wanted.sql}"""
    return sql, [where_sql.json_path(field), *wanted.values]


def _group(kind: bytes, value: bytes | int | float) -> Group:
    # Text comes as bytes from a reading connection.
    return kind.decode(), value.decode("utf-8", "replace") if isinstance(value, bytes) else value
