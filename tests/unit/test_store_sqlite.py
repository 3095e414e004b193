"""What the SQLite store promises beyond the port's contract: restarts, other processes, faults of the disk."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import subprocess
import sys
import textwrap
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tracardi_lite.backends.store.sqlite import SqliteStore, connections, lanes, open_store, rows, schema, search
from tracardi_lite.backends.store.sqlite import files as store_files
from tracardi_lite.backends.store.sqlite import where as where_sql
from tracardi_lite.errors import BadInput, Full, Misconfigured, Unavailable
from tracardi_lite.ports.store import EXISTS, SAME, STORED, Claim, Entry, Outcome, Query
from tracardi_lite.query import Compare
from tracardi_lite.query.parse import parse
from tracardi_lite.settings.schema import Settings
from tracardi_lite.testing.store_suite import NOON, by_source, event_write, ids_of, new_id, outcomes, record_write


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "store"


@pytest.fixture
async def store(folder: Path) -> AsyncIterator[SqliteStore]:
    async with SqliteStore(folder) as store:
        yield store


def integrity(file: Path) -> str:
    connection = sqlite3.connect(file)
    try:
        (answer,) = connection.execute("PRAGMA integrity_check").fetchone()
        return str(answer)
    finally:
        connection.close()


def names(folder: Path, pattern: str) -> list[str]:
    return sorted(path.name for path in folder.glob(pattern))


# --- opening ---


def test_the_url_says_where_the_files_are(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path)
    assert open_store("sqlite:", settings)._files.folder == tmp_path / "store"
    assert open_store("sqlite:///a/b%20c", settings)._files.folder == Path("/a/b c")
    assert open_store("sqlite:a", settings)._files.folder == Path("a")
    for url in ("sqlite://host/a", "sqlite://"):
        with pytest.raises(Misconfigured):
            open_store(url, settings)


async def test_a_folder_that_cannot_be_made_is_unavailable(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(Unavailable):
        await SqliteStore(tmp_path / "file" / "store").__aenter__()


async def test_everything_is_there_after_a_restart(folder: Path) -> None:
    event, write, claim = event_write(), record_write(), Claim("p:1", Entry("1", "2026-q3", "m"))
    async with SqliteStore(folder) as store:
        await store.create_events([event])
        [verdict] = await store.put([write])
        await store.claim([claim])
    async with SqliteStore(folder) as store:
        assert await store.create_events([event]) == [SAME]
        [record] = await store.get("profile", [(write.id, write.partition)])
        assert record is not None
        assert (record.doc, record.version) == (write.doc, verdict.version)
        assert await store.lookup(["p:1"]) == [claim.entry]


async def test_an_idle_store_has_no_threads_and_a_closed_one_refuses(folder: Path) -> None:
    async with SqliteStore(folder) as store:
        lane = store._writers["event"]
        assert lane._thread is None
        await store.create_events([event_write()])
        assert lane._thread is not None
    assert not lane._thread.is_alive()
    with pytest.raises(Unavailable, match="closed"):
        await store.create_events([event_write()])


@pytest.fixture
def cut_short(folder: Path) -> None:
    folder.mkdir()
    (folder / "event-2026-9.db").write_bytes(b"")


@pytest.mark.usefixtures("cut_short")
async def test_a_file_whose_making_was_cut_short_is_made_again(folder: Path) -> None:
    async with SqliteStore(folder) as store:
        assert await store.count("event") == 0
        assert await store.create_events([event_write()]) == [STORED]
        assert await store.count("event") == 1


async def test_a_file_of_a_newer_version_is_left_alone(folder: Path) -> None:
    async with SqliteStore(folder) as store:
        await store.create_events([event_write()])
    connection = sqlite3.connect(folder / "event-2026-9.db")
    connection.execute("PRAGMA user_version = 99")
    connection.close()
    async with SqliteStore(folder) as store:
        with pytest.raises(Unavailable, match="newer"):
            await store.create_events([event_write()])


async def test_files_that_are_no_partitions_are_passed_over(store: SqliteStore, folder: Path) -> None:
    await store.create_events([event_write()])
    for name in ("event-2026-9.db.corrupt-1", "event-nonsense.db", "notes.txt", "profile-2026-9.db.salvaged"):
        (folder / name).write_text("x")
    assert [info.name for info in await store.partitions()] == ["2026-9"]


# --- values ---


async def test_ids_are_compared_to_the_last_character(store: SqliteStore) -> None:
    ids = ["a", "a\0", "a\0b", "A", "ä", "a ", "'", "\x1e"]
    assert await store.create_events([event_write(id=id) for id in ids]) == [STORED] * len(ids)
    claims = [Claim(f"p:{id}", Entry(id, "2026-q3", id)) for id in ids]
    assert await store.claim(claims) == [claim.entry for claim in claims]
    assert await store.lookup([claim.key for claim in claims]) == [claim.entry for claim in claims]
    records = await store.get("event", [(id, "2026-9") for id in ids])
    assert [record.id for record in records if record] == ids


async def test_what_sqlite_cannot_hold_is_never_stored_and_sinks_nothing_else(store: SqliteStore) -> None:
    events = [event_write() for _ in range(5)]
    events[1].source = "\ud800"
    events[3].insert_ms = 1 << 70
    assert outcomes(await store.create_events(events)) == [
        Outcome.STORED,
        Outcome.NEVER,
        Outcome.STORED,
        Outcome.NEVER,
        Outcome.STORED,
    ]
    writes = [record_write() for _ in range(3)]
    writes[1].profile = "\ud800"
    assert outcomes(await store.put(writes)) == [Outcome.STORED, Outcome.NEVER, Outcome.STORED]


async def test_documents_of_any_bytes_come_back_as_they_were(store: SqliteStore) -> None:
    writes = [record_write() for _ in range(4)]
    for write, doc in zip(writes, [b"{}", b"", b"\x00\x1e\xff,1 2", "🦊".encode() * 1000], strict=True):
        write.doc = doc
    await store.put(writes)
    records = await store.get("profile", [(write.id, write.partition) for write in writes])
    assert [record.doc for record in records if record] == [write.doc for write in writes]


async def test_more_items_than_a_statement_holds_keep_their_order(store: SqliteStore) -> None:
    events = [event_write() for _ in range(rows.ROWS_MAX * 2 + 7)]
    assert await store.create_events(events[::3]) == [STORED] * len(events[::3])
    expected = [SAME if place % 3 == 0 else STORED for place in range(len(events))]
    assert await store.create_events(events) == expected
    writes = [record_write(id=event.id) for event in events]
    verdicts = await store.put(writes)
    records = await store.get("profile", [(write.id, write.partition) for write in writes])
    assert [record.version for record in records if record] == [verdict.version for verdict in verdicts]


async def test_a_document_that_is_no_json_breaks_no_search(store: SqliteStore) -> None:
    good, bad = event_write(traits={"n": 1}), event_write()
    bad.doc = b"{not json"
    await store.create_events([good, bad])
    page = await store.search("event", Query(where=Compare("traits.n", "=", 1)))
    assert ids_of(page.result) == [good.id]
    query = Query(from_ms=NOON, to_ms=NOON + 1)
    [bar] = await store.histogram("event", query, 1000, "traits.n")
    assert bar.counts == {"1": 1}


async def test_a_partition_is_only_named_by_its_own_name(store: SqliteStore) -> None:
    for call in (
        store.create_partition("event", "../2026-9"),
        store.drop_partition("event", "../2026-9"),
        store.create_partition("event", "2026-09"),
    ):
        with pytest.raises(ValueError, match="not a partition"):
            await call
    assert await store.get("event", [("a", "../2026-9"), ("a", "")]) == [None, None]


async def test_entries_into_a_dropped_partition_are_forgotten_and_aliases_are_not(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tracardi_lite.backends.store.sqlite.directory.FORGET_ROWS", 7)
    gone = [Claim(f"p:{n:02}", Entry(str(n), "2026-q3")) for n in range(40)]
    kept = [Claim(f"p:{n:02}x", Entry("1", "2026-q4" if n % 2 else "")) for n in range(40)]
    kept += [Claim("s:1", Entry("1", "2026-q3")), Claim("k:1", Entry("1", ""))]
    await store.claim(gone + kept)
    await store.put([record_write(partition="2026-q3")])
    assert await store.drop_partition("profile", "2026-q3")
    assert await store.lookup([claim.key for claim in gone]) == [None] * len(gone)
    assert await store.lookup([claim.key for claim in kept]) == [claim.entry for claim in kept]


# --- searching ---


async def test_more_partitions_than_connections_are_searched_and_written(store: SqliteStore) -> None:
    source, day = new_id(), 86_400_000
    names = [f"{2000 + n}-q1" for n in range(connections.OPEN_MAX * 2)]
    events = [event_write(source=source, partition=name, insert_ms=NOON + n * day) for n, name in enumerate(names)]
    assert await store.create_events(events) == [STORED] * len(events)
    page = await store.search("event", Query(where=by_source(source), limit=1000))
    assert ids_of(page.result) == [event.id for event in reversed(events)]
    assert await store.create_events(events) == [SAME] * len(events)


async def test_a_page_may_not_lie_too_deep(store: SqliteStore) -> None:
    with pytest.raises(BadInput):
        await store.search("event", Query(start=10**6))


async def test_a_search_that_takes_too_long_ends_and_says_so(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    await store.create_events([event_write() for _ in range(200)])
    monkeypatch.setattr(search, "_OPERATIONS", 10)
    real = search.Deadline.__init__
    monkeypatch.setattr(search.Deadline, "__init__", lambda self, closing: real(self, closing, 0.0001))
    with pytest.raises(Unavailable, match="narrow"):
        await store.search("event", Query(where=parse("traits.x: y or traits.z: w")))


@pytest.mark.parametrize(
    ("text", "index"),
    [
        ("profile.id: a", "record_profile"),
        ("profile.id: a AND type: b", "record_profile"),
        ("type: b AND session.id: s AND profile.id: a", "record_profile"),
        ("profile.id IN [a, b]", "record_profile"),
        ("type: b", "record_type"),
        ("id: a", "record_id"),
        ("metadata.time.insert >= 2026-11-01 AND metadata.time.insert < 2026-12-01", "record_at"),
    ],
)
def test_common_searches_walk_an_index(text: str, index: str) -> None:
    connection = sqlite3.connect(":memory:")
    layout = schema.LAYOUTS["event"]
    for statement in layout.tables:
        connection.execute(statement)
    where = parse(text)
    assert where is not None
    sql, values = where_sql.compiled(where, layout)
    plan = connection.execute(f"EXPLAIN QUERY PLAN SELECT count(*) FROM record WHERE {sql}", values).fetchall()
    connection.close()
    searched = [row[3] for row in plan if row[3].startswith("SEARCH record")]
    assert searched
    assert all(index in line for line in searched)


# --- faults ---


class Faulty(sqlite3.Connection):
    """Fails the statements that a test names, as SQLite itself would."""

    fail: dict[str, tuple[int, str]]
    opened: list[Faulty]
    pages_max = 0

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.opened.append(self)

    def execute(self, sql: str, parameters: Any = (), /) -> sqlite3.Cursor:
        for start, (code, text) in self.fail.items():
            if sql.startswith(start):
                error = sqlite3.OperationalError(text)
                error.sqlite_errorcode = code
                error.sqlite_errorname = "INJECTED"
                raise error
        return super().execute(sql, parameters)


@pytest.fixture
def faulty(monkeypatch: pytest.MonkeyPatch) -> type[Faulty]:
    kind = type("Fault", (Faulty,), {"fail": {}, "opened": []})
    monkeypatch.setattr(store_files.Files, "connection_class", kind)
    return kind


async def test_a_failed_sync_is_never_a_stored_and_the_next_write_succeeds(
    faulty: type[Faulty], store: SqliteStore
) -> None:
    event = event_write()
    await store.create_events([event_write()])
    faulty.fail["COMMIT"] = (sqlite3.SQLITE_IOERR | 4 << 8, "disk I/O error")
    with pytest.raises(Unavailable, match="disk I/O error"):
        await store.create_events([event])
    with pytest.raises(Unavailable):
        await store.ping()
    faulty.fail.clear()
    assert await store.create_events([event]) == [STORED]
    await store.ping()


async def test_ping_asks_the_disk_after_a_failure_however_recent_the_last_success(
    faulty: type[Faulty], store: SqliteStore
) -> None:
    await store.ping()
    faulty.fail["COMMIT"] = (sqlite3.SQLITE_IOERR, "disk I/O error")
    await store.ping()
    with pytest.raises(Unavailable):
        await store.claim([Claim("p:1", Entry("1", ""))])
    with pytest.raises(Unavailable):
        await store.ping()
    faulty.fail.clear()
    await store.ping()


async def test_a_full_disk_is_full_and_recovers_without_a_restart(faulty: type[Faulty], store: SqliteStore) -> None:
    first = event_write()
    await store.create_events([first])
    [writer] = [each for each in faulty.opened if each.execute("PRAGMA query_only").fetchone() == (0,)]
    (pages,) = writer.execute("PRAGMA page_count").fetchone()
    writer.execute(f"PRAGMA max_page_count = {pages + 2}")
    many = [event_write(traits={"x": "y" * 2000}) for _ in range(50)]
    with pytest.raises(Full) as caught:
        await store.create_events(many)
    assert caught.value.part == "disk"
    assert await store.count("event") == 1
    assert await store.create_events([first]) == [SAME]
    writer.execute("PRAGMA max_page_count = 1000000")
    assert await store.create_events(many) == [STORED] * 50


async def test_a_lock_that_is_held_too_long_is_unavailable_and_others_go_on(
    store: SqliteStore, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_files, "BUSY_S", 0.05)
    await store.create_events([event_write()])
    other = sqlite3.connect(folder / "event-2026-9.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    async with SqliteStore(folder) as impatient:
        event = event_write()
        with pytest.raises(Unavailable, match="locked"):
            await impatient.create_events([event])
        assert outcomes(await impatient.put([record_write()])) == [Outcome.STORED]
        assert await impatient.count("event") == 1
        other.execute("ROLLBACK")
        other.close()
        assert await impatient.create_events([event]) == [STORED]


async def test_a_process_that_holds_the_folders_lock_makes_openers_give_up(
    store: SqliteStore, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    held = store_files.Files(folder)
    monkeypatch.setattr(store_files, "BUSY_S", 0.03)
    with held.lock(exclusive=True), pytest.raises(Unavailable, match=r"holds \.lock"):
        await asyncio.wait_for(store.create_events([event_write()]), 5)
    assert await store.create_events([event_write()]) == [STORED]


async def test_an_error_that_is_no_fault_of_the_disk_shows_itself(faulty: type[Faulty], store: SqliteStore) -> None:
    faulty.fail["INSERT OR IGNORE INTO record"] = (sqlite3.SQLITE_ERROR, "a bug")
    with pytest.raises(sqlite3.OperationalError, match="a bug"):
        await store.create_events([event_write()])
    faulty.fail.clear()
    assert await store.create_events([event_write()]) == [STORED]


# --- group commit ---


async def test_calls_that_wait_share_a_commit(faulty: type[Faulty], store: SqliteStore) -> None:
    await store.create_events([event_write()])
    [writer] = [each for each in faulty.opened if each.execute("PRAGMA query_only").fetchone() == (0,)]
    statements: list[str] = []
    writer.set_trace_callback(statements.append)
    answers = await asyncio.gather(*(store.create_events([event_write()]) for _ in range(lanes.GROUP_MAX)))
    writer.set_trace_callback(None)
    assert answers == [[STORED]] * lanes.GROUP_MAX
    # The first may have been taken alone, before the others came.
    assert 1 <= statements.count("COMMIT") <= 2


async def test_a_call_that_fails_in_a_shared_transaction_fails_alone(store: SqliteStore) -> None:
    def bug(_: sqlite3.Connection) -> None:
        raise KeyError("bug")

    lane = store._writers["event"]
    event = event_write()
    good, bad = store.create_events([event]), lane.call("event-2026-9.db", bug)
    more = store.create_events([event_write()])
    answers = await asyncio.gather(good, bad, more, return_exceptions=True)
    assert answers[0] == [STORED]
    assert isinstance(answers[1], KeyError)
    assert answers[2] == [STORED]
    assert await store.create_events([event]) == [SAME]


async def test_too_many_waiting_calls_are_refused(store: SqliteStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lanes, "WAITING_MAX", 3)
    calls = [store.create_events([event_write()]) for _ in range(50)]
    answers = await asyncio.gather(*calls, return_exceptions=True)
    assert [STORED] in answers
    assert any(isinstance(answer, Full) for answer in answers)
    assert await store.count("event") == answers.count([STORED])


# --- several processes and handles ---

RACE = """
import asyncio, json, sys
from pathlib import Path
from tracardi_lite.backends.store.sqlite import SqliteStore
from tracardi_lite.ports.store import Claim, Entry, STORED
from tracardi_lite.testing.store_suite import event_write

