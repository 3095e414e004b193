"""What Elasticsearch refuses, and what becomes of it: never a lost event, and a verdict for every item."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
import structlog

from tests.integration.elastic import cleaned, fresh_settings, opened
from tracardi_lite.backends.store.elasticsearch import ElasticsearchStore
from tracardi_lite.backends.store.elasticsearch.connection import Connection
from tracardi_lite.backends.store.elasticsearch.names import Names
from tracardi_lite.errors import BadInput, Full, Unavailable
from tracardi_lite.ports.store import STORED, Claim, Entry, Outcome, Query
from tracardi_lite.query import Compare, Exists
from tracardi_lite.settings import Settings
from tracardi_lite.testing.store_suite import event_write, new_id, outcomes, record_write

pytestmark = pytest.mark.integration

PARTITION = "2026-9"


@pytest.fixture
def settings() -> Settings:
    return fresh_settings()


@pytest.fixture
async def cluster(settings: Settings) -> AsyncIterator[Connection]:
    async with cleaned(settings) as connection:
        yield connection


@pytest.fixture
async def store(settings: Settings, cluster: Connection) -> AsyncIterator[ElasticsearchStore]:
    with structlog.testing.capture_logs():
        async with opened(settings) as store:
            yield store


def whole_event(**changes: Any) -> Any:
    """An event with the flags and lists that real ones have, and parts in place of the suite's."""
    write = event_write(partition=PARTITION)
    doc = json.loads(write.doc)
    doc["metadata"]["warning"] = False
    doc["aux"] = {}
    doc |= changes
    write.doc = json.dumps(doc).encode()
    return write


async def read(store: ElasticsearchStore, id: str) -> dict[str, Any]:
    [record] = await store.get("event", [(id, PARTITION)])
    assert record is not None
    doc: dict[str, Any] = json.loads(record.doc)
    return doc


async def test_a_trait_of_another_type_is_moved_to_trash_and_the_event_is_kept(store: ElasticsearchStore) -> None:
    good = whole_event(traits={"size": 42, "colour": "red"})
    bad = whole_event(traits={"size": "large", "colour": "blue"})
    worse = whole_event(traits={"size": {"eu": 42}, "colour": "green"})
    other = whole_event(traits={"size": 43})
    assert await store.create_events([good]) == [STORED]
    assert await store.create_events([bad, other, worse]) == [STORED] * 3
    doc = await read(store, bad.id)
    assert doc["traits"] == {"colour": "blue"}
    assert doc["trash"] == {"traits": {"size": "large"}}
    assert doc["metadata"]["warning"] is True
    assert doc["aux"]["warnings"] == ["traits.size does not fit the index and was moved to trash"]
    assert (await read(store, worse.id))["trash"] == {"traits": {"size": {"eu": 42}}}
    assert (await read(store, other.id))["metadata"]["warning"] is False
    await store.refresh()
    assert await store.count("event", Compare("trash.traits.size", "=", "large")) == 1


async def test_a_redelivery_of_a_rescued_event_is_the_same(store: ElasticsearchStore) -> None:
    await store.create_events([whole_event(traits={"size": 42})])
    bad = whole_event(traits={"size": "large"})
    original = bad.doc
    assert await store.create_events([bad]) == [STORED]
    bad.doc = original
    assert outcomes(await store.create_events([bad])) == [Outcome.SAME]


async def test_more_trait_names_than_an_index_takes_lose_no_event(
    store: ElasticsearchStore, cluster: Connection, settings: Settings
) -> None:
    floods = [whole_event(traits={f"t{n}_{m}": m for m in range(700)}) for n in range(5)]
    calm = whole_event(traits={"t0_1": 1})
    assert outcomes(await store.create_events([*floods, calm])) == [Outcome.STORED] * 6
    moved = 0
    for flood in floods:
        doc = await read(store, flood.id)
        aside = doc.get("trash", {}).get("traits", {})
        assert {**doc["traits"], **aside} == json.loads(flood.doc)["traits"] or len(aside) == 700
        moved += bool(aside)
    assert moved >= 2
    index = Names(settings).index("event", PARTITION)
    mapping = json.loads((await cluster.do("GET", f"/{index}/_mapping")).body)[index]["mappings"]
    assert len(mapping["properties"]["traits"]["properties"]) <= 2000
    await store.refresh()
    assert await store.count("event") == 6


