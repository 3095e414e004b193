"""What every store owes, as tests: subclass ``StoreSuite`` in a test module and give it a ``store`` fixture.

    class TestMyStore(StoreSuite):
        @pytest.fixture
        async def store(self) -> AsyncIterator[Store]:
            async with open_store("mine://…", settings) as store:
                yield store

A store that several processes share also gives ``other``: a second, separately opened handle on the same records.
The suite never assumes an empty store: ids, sources and partitions are random, so that it runs against a server
that other things use. It writes documents of the records' own shape only. Needs pytest and pytest-asyncio (auto mode).
"""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import uuid4

import pytest

from tracardi_lite.errors import BadInput
from tracardi_lite.ports.store import (
    CONFLICT,
    EXISTS,
    SAME,
    STORED,
    Claim,
    Entry,
    EventWrite,
    Kind,
    Outcome,
    Query,
    RecordWrite,
    Store,
    Verdict,
    rewriting_of,
)
from tracardi_lite.protocol.documents import decode_document
from tracardi_lite.query import And, Compare, Exists, Not, Or, Where

NOON = 1_790_078_400_000
"""2026-09-22T12:00:00Z: the time of a record that does not care about its own."""


def new_id() -> str:
    return str(uuid4())


def iso(at_ms: int) -> str:
    return datetime.fromtimestamp(at_ms / 1000, UTC).isoformat()


def event_write(
    *,
    id: str | None = None,
    partition: str = "2026-9",
    message: str | None = None,
    type: str = "page-view",
    source: str = "suite",
    session: str | None = None,
    profile: str | None = None,
    insert_ms: int = NOON,
    foreign_id: bool = False,
    tags: Sequence[str] = (),
    traits: dict[str, Any] | None = None,
    properties: dict[str, Any] | None = None,
) -> EventWrite:
    """An event and a document that agree with each other."""
    id = id or new_id()
    message = message or new_id()
    doc = {
        "id": id,
        "name": type.replace("-", " ").capitalize(),
        "type": type,
        "metadata": {"aux": {"message": message}, "time": {"insert": iso(insert_ms)}},
        "source": {"id": source},
        "session": {"id": session} if session else None,
        "profile": {"id": profile} if profile else None,
        "properties": properties or {},
        "traits": traits or {},
        "tags": {"values": list(tags), "count": len(tags)},
    }
    return EventWrite(
        id=id,
        partition=partition,
        doc=json.dumps(doc, ensure_ascii=False).encode(),
        message=message,
        type=type,
        source=source,
        session=session,
        profile=profile,
        insert_ms=insert_ms,
        foreign_id=foreign_id,
    )


def record_write(
    kind: Kind = "profile",
    *,
    id: str | None = None,
    partition: str = "2026-q3",
    version: Any = None,
    update_ms: int = NOON,
    profile: str | None = None,
    traits: dict[str, Any] | None = None,
) -> RecordWrite:
    """A profile or session and a document that agree with each other."""
    id = id or new_id()
    doc: dict[str, Any] = {"id": id, "metadata": {"time": {"update": iso(update_ms)}}, "traits": traits or {}}
    if kind == "session":
        doc["profile"] = {"id": profile} if profile else None
    return RecordWrite(
        kind=kind,
        id=id,
        partition=partition,
        doc=json.dumps(doc, ensure_ascii=False).encode(),
        version=version,
        update_ms=update_ms,
        profile=profile,
    )


def traits_of(doc: bytes) -> dict[str, Any]:
    traits: dict[str, Any] = json.loads(doc)["traits"]
    return traits


def ids_of(docs: Sequence[bytes]) -> list[str]:
    return [json.loads(doc)["id"] for doc in docs]


def by_source(source: str, *terms: Where) -> Where:
    return And((Compare("source.id", "=", source), *terms))


