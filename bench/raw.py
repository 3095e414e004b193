"""The ceiling of storing: the rows that a run has stored, written again by nothing but ``executemany``.

The schema is taken from the partition's own file, so it can't drift from what the program writes, and the log is as
long as the program's: the ceiling has every advantage.
"""

from __future__ import annotations

import sqlite3
import time
from contextlib import closing
from pathlib import Path

from tracardi_lite.backends.store.sqlite import schema as store

BATCH = 500
"""Rows per commit, as in the program's flush."""
ROWS_MAX = 100_000


def partition_files(data_dir: Path) -> list[Path]:
    """The database files of event partitions: those of the right kind whose name says so."""
    return [file for file in sorted(data_dir.rglob("*event*")) if file.is_file() and _is_database(file)]


def _is_database(file: Path) -> bool:
    with file.open("rb") as opened:
        return opened.read(15) == b"SQLite format 3"


def rows_per_second(partition: Path, into: Path) -> float:
    """Copies the partition's event rows into a new file of the same schema, durably, BATCH rows per commit."""
    with closing(sqlite3.connect(f"file:{partition}?mode=ro", uri=True)) as source:
        table = _largest(source)
        columns = [row[1] for row in source.execute(f"pragma table_info({table})")]
        rows = source.execute(f"select {', '.join(columns)} from {table} limit {ROWS_MAX}").fetchall()
        schema = [sql for (sql,) in source.execute("select sql from sqlite_master where sql not null order by rowid")]
        (page_size,) = source.execute("pragma page_size").fetchone()
    with closing(sqlite3.connect(into, isolation_level=None)) as target:
        target.execute(f"pragma page_size = {page_size}")
        target.execute("pragma journal_mode = wal")
        target.execute("pragma synchronous = full")
        target.execute(f"pragma wal_autocheckpoint = {store.WAL_BYTES // page_size}")
        for statement in schema:
            target.execute(statement)
        insert = f"insert into {table} ({', '.join(columns)}) values ({', '.join('?' * len(columns))})"
        begun = time.perf_counter()
        for start in range(0, len(rows), BATCH):
            target.execute("begin immediate")
            target.executemany(insert, rows[start : start + BATCH])
            target.execute("commit")
        return len(rows) / (time.perf_counter() - begun)


def _largest(source: sqlite3.Connection) -> str:
    """The table with most rows: the events themselves."""
    tables: list[str] = [name for (name,) in source.execute("select name from sqlite_master where type = 'table'")]
    sizes = {name: source.execute(f"select count(*) from {name}").fetchone()[0] for name in tables}
    return max(sizes, key=sizes.__getitem__)