@pytest.mark.parametrize(
    ("part", "value"),
    [
        ("properties", b'{"a": 1, "a": 2}'),
        ("properties", b'{"n": ' + b"9" * 400 + b"}"),
        ("properties", b'{"k": "' + b"x" * 50_000 + b'"}'),
        ("properties", b'{"' + b"k" * 40_000 + b'": "v"}'),
        ("properties", b'{"a\\u0000b": 1}'),
        ("properties", b"[" * 150 + b"]" * 150),
        ("properties", b'"text"'),
        ("context", b'{"a":' * 90 + b"1" + b"}" * 90),
        ("traits", b'{"a":' * 90 + b"1" + b"}" * 90),
        ("traits", b'{"": 1, " ": 2, ".": 3, "a..b": 4}'),
        ("traits", b'{"big": ' + b"9" * 400 + b"}"),
        ("traits", b'{"a.b": 1, "a": 2}'),
        ("traits", b'["not", "an", "object"]'),
        ("tags", b'{"values": [{"an": "object"}], "count": 1}'),
        ("tags", b'"text"'),
        ("unheard_of", b'{"a": 1}'),
        ("hit", b'{"url": {"an": "object"}}'),
        ("hit", b'"text"'),
        ("data", b'{"pii": "text"}'),
        ("device", b'{"geo": {"location": [1000, 2000]}}'),
        ("device", b'{"touch": "perhaps"}'),
        ("config", b"[1, {}]"),
    ],
)
async def test_whatever_json_a_client_sends_the_event_is_kept(
    store: ElasticsearchStore, part: str, value: bytes
) -> None:
    odd, plain = whole_event(), whole_event()
    raw = json.loads(odd.doc)
    raw.pop(part, None)
    odd.doc = json.dumps(raw).encode()[:-1] + b', "%b": \r\n %b}' % (part.encode(), value)
    assert outcomes(await store.create_events([odd, plain])) == [Outcome.STORED] * 2
    assert outcomes(await store.create_events([odd, plain])) == [Outcome.SAME] * 2
    doc = await read(store, odd.id)
    assert part in doc or part in doc["trash"]


async def test_a_profile_with_a_trait_that_does_not_fit_is_kept_with_it_in_trash(store: ElasticsearchStore) -> None:
    await store.put([record_write(traits={"n": 1})])
    write = record_write(traits={"n": {"m": 1}, "city": "Gdańsk"})
    [verdict] = await store.put([write])
    assert verdict.outcome is Outcome.STORED
    [record] = await store.get("profile", [(write.id, write.partition)])
    assert record is not None
    assert record.version == verdict.version
    doc = json.loads(record.doc)
    assert (doc["traits"], doc["trash"]) == ({"city": "Gdańsk"}, {"traits": {"n": {"m": 1}}})


async def test_an_id_that_elasticsearch_can_not_hold_dies_alone(store: ElasticsearchStore) -> None:
    long, good, none = event_write(id="ü" * 300), event_write(), event_write(id="")
    none.id = ""
    verdicts = await store.create_events([long, good, none])
    assert outcomes(verdicts) == [Outcome.NEVER, Outcome.STORED, Outcome.NEVER]
    assert "600" in verdicts[0].reason
    assert outcomes(await store.put([record_write(id="x" * 600), record_write()])) == [Outcome.NEVER, Outcome.STORED]


async def test_a_key_longer_than_an_id_may_be_is_claimed_all_the_same(store: ElasticsearchStore) -> None:
    key, entry = "p:" + "ü" * 400, Entry("a", "2026-q3", "m")
    assert await store.claim([Claim(key, entry)]) == [entry]
    assert await store.lookup([key, key + "x"]) == [entry, None]