async def main(folder, name):
    async with SqliteStore(Path(folder)) as store:
        stored, targets = [], {}
        for n in range(40):
            batch = [event_write(id=f"{n}-{i}", message=name) for i in range(10)]
            verdicts = await store.create_events(batch)
            stored += [event.id for event, verdict in zip(batch, verdicts) if verdict == STORED]
            claims = [Claim(f"s:{n}-{i}", Entry(name, "2026-q3", name)) for i in range(5)]
            targets.update({claim.key: entry.target for claim, entry in zip(claims, await store.claim(claims))})
        print(json.dumps([stored, targets]))

asyncio.run(main(*sys.argv[1:]))
"""


async def test_processes_agree_on_who_was_first(folder: Path, store: SqliteStore) -> None:
    processes = [
        await asyncio.create_subprocess_exec(
            sys.executable, "-c", textwrap.dedent(RACE), str(folder), name, stdout=subprocess.PIPE
        )
        for name in ("one", "two", "three")
    ]
    outputs = [json.loads((await asyncio.wait_for(process.communicate(), 60))[0]) for process in processes]
    stored = [id for ids, _ in outputs for id in ids]
    assert sorted(stored) == sorted(f"{n}-{i}" for n in range(40) for i in range(10))
    assert outputs[0][1] == outputs[1][1] == outputs[2][1]
    assert await store.count("event") == 400


async def test_dropping_while_others_write_leaves_a_sound_file_with_what_came_after(folder: Path) -> None:
    async with SqliteStore(folder) as one, SqliteStore(folder) as two, SqliteStore(folder) as three:

        async def write(store: SqliteStore) -> None:
            for _ in range(30):
                assert await store.create_events([event_write() for _ in range(5)]) == [STORED] * 5

        async def drop() -> None:
            for _ in range(15):
                await three.drop_partition("event", "2026-9")

        await asyncio.gather(write(one), write(two), drop())
        last = [event_write() for _ in range(5)]
        assert await one.create_events(last) == [STORED] * 5
        assert await two.create_events(last) == [SAME] * 5
        assert await three.create_events([event_write(id=last[0].id)]) == [EXISTS]
    assert integrity(folder / "event-2026-9.db") == "ok"
    assert names(folder, "event-*") == ["event-2026-9.db"]


async def test_a_handle_that_was_idle_during_a_drop_sees_an_empty_partition(folder: Path) -> None:
    async with SqliteStore(folder) as one, SqliteStore(folder) as two:
        event = event_write()
        await one.create_events([event])
        assert await two.count("event") == 1
        await one.drop_partition("event", "2026-9")
        assert await two.count("event") == 0
        assert await two.get("event", [(event.id, "2026-9")]) == [None]
        assert names(folder, "event-*") == []