class StoreSuite:
    """The contract of ``tracardi_lite.ports.store``, sentence by sentence."""

    @pytest.fixture
    async def store(self) -> AsyncIterator[Store]:
        raise NotImplementedError("a subclass gives the store")
        yield  # type: ignore[unreachable]

    @pytest.fixture
    async def other(self, store: Store) -> Store:
        """A second handle on the same records; the same one where a process is all there is."""
        return store

    # --- events ---

    async def test_a_created_event_is_stored_and_read_back_byte_for_byte(self, store: Store, other: Store) -> None:
        event = event_write(properties={"name": "Zażółć 🦊", "n": [1, 2.5, None, True]})
        assert await store.create_events([event]) == [STORED]
        [record] = await other.get("event", [(event.id, event.partition)])
        assert record is not None
        assert json.loads(record.doc) == json.loads(event.doc)
        assert (record.id, record.partition) == (event.id, event.partition)

    async def test_no_events_need_no_work(self, store: Store) -> None:
        assert await store.create_events([]) == []
        assert await store.put([]) == []
        assert await store.get("event", []) == []
        assert await store.lookup([]) == []
        assert await store.claim([]) == []

    async def test_a_redelivered_event_is_the_same_and_is_not_written_again(self, store: Store, other: Store) -> None:
        event = event_write(traits={"n": 1})
        await store.create_events([event])
        again = event_write(id=event.id, message=event.message, traits={"n": 2})
        assert await other.create_events([again]) == [SAME]
        [record] = await store.get("event", [(event.id, event.partition)])
        assert record is not None
        assert traits_of(record.doc) == {"n": 1}

    async def test_another_messages_event_with_the_id_is_a_duplicate(self, store: Store, other: Store) -> None:
        event = event_write(traits={"n": 1})
        await store.create_events([event])
        assert await other.create_events([event_write(id=event.id, traits={"n": 2})]) == [EXISTS]
        [record] = await store.get("event", [(event.id, event.partition)])
        assert record is not None
        assert traits_of(record.doc) == {"n": 1}

    async def test_verdicts_come_in_the_order_of_the_items(self, store: Store) -> None:
        first, second = event_write(), event_write()
        await store.create_events([first, second])
        fresh = [event_write() for _ in range(5)]
        duplicate = event_write(id=second.id)
        verdicts = await store.create_events([fresh[0], first, fresh[1], duplicate, *fresh[2:]])
        assert verdicts == [STORED, SAME, STORED, EXISTS, STORED, STORED, STORED]

    async def test_of_two_events_with_one_id_in_a_call_the_first_wins(self, store: Store) -> None:
        first = event_write(traits={"n": 1})
        same = event_write(id=first.id, message=first.message, traits={"n": 2})
        other_message = event_write(id=first.id, traits={"n": 3})
        assert await store.create_events([first, same, other_message]) == [STORED, SAME, EXISTS]
        [record] = await store.get("event", [(first.id, first.partition)])
        assert record is not None
        assert traits_of(record.doc) == {"n": 1}

    async def test_a_clients_id_is_found_in_the_partition_before(self, store: Store) -> None:
        event = event_write(partition="2026-9", foreign_id=True)
        await store.create_events([event])
        late = event_write(id=event.id, partition="2026-10", foreign_id=True)
        redelivered = event_write(id=event.id, message=event.message, partition="2026-10", foreign_id=True)
        assert await store.create_events([late, redelivered]) == [EXISTS, SAME]
        assert await store.get("event", [(event.id, "2026-10")]) == [None]

    async def test_a_clients_id_twice_in_a_call_over_midnight_becomes_one_event(self, store: Store) -> None:
        event = event_write(partition="2026-9", foreign_id=True)
        late = event_write(id=event.id, partition="2026-10", foreign_id=True)
        assert await store.create_events([event, late]) == [STORED, EXISTS]

    async def test_one_call_may_write_to_several_partitions(self, store: Store) -> None:
        events = [event_write(partition=name) for name in ("2026-9", "2026-10", "2026-9", "2025-12")]
        assert await store.create_events(events) == [STORED] * 4
        records = await store.get("event", [(event.id, event.partition) for event in events])
        assert [record.id for record in records if record] == [event.id for event in events]

    async def test_a_name_that_is_no_partitions_is_never_stored_and_does_not_sink_the_others(
        self, store: Store
    ) -> None:
        good = event_write()
        verdicts = await store.create_events([event_write(partition="../etc"), good])
        assert [verdict.outcome for verdict in verdicts] == [Outcome.NEVER, Outcome.STORED]
        assert "../etc" in verdicts[0].reason
        [verdict] = await store.put([record_write(partition="2026-99")])
        assert verdict.outcome is Outcome.NEVER

    async def test_many_callers_at_once_create_each_event_once(self, store: Store, other: Store) -> None:
        ids = [new_id() for _ in range(40)]
        batches = [[event_write(id=id) for id in random.sample(ids, len(ids))] for _ in range(8)]
        answers = await asyncio.gather(
            *(handle.create_events(batch) for handle, batch in zip([store, other] * 4, batches, strict=True))
        )
        outcomes = [
            (event.id, verdict)
            for batch, got in zip(batches, answers, strict=True)
            for event, verdict in zip(batch, got, strict=True)
        ]
        assert sorted(id for id, verdict in outcomes if verdict == STORED) == sorted(ids)
        assert {verdict.outcome for _, verdict in outcomes} == {Outcome.STORED, Outcome.EXISTS}

    # --- profiles and sessions ---

    @pytest.mark.parametrize("kind", ["profile", "session"])
    async def test_a_record_is_stored_whole_and_read_back(self, store: Store, other: Store, kind: Kind) -> None:
        write = record_write(kind, profile="p-1", traits={"name": "Ægir"})
        [verdict] = await store.put([write])
        assert verdict.outcome is Outcome.STORED
        [record] = await other.get(kind, [(write.id, write.partition)])
        assert record is not None
        assert json.loads(record.doc) == json.loads(write.doc)
        assert record.version == verdict.version

    async def test_the_verdicts_version_writes_again_without_reading(self, store: Store, other: Store) -> None:
        write = record_write(traits={"n": 1})
        [first] = await store.put([write])
        [second] = await store.put([record_write(id=write.id, version=first.version, traits={"n": 2})])
        assert second.outcome is Outcome.STORED
        assert second.version != first.version
        [record] = await other.get("profile", [(write.id, write.partition)])
        assert record is not None
        assert traits_of(record.doc) == {"n": 2}
        assert record.version == second.version

    async def test_a_record_that_exists_is_not_created_again(self, store: Store, other: Store) -> None:
        write = record_write(traits={"n": 1})
        await store.put([write])
        assert await other.put([record_write(id=write.id, traits={"n": 2})]) == [CONFLICT]

    async def test_an_old_version_is_a_conflict_and_changes_nothing(self, store: Store, other: Store) -> None:
        write = record_write(traits={"n": 1})
        [first] = await store.put([write])
        [second] = await other.put([record_write(id=write.id, version=first.version, traits={"n": 2})])
        assert await store.put([record_write(id=write.id, version=first.version, traits={"n": 3})]) == [CONFLICT]
        [record] = await store.get("profile", [(write.id, write.partition)])
        assert record is not None
        assert traits_of(record.doc) == {"n": 2}
        assert record.version == second.version

    async def test_a_record_that_is_gone_is_not_brought_back_by_a_stale_write(self, store: Store, other: Store) -> None:
        write = record_write()
        [first] = await store.put([write])
        assert await other.delete("profile", write.id)
        assert await store.put([record_write(id=write.id, version=first.version)]) == [CONFLICT]
        assert await store.get("profile", [(write.id, write.partition)]) == [None]

    async def test_a_record_made_anew_is_not_overwritten_with_the_old_ones_version(self, store: Store) -> None:
        write = record_write()
        [first] = await store.put([write])
        await store.delete("profile", write.id)
        await store.put([record_write(id=write.id, traits={"n": 2})])
        assert await store.put([record_write(id=write.id, version=first.version)]) == [CONFLICT]

    async def test_one_call_mixes_new_records_updates_conflicts_and_kinds(self, store: Store) -> None:
        old, stale = record_write(), record_write("session", profile="p")
        [known] = await store.put([old])
        [before] = await store.put([stale])
        await store.put([record_write("session", id=stale.id, version=before.version, profile="p")])
        verdicts = await store.put(
            [
                record_write(),
                record_write("session", id=stale.id, version=before.version, profile="p"),
                record_write(id=old.id, version=known.version),
                record_write("session", partition="2026-q4", profile="p"),
                record_write(id=old.id),
            ]
        )
        assert [verdict.outcome for verdict in verdicts] == [
            Outcome.STORED,
            Outcome.CONFLICT,
            Outcome.STORED,
            Outcome.STORED,
            Outcome.CONFLICT,
        ]

    async def test_of_many_writers_with_one_version_one_wins(self, store: Store, other: Store) -> None:
        write = record_write()
        [first] = await store.put([write])
        writers = [record_write(id=write.id, version=first.version, traits={"n": n}) for n in range(10)]
        answers = await asyncio.gather(
            *(handle.put([each]) for handle, each in zip([store, other] * 5, writers, strict=True))
        )
        won = [n for n, [verdict] in enumerate(answers) if verdict.outcome is Outcome.STORED]
        assert len(won) == 1
        [record] = await other.get("profile", [(write.id, write.partition)])
        assert record is not None
        assert traits_of(record.doc) == {"n": won[0]}

    async def test_counting_by_compare_and_set_loses_nothing(self, store: Store, other: Store) -> None:
        write = record_write(traits={"n": 0})
        await store.put([write])

        async def add(handle: Store) -> None:
            for _ in range(100):
                [record] = await handle.get("profile", [(write.id, write.partition)])
                assert record is not None
                n = traits_of(record.doc)["n"] + 1
                [verdict] = await handle.put([record_write(id=write.id, version=record.version, traits={"n": n})])
                if verdict.outcome is Outcome.STORED:
                    return
            raise AssertionError("never won")

        await asyncio.gather(*(add(handle) for handle in [store, other] * 5))
        [record] = await store.get("profile", [(write.id, write.partition)])
        assert record is not None
        assert traits_of(record.doc) == {"n": 10}

    async def test_get_answers_none_for_what_is_not_there_in_order(self, store: Store) -> None:
        write = record_write()
        await store.put([write])
        keys = [(new_id(), "2026-q3"), (write.id, "2026-q3"), (write.id, "2026-q2"), (write.id, "2026-q3")]
        records = await store.get("profile", keys)
        assert [record.id if record else None for record in records] == [None, write.id, None, write.id]

    async def test_a_kind_is_not_another(self, store: Store) -> None:
        write = record_write("profile")
        await store.put([write])
        assert await store.get("session", [(write.id, write.partition)]) == [None]
        assert await store.find("session", write.id) is None

    # --- the directory ---

    async def test_a_claim_makes_the_entry_and_every_handle_sees_it_at_once(self, store: Store, other: Store) -> None:
        key, entry = f"s:{new_id()}", Entry("profile-1", "2026-q3", "message-1")
        assert await other.lookup([key]) == [None]
        assert await store.claim([Claim(key, entry)]) == [entry]
        assert await other.lookup([key]) == [entry]

    async def test_a_second_claim_gets_the_first_ones_entry(self, store: Store, other: Store) -> None:
        key, first = f"p:{new_id()}", Entry("a", "2026-q3", "m1")
        await store.claim([Claim(key, first)])
        assert await other.claim([Claim(key, Entry("b", "2026-q4", "m2"))]) == [first]

    async def test_claims_are_judged_each_by_itself_in_order(self, store: Store) -> None:
        taken, free = f"k:{new_id()}", f"k:{new_id()}"
        held = Entry("a", "", "m1")
        await store.claim([Claim(taken, held)])
        mine = Entry("b", "", "m2")
        claims = [Claim(taken, mine), Claim(free, mine), Claim(free, Entry("c", "", "m3"))]
        assert await store.claim(claims) == [held, mine, mine]

    async def test_of_many_claimants_one_wins_and_all_learn_who(self, store: Store, other: Store) -> None:
        key = f"s:{new_id()}"
        answers = await asyncio.gather(
            *(
                handle.claim([Claim(key, Entry(f"p{n}", "2026-q3", f"m{n}"))])
                for n, handle in enumerate([store, other] * 5)
            )
        )
        assert all(answer == answers[0] for answer in answers)
        assert await other.lookup([key]) == answers[0]

    async def test_many_keys_are_claimed_and_looked_up_in_one_call(self, store: Store) -> None:
        claims = [Claim(f"p:{new_id()}", Entry(str(n), "2026-q3", "m")) for n in range(700)]
        assert await store.claim(claims) == [claim.entry for claim in claims]
        keys = [claim.key for claim in claims]
        assert await store.lookup([*keys, "p:none", keys[0]]) == [
            *(claim.entry for claim in claims),
            None,
            claims[0].entry,
        ]

    async def test_an_entry_is_repointed_only_from_what_was_expected(self, store: Store, other: Store) -> None:
        key, old, new = f"p:{new_id()}", Entry("a", "2026-q3", "m1"), Entry("b", "", "m2")
        await store.claim([Claim(key, old)])
        assert not await other.repoint(key, new, old)
        assert await other.repoint(key, old, new)
        assert await store.lookup([key]) == [new]
        assert not await store.repoint(key, old, None)
        assert await store.repoint(key, new, None)
        assert await other.lookup([key]) == [None]
        assert not await other.repoint(key, new, None)

    # --- find, delete ---

    @pytest.mark.parametrize("kind", ["profile", "session"])
    async def test_a_record_is_found_by_id_alone_with_or_without_its_entry(self, store: Store, kind: Kind) -> None:
        known, unknown = record_write(kind, partition="2026-q1"), record_write(kind, partition="2025-q2")
        await store.put([known, unknown])
        await store.claim([Claim(f"{kind[0]}:{known.id}", Entry(known.id, "2026-q1"))])
        await store.refresh()
        for write in (known, unknown):
            record = await store.find(kind, write.id)
            assert record is not None
            assert (record.id, record.partition) == (write.id, write.partition)
        assert await store.find(kind, new_id()) is None

    async def test_an_event_is_found_by_id_alone(self, store: Store) -> None:
        event = event_write(partition="2025-2")
        await store.create_events([event])
        await store.refresh()
        record = await store.find("event", event.id)
        assert record is not None
        assert record.partition == "2025-2"

    @pytest.mark.parametrize("kind", ["profile", "session"])
    async def test_deleting_a_record_removes_its_own_entry_too(self, store: Store, other: Store, kind: Kind) -> None:
        write = record_write(kind)
        key = f"{kind[0]}:{write.id}"
        await store.put([write])
        await store.claim([Claim(key, Entry(write.id, write.partition)), Claim(f"k:{write.id}", Entry(write.id, ""))])
        await store.refresh()
        assert await other.delete(kind, write.id)
        assert await store.find(kind, write.id) is None
        assert await store.get(kind, [(write.id, write.partition)]) == [None]
        assert await store.lookup([key, f"k:{write.id}"]) == [None, Entry(write.id, "")]
        assert not await store.delete(kind, write.id)

    async def test_deleting_a_merged_profiles_record_keeps_its_alias(self, store: Store, other: Store) -> None:
        write, alias = record_write(), Entry("survivor", "")
        await store.put([write])
        await store.claim([Claim(f"p:{write.id}", alias)])
        await store.refresh()
        assert await other.delete("profile", write.id)
        assert await store.lookup([f"p:{write.id}"]) == [alias]
        assert not await store.delete("profile", write.id)

    async def test_deleting_an_event_leaves_the_others(self, store: Store) -> None:
        gone, kept = event_write(), event_write()
        await store.create_events([gone, kept])
        await store.refresh()
        assert await store.delete("event", gone.id)
        assert await store.find("event", gone.id) is None
        assert await store.find("event", kept.id) is not None

    # --- search ---

    async def test_events_are_found_newest_first_over_partitions(self, store: Store, other: Store) -> None:
        source = new_id()
        day = 86_400_000
        months = ["2026-9", "2026-8", "2026-9", "2026-7", "2026-9"]
        times = [NOON, NOON - 31 * day, NOON - 1, NOON - 62 * day, NOON - 2]
        events = [
            event_write(source=source, partition=name, insert_ms=at) for name, at in zip(months, times, strict=True)
        ]
        await store.create_events(random.sample(events, len(events)))
        await store.refresh()
        newest_first = [event.id for event in sorted(events, key=lambda event: -event.insert_ms)]
        page = await other.search("event", Query(where=by_source(source)))
        assert (page.total, ids_of(page.result)) == (5, newest_first)
        page = await other.search("event", Query(where=by_source(source), start=1, limit=3))
        assert (page.total, ids_of(page.result)) == (5, newest_first[1:4])
        page = await other.search("event", Query(where=by_source(source), start=4, limit=3))
        assert (page.total, ids_of(page.result)) == (5, newest_first[4:])
        page = await other.search("event", Query(where=by_source(source), start=5))
        assert (page.total, page.result) == (5, [])
        page = await other.search("event", Query(where=by_source(source), limit=0))
        assert (page.total, page.result) == (5, [])

    async def test_profiles_are_ordered_by_their_last_update_whatever_their_partition(self, store: Store) -> None:
        mark = new_id()
        old = record_write(partition="2026-q1", update_ms=NOON - 5000, traits={"mark": mark})
        new = record_write(partition="2026-q3", update_ms=NOON - 3000, traits={"mark": mark})
        [old_verdict, _] = await store.put([old, new])
        await store.refresh()
        where = Compare("traits.mark", "=", mark)
        assert ids_of((await store.search("profile", Query(where=where))).result) == [new.id, old.id]
        await store.put(
            [
                record_write(
                    id=old.id, partition="2026-q1", version=old_verdict.version, update_ms=NOON, traits={"mark": mark}
                )
            ]
        )
        await store.refresh()
        assert ids_of((await store.search("profile", Query(where=where))).result) == [old.id, new.id]

    async def test_a_search_takes_a_half_open_range_of_time(self, store: Store) -> None:
        source = new_id()
        events = [event_write(source=source, insert_ms=NOON + n) for n in range(5)]
        await store.create_events(events)
        await store.refresh()
        page = await store.search("event", Query(where=by_source(source), from_ms=NOON + 1, to_ms=NOON + 4))
        assert ids_of(page.result) == [event.id for event in reversed(events[1:4])]

    async def test_sessions_are_found_by_profile(self, store: Store) -> None:
        profile = new_id()
        mine = [record_write("session", profile=profile, update_ms=NOON + n) for n in range(3)]
        await store.put([*mine, record_write("session", profile=new_id()), record_write("session")])
        await store.refresh()
        page = await store.search("session", Query(where=Compare("profile.id", "=", profile)))
        assert ids_of(page.result) == [write.id for write in reversed(mine)]

    async def test_where_means_the_same_in_every_store(self, store: Store) -> None:
        source = new_id()
        events = {
            "plain": event_write(
                source=source,
                type="page-view",
                profile="p-1",
                tags=["a", "ab"],
                traits={"n": 5, "ok": True, "city": "Gdańsk"},
            ),
            "other": event_write(
                source=source, type="sign-up", session="s-1", tags=["b"], traits={"n": 7.5, "ok": False}
            ),
            "bare": event_write(source=source, type="page-print"),
        }
        await store.create_events(list(events.values()))
        await store.refresh()
        cases: list[tuple[Where, set[str]]] = [
            (Compare("type", "=", "page-view"), {"plain"}),
            (Compare("type", "!=", "page-view"), {"other", "bare"}),
            (Compare("type", "prefix", "page-"), {"plain", "bare"}),
            (Compare("id", "=", events["bare"].id), {"bare"}),
            (Compare("profile.id", "=", "p-1"), {"plain"}),
            (Compare("session.id", "=", "s-1"), {"other"}),
            (Compare("profile.id", "!=", "p-1"), {"other", "bare"}),
            (Compare("tags.values", "=", "ab"), {"plain"}),
            (Compare("tags.values", "prefix", "a"), {"plain"}),
            (Compare("tags.values", "!=", "b"), {"plain", "bare"}),
            (Compare("traits.n", "=", 5), {"plain"}),
            (Compare("traits.n", ">", 5), {"other"}),
            (Compare("traits.n", ">=", 5), {"plain", "other"}),
            (Compare("traits.n", "<", 7.5), {"plain"}),
            (Compare("traits.n", "<=", 7.5), {"plain", "other"}),
            (Compare("traits.ok", "=", True), {"plain"}),
            (Compare("traits.ok", "!=", True), {"other", "bare"}),
            (Compare("traits.city", "=", "Gdańsk"), {"plain"}),
            (Compare("traits.none", "=", "x"), set()),
            (Exists("traits.n"), {"plain", "other"}),
            (Not(Exists("profile.id")), {"other", "bare"}),
            (Exists("tags.values"), {"plain", "other"}),
            (Compare("metadata.time.insert", ">=", "2026-09-22"), {"plain", "other", "bare"}),
            (Compare("metadata.time.insert", "<", "2026-09-22T12:00:00Z"), set()),
            (And((Compare("type", "prefix", "page"), Exists("profile.id"))), {"plain"}),
            (Or((Compare("type", "=", "sign-up"), Exists("profile.id"))), {"plain", "other"}),
            (Not(Or((Compare("type", "=", "sign-up"), Exists("profile.id")))), {"bare"}),
            (Compare("type", "=", "'; DROP TABLE event; --"), set()),
        ]
        names = {event.id: name for name, event in events.items()}
        for where, expected in cases:
            page = await store.search("event", Query(where=by_source(source, where)))
            assert {names[id] for id in ids_of(page.result)} == expected, where
            assert await store.count("event", by_source(source, where)) == len(expected), where

    @pytest.mark.parametrize("number", ["1e999", "-1e999", "9" * 400], ids=lambda number: number[:6])
    async def test_a_number_beyond_a_double_spoils_nothing(self, store: Store, number: str) -> None:
        """JSON bounds no number, and what clients send is stored as it came."""
        source = new_id()
        plain = event_write(source=source, properties={"n": 5})
        odd = event_write(source=source, properties={"n": "?"})
        odd.doc = odd.doc.replace(b'"?"', number.encode())
        assert await store.create_events([plain, odd]) == [STORED, STORED]
        await store.refresh()
        for where, expected in (
            (by_source(source), {plain.id, odd.id}),
            (by_source(source, Compare("properties.n", "=", 5)), {plain.id}),
            (by_source(source, Compare("properties.n", "!=", 5)), {odd.id}),
            (by_source(source, Exists("properties.n")), {plain.id, odd.id}),
        ):
            page = await store.search("event", Query(where=where))
            assert {decode_document(doc)["id"] for doc in page.result} == expected, where
        query = Query(where=by_source(source), from_ms=NOON, to_ms=NOON + 1000)
        [bar] = await store.histogram("event", query, 1000, "properties.n")
        assert sorted(bar.counts.values()) == [1, 1]

    async def test_a_number_longer_than_any_index_takes_is_kept(self, store: Store) -> None:
        """Where it stood, or in the record's trash."""
        odd = event_write(source=new_id(), properties={"n": "?"})
        odd.doc = odd.doc.replace(b'"?"', b"9" * 5000)
        assert await store.create_events([odd]) == [STORED]
        await store.refresh()
        [doc] = (await store.search("event", Query(where=by_source(odd.source)))).result
        assert b"9" * 5000 in doc
        assert decode_document(doc)["id"] == odd.id

    async def test_all_of_a_kind_are_counted_without_a_where(self, store: Store) -> None:
        before = await store.count("session")
        await store.put([record_write("session"), record_write("session", partition="2026-q2")])
        await store.refresh()
        assert await store.count("session") == before + 2

    # --- histogram ---

    async def test_a_histogram_counts_per_step_and_shows_empty_ones(self, store: Store) -> None:
        source = new_id()
        times = [0, 1, 999, 1000, 3999, 4000, -1]
        await store.create_events([event_write(source=source, insert_ms=NOON + at) for at in times])
        await store.refresh()
        query = Query(where=by_source(source), from_ms=NOON, to_ms=NOON + 4000)
        found = await store.histogram("event", query, 1000)
        assert [(bar.at_ms, bar.counts) for bar in found] == [
            (NOON, {"count": 3}),
            (NOON + 1000, {"count": 1}),
            (NOON + 2000, {"count": 0}),
            (NOON + 3000, {"count": 1}),
        ]

    async def test_a_grouped_histogram_shows_the_biggest_groups(self, store: Store) -> None:
        source = new_id()
        types = ["a"] * 3 + ["b"] * 2 + ["c"]
        await store.create_events(
            [event_write(source=source, type=type, insert_ms=NOON + n % 2 * 1000) for n, type in enumerate(types)]
        )
        await store.refresh()
        query = Query(where=by_source(source), from_ms=NOON, to_ms=NOON + 2000)
        found = await store.histogram("event", query, 1000, "type", top=2)
        assert [(bar.at_ms, bar.counts) for bar in found] == [
            (NOON, {"a": 2, "b": 1}),
            (NOON + 1000, {"a": 1, "b": 1}),
        ]

    async def test_a_histogram_needs_both_ends_and_a_sane_number_of_steps(self, store: Store) -> None:
        with pytest.raises(BadInput):
            await store.histogram("event", Query(from_ms=NOON), 1000)
        with pytest.raises(BadInput):
            await store.histogram("event", Query(from_ms=0, to_ms=NOON), 1)
        assert await store.histogram("event", Query(from_ms=NOON, to_ms=NOON), 1000) == []

    # --- partitions ---

    async def test_partitions_are_listed_with_what_they_hold(self, store: Store) -> None:
        events = [event_write(partition="2024-3", insert_ms=NOON + n) for n in range(3)]
        await store.drop_partition("event", "2024-3")
        await store.create_events(events)
        await store.refresh()
        [info] = [info for info in await store.partitions() if (info.kind, info.name) == ("event", "2024-3")]
        assert info.records == 3
        assert info.bytes > 0
        assert (info.first_ms, info.last_ms) == (NOON, NOON + 2)

    async def test_a_partition_can_be_made_before_it_is_needed(self, store: Store, other: Store) -> None:
        await store.drop_partition("session", "2031-q1")
        assert await store.create_partition("session", "2031-q1")
        assert not await other.create_partition("session", "2031-q1")
        assert ("session", "2031-q1") in [(info.kind, info.name) for info in await other.partitions()]
        [verdict] = await store.put([record_write("session", partition="2031-q1")])
        assert verdict.outcome is Outcome.STORED
        with pytest.raises(ValueError, match="not a partition"):
            await store.create_partition("session", "../x")

    async def test_a_dropped_partition_takes_its_records_and_no_others(self, store: Store, other: Store) -> None:
        source = new_id()
        gone, kept = (event_write(source=source, partition=name) for name in ("2023-1", "2023-2"))
        await store.create_events([gone, kept])
        assert (await other.get("event", [(gone.id, "2023-1")]))[0] is not None
        assert await store.drop_partition("event", "2023-1")
        assert not await other.drop_partition("event", "2023-1")
        await store.refresh()
        assert await other.get("event", [(gone.id, "2023-1"), (kept.id, "2023-2")]) != [None, None]
        assert await other.get("event", [(gone.id, "2023-1")]) == [None]
        assert ids_of((await other.search("event", Query(where=by_source(source)))).result) == [kept.id]

    async def test_a_dropped_partition_can_be_written_again_by_every_handle(self, store: Store, other: Store) -> None:
        source = new_id()
        first = event_write(source=source, partition="2022-5")
        await store.create_events([first])
        await other.create_events([event_write(source=source, partition="2022-5")])
        await store.drop_partition("event", "2022-5")
        again = event_write(id=first.id, source=source, partition="2022-5")
        assert await other.create_events([again]) == [STORED]
        assert await store.create_events([first]) == [EXISTS]
        await store.refresh()
        assert await store.count("event", by_source(source)) == 1

    # --- rewriting, for stores that do it ---

    async def test_a_rewritten_event_is_found_by_what_it_says_now(self, store: Store, other: Store) -> None:
        rewriting = rewriting_of(store)
        if rewriting is None:
            return
        old, new = new_id(), new_id()
        first, beside = event_write(profile=old), event_write(profile=old)
        await store.create_events([first, beside])
        changed = event_write(id=first.id, message=first.message, profile=new)
        [verdict] = await rewriting.rewrite_events([changed])
        assert verdict.outcome is Outcome.STORED
        [record] = await other.get("event", [(first.id, first.partition)])
        assert record is not None
        assert json.loads(record.doc) == json.loads(changed.doc)
        await store.refresh()
        assert await store.count("event", Compare("profile.id", "=", new)) == 1
        assert await store.count("event", Compare("profile.id", "=", old)) == 1
        assert await other.create_events([first]) == [SAME]
        assert await other.create_events([event_write(id=first.id)]) == [EXISTS]

    async def test_an_event_that_is_not_there_is_not_made_by_rewriting_it(self, store: Store) -> None:
        rewriting = rewriting_of(store)
        if rewriting is None:
            return
        there, gone = event_write(), event_write()
        await store.create_events([there])
        verdicts = await rewriting.rewrite_events([gone, there])
        assert outcomes(verdicts) == [Outcome.CONFLICT, Outcome.STORED]
        assert await store.get("event", [(gone.id, gone.partition)]) == [None]
        assert await rewriting.rewrite_events([]) == []

    # --- health, cancelling ---

    async def test_a_working_store_answers_ping(self, store: Store) -> None:
        await store.ping()

    async def test_a_cancelled_call_leaves_the_store_usable_and_each_event_whole(self, store: Store) -> None:
        batches = [[event_write() for _ in range(20)] for _ in range(10)]
        tasks = [asyncio.create_task(store.create_events(batch)) for batch in batches]
        await asyncio.sleep(0)
        for task in tasks[::2]:
            task.cancel()
        answers = await asyncio.gather(*tasks, return_exceptions=True)
        assert all(answer == [STORED] * 20 for answer in answers if not isinstance(answer, BaseException))
        for batch in batches:
            again = await store.create_events(batch)
            assert {verdict.outcome for verdict in again} <= {Outcome.STORED, Outcome.SAME}
            assert await store.create_events(batch) == [SAME] * 20


def outcomes(verdicts: Sequence[Verdict]) -> list[Outcome]:
    """For tests of a backend's own: what became of each item, without versions and reasons."""
    return [verdict.outcome for verdict in verdicts]