async def test_a_blocked_partition_is_tried_again_later(store: ElasticsearchStore, settings: Settings) -> None:
    await store.create_events([event_write(partition=PARTITION)])
    assert await store.lifecycle.move("event", PARTITION, "warm", read_only=True)
    late, elsewhere = event_write(partition=PARTITION), event_write(partition="2026-10")
    verdicts = await store.create_events([late, elsewhere])
    assert outcomes(verdicts) == [Outcome.RETRY, Outcome.STORED]
    assert "block" in verdicts[0].reason
    assert await store.lifecycle.move("event", PARTITION, "hot")
    assert await store.create_events([late]) == [STORED]


async def test_a_disk_at_its_flood_stage_is_full_and_takes_writes_again_when_it_is_not(
    store: ElasticsearchStore, cluster: Connection, settings: Settings
) -> None:
    await store.create_events([event_write(partition=PARTITION)])
    await store.ping()
    index = Names(settings).index("event", PARTITION)
    # What Elasticsearch itself does to every index of a node whose disk is nearly full.
    await cluster.do("PUT", f"/{index}/_settings", {"index.blocks.read_only_allow_delete": True})
    with pytest.raises(Full):
        await store.ping()
    event = event_write(partition=PARTITION)
    assert outcomes(await store.create_events([event])) == [Outcome.RETRY]
    await cluster.do("PUT", f"/{index}/_settings", {"index.blocks.read_only_allow_delete": None})
    await store.ping()
    assert await store.create_events([event]) == [STORED]


async def test_no_index_comes_by_itself_after_it_was_dropped(
    store: ElasticsearchStore, cluster: Connection, settings: Settings
) -> None:
    index = Names(settings).index("event", PARTITION)
    await store.create_events([event_write(partition=PARTITION)])
    await store.drop_partition("event", PARTITION)
    line = json.dumps({"create": {"_index": index, "_id": "1"}}) + '\n{"id":"1"}\n'
    answer = await cluster.do("POST", "/_bulk", line.encode())
    assert json.loads(answer.body)["items"][0]["create"]["status"] == 404


async def test_an_index_that_was_made_by_others_gets_the_mapping_and_the_alias(
    settings: Settings, cluster: Connection
) -> None:
    names = Names(settings)
    index = names.index("event", PARTITION)
    await cluster.do("PUT", f"/{index}", {"mappings": {"dynamic": "strict", "properties": {"id": {"type": "keyword"}}}})
    async with opened(settings) as store:
        assert await store.create_events([event_write(partition=PARTITION, traits={"n": 1})]) == [STORED]
        await store.refresh()
        assert await store.count("event", Exists("traits.n")) == 1


async def test_the_cluster_holds_what_the_protocol_names(
    store: ElasticsearchStore, cluster: Connection, settings: Settings
) -> None:
    await store.create_events([event_write(partition=PARTITION)])
    await store.claim([Claim(f"p:{new_id()}", Entry("a", "", ""))])
    base = f"09x.{settings.tenant_name}.tracardi-"
    found = json.loads((await cluster.do("GET", f"/{base}*")).body)
    assert set(found) == {f"{base}event-{PARTITION}", f"{base}directory"}
    index = found[f"{base}event-{PARTITION}"]
    assert list(index["aliases"]) == [f"{base}event"]
    assert index["settings"]["index"]["refresh_interval"] == "10s"
    assert index["settings"]["index"]["number_of_replicas"] == "0"  # one data node
    fields = index["mappings"]["properties"]
    assert index["mappings"]["dynamic"] == "strict"
    assert fields["properties"]["type"] == fields["context"]["type"] == fields["trash"]["type"] == "flattened"
    assert fields["data"]["properties"]["ec"]["properties"]["order"]["properties"]["id"]["type"] == "keyword"


