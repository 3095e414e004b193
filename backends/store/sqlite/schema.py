"""What stands in the store's files: one table per file, and why its columns, indexes and pragmas are what they are.

Measured with 1.4 KB documents, 200 k to 700 k rows, on a disk with 3 ms per fsync (rows/s of raw ``executemany`` in
transactions of 500 and 2000):

* A rowid table with a unique index on the id, 28 000; ``WITHOUT ROWID``, 8 500: random ids then move whole documents.
* Ids that grow with time, 75 000; random ids, 22 000 at 700 k rows and falling: each row then touches a page of its own
  in the id's index. Nothing here can change that, so the program derives its own ids in an order (``protocol.ids``).
* Pages of 8 KiB for events: with growing ids as fast as 16 KiB, and documents need no overflow pages; with random ids
  as fast as 4 KiB. For profiles and sessions 4 KiB: an update writes its whole page, 18 000 updates/s against 10 000.
* A checkpoint every 32 MiB: 50 % faster than the default of 4 MiB, as an index page is written back once.
* An index on the type costs less than can be measured here: its few values keep to a few pages.
* An index on the session costs 13 % more CPU than it is worth: sessions are looked for with their profile.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from msgspec import Struct

from tracardi_lite import partitioning
from tracardi_lite.ports.store import Kind

DIRECTORY = "directory.db"
VERSION = 1
"""``PRAGMA user_version`` of a complete file; 0 is one whose making was cut short."""

WAL_BYTES = 32 << 20
"""The log is copied into the file when it holds this much; a multiple of it is what a crash leaves to recover."""


class Layout(Struct, frozen=True):
    """What tells one kind of file from another, for the code that serves all of them."""

    tables: tuple[str, ...]
    page_bytes: int
    cache_kib: int
    """Page cache of a writing connection. Reading ones keep SQLite's own 2 MiB: the kernel caches the rest."""
    version: str = "NULL"
    """The expression for ``Record.version``."""
    columns: Mapping[str, str] = {}
    """Dot paths of the document that have a text column of their own, equal to what the document says."""
    time: str = ""
    """The dot path whose time is the column ``at_ms``, cut to milliseconds."""


EVENT_COLUMNS = ("id", "at_ms", "profile", "session", "type", "source", "message", "doc")
RECORD_COLUMNS = ("id", "at_ms", "version", "profile", "doc")

_EVENTS = Layout(
    tables=(
        """CREATE TABLE record (
            seq INTEGER PRIMARY KEY,
            id TEXT NOT NULL,
            at_ms INTEGER NOT NULL,
            profile TEXT,
            session TEXT,
            type TEXT NOT NULL,
            source TEXT NOT NULL,
            message TEXT NOT NULL,
            doc BLOB NOT NULL
        )""",
        "CREATE UNIQUE INDEX record_id ON record (id)",
        "CREATE INDEX record_at ON record (at_ms)",
        # Before the profile's: of two that would do SQLite takes the later, and a profile has fewer events than a type.
        "CREATE INDEX record_type ON record (type, at_ms)",
        "CREATE INDEX record_profile ON record (profile, at_ms)",
    ),
    page_bytes=8192,
    cache_kib=16384,
    columns={
        "id": "id",
        "type": "type",
        "profile.id": "profile",
        "session.id": "session",
        "source.id": "source",
        "metadata.aux.message": "message",
    },
    time="metadata.time.insert",
)
_RECORD = """CREATE TABLE record (
    seq INTEGER PRIMARY KEY,
    id TEXT NOT NULL,
    at_ms INTEGER NOT NULL,
    version INTEGER NOT NULL,
    profile TEXT,
    doc BLOB NOT NULL
)"""
_PROFILES = Layout(
    tables=(
        _RECORD,
        "CREATE UNIQUE INDEX record_id ON record (id)",
        "CREATE INDEX record_at ON record (at_ms)",
    ),
    page_bytes=4096,
    cache_kib=8192,
    version="version",
    columns={"id": "id"},
    time="metadata.time.update",
)
_SESSIONS = Layout(
    tables=(*_PROFILES.tables, "CREATE INDEX record_profile ON record (profile, at_ms)"),
    page_bytes=4096,
    cache_kib=8192,
    version="version",
    columns={"id": "id", "profile.id": "profile"},
    time="metadata.time.update",
)
_DIRECTORY = Layout(
    tables=(
        """CREATE TABLE entry (
            key TEXT PRIMARY KEY,
            target TEXT NOT NULL,
            partition TEXT NOT NULL,
            message TEXT NOT NULL
        ) WITHOUT ROWID""",
        # The one row that ping() writes, to know that a write would succeed.
        "CREATE TABLE probe (id INTEGER PRIMARY KEY CHECK (id = 1), at_ms INTEGER NOT NULL)",
    ),
    page_bytes=4096,
    cache_kib=8192,
)
LAYOUTS: Mapping[Kind, Layout] = {"event": _EVENTS, "profile": _PROFILES, "session": _SESSIONS}

_FILE = re.compile(r"(event|profile|session)-(.+)\.db")


def file_name(kind: Kind, partition: str) -> str:
    """``partition`` is checked: ValueError for what is not a partition's name (it may come from a request)."""
    partitioning.starts_ms(partition)
    return f"{kind}-{partition}.db"


def partition_of_file(kind: Kind, name: str) -> str | None:
    """The partition whose file it is; None for any other file."""
    match = _FILE.fullmatch(name)
    if match is None or match[1] != kind or not partitioning.is_name(match[2]):
        return None
    return match[2]


def layout_of(name: str) -> Layout:
    """The layout of a file by its name (the kind is what stands before the first hyphen)."""
    if name == DIRECTORY:
        return _DIRECTORY
    match name.partition("-")[0]:
        case "event":
            return _EVENTS
        case "profile":
            return _PROFILES
        case "session":
            return _SESSIONS
    raise ValueError(f"not a file of the store: {name}")