async def test_records_of_production_stand_apart() -> None:
    settings = fresh_settings(production=True)
    async with cleaned(settings) as cluster, opened(settings) as store:
        await store.create_events([event_write(partition=PARTITION)])
        found = json.loads((await cluster.do("GET", f"/prod-09x.{settings.tenant_name}.*")).body)
        assert list(found) == [f"prod-09x.{settings.tenant_name}.tracardi-event-{PARTITION}"]
        await cluster.do("GET", f"/_index_template/prod-template.09x.{settings.tenant_name}.tracardi-event")


async def test_gzip_changes_nothing_but_the_bytes_on_the_way() -> None:
    settings = fresh_settings(elastic_http_compress=True)
    async with cleaned(settings), opened(settings) as store:
        events = [event_write(partition=PARTITION, properties={"text": "again " * 50}) for _ in range(50)]
        assert await store.create_events(events) == [STORED] * 50
        await store.refresh()
        assert (await store.search("event", Query(limit=50))).total == 50


async def test_a_body_of_several_megabytes_is_sent_in_pieces_that_fit(store: ElasticsearchStore) -> None:
    events = [event_write(partition=PARTITION, properties={"text": "x" * 400_000}) for _ in range(40)]
    assert await store.create_events(events) == [STORED] * 40


async def test_a_server_that_is_not_there_is_unavailable_and_opening_does_not_mind() -> None:
    settings = Settings(elastic_host="127.0.0.1:9", elastic_query_timeout=1)
    async with opened(settings) as store:
        with pytest.raises(Unavailable, match="does not answer"):
            await store.create_events([event_write()])
        with pytest.raises(Unavailable):
            await store.lookup(["p:1"])
        with pytest.raises(Unavailable):
            await store.ping()


async def test_a_cluster_with_nothing_in_it_answers_emptiness(store: ElasticsearchStore) -> None:
    await store.refresh()
    assert await store.partitions() == []
    assert (await store.search("event", Query())).total == 0
    assert await store.count("profile", Exists("traits.n")) == 0
    assert [bar.counts for bar in await store.histogram("event", Query(from_ms=0, to_ms=2), 1)] == [{"count": 0}] * 2
    assert await store.histogram("event", Query(from_ms=0, to_ms=1), 1, "type") != []
    assert await store.lookup(["p:1"]) == [None]
    assert await store.find("profile", "1") is None
    assert not await store.delete("profile", "1")
    assert not await store.repoint("p:1", Entry("a", "", ""), None)
    assert not await store.drop_partition("event", "2026-9")
    assert outcomes(await store.put([record_write(version=(1, 1))])) == [Outcome.CONFLICT]
    assert await store.partitions() == []
    await store.ping()


async def test_histograms_group_by_texts_numbers_switches_and_free_properties(store: ElasticsearchStore) -> None:
    at_ms = 1_790_078_400_000
    events = [
        event_write(
            partition=PARTITION,
            insert_ms=at_ms,
            traits={"n": 5 if n else 7.5, "ok": bool(n)},
            properties={"plan": "pro" if n else "free"},
        )
        for n in (0, 1, 1)
    ]
    await store.create_events(events)
    await store.refresh()
    query = Query(from_ms=at_ms, to_ms=at_ms + 1)
    for field, counts in {
        "traits.n": {"5": 2, "7.5": 1},
        "traits.ok": {"true": 2, "false": 1},
        "properties.plan": {"pro": 2, "free": 1},
        "nothing": {},
    }.items():
        assert [bar.counts for bar in await store.histogram("event", query, 1, field)] == [counts], field


async def test_pages_end_where_elasticsearch_stops_sorting(store: ElasticsearchStore) -> None:
    with pytest.raises(BadInput, match="narrow"):
        await store.search("event", Query(start=9_990, limit=20))


async def test_a_question_that_does_not_suit_the_traits_type_is_the_askers_fault(store: ElasticsearchStore) -> None:
    await store.create_events([event_write(partition=PARTITION, traits={"n": 5})])
    await store.refresh()
    assert await store.count("event", Compare("traits.n", "=", "five")) == 0
    with pytest.raises(BadInput) as caught:
        await store.count("event", Compare("traits.n", ">", "five"))
    assert caught.value.status == 422
