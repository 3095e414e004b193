"""Names, addresses, errors and bulk lines: the parts that need no server."""

from __future__ import annotations

import base64
import json

import pytest

from tracardi_lite import wiring
from tracardi_lite.backends.store.elasticsearch import ElasticsearchStore, mappings, open_store
from tracardi_lite.backends.store.elasticsearch.bulk import Op, Result, _requests, one_line
from tracardi_lite.backends.store.elasticsearch.connection import Answer, Cause, _addresses, _authorization, fail
from tracardi_lite.backends.store.elasticsearch.names import Names
from tracardi_lite.errors import BadInput, Full, Misconfigured, Unavailable
from tracardi_lite.pipeline import fields
from tracardi_lite.ports.store import KINDS
from tracardi_lite.settings import Settings, load


def test_names_are_the_protocols() -> None:
    names = Names(Settings())
    assert names.base("event") == "09x.8504a.tracardi-event"
    assert names.index("profile", "2026-q4") == "09x.8504a.tracardi-profile-2026-q4"
    assert names.template("session") == "template.09x.8504a.tracardi-session"
    assert names.partition("event", "09x.8504a.tracardi-event-2026-11") == "2026-11"
    assert names.partition("event", "09x.8504a.tracardi-event-2026-13") is None
    assert names.partition("event", "09x.8504a.tracardi-events-2026-11") is None
    production = Names(Settings(production=True, tenant_name="shop"))
    assert production.base("event") == "prod-09x.shop.tracardi-event"
    assert production.template("event") == "prod-template.09x.shop.tracardi-event"


def test_every_typed_field_of_the_pipeline_has_a_type_in_the_mapping() -> None:
    for record in ("event", "profile"):
        for path, kind in fields.leaves(record):
            here = {"properties": mappings.fields(record)}
            for name in path.split("."):
                here = here["properties"][name]
            assert here.get("type") or "properties" in here, f"{record}: {path} ({kind})"


@pytest.mark.parametrize("kind", KINDS)
def test_a_mapping_stays_far_below_the_limit_of_fields(kind: str) -> None:
    assert json.dumps(mappings.mapping(kind)).count('"type"') < mappings.FIELDS_MAX / 4


def test_a_templates_digest_changes_with_what_is_in_it() -> None:
    names = Names(Settings())
    one, two, three = (mappings.template("event", names, shards=n, replicas=0) for n in (1, 1, 2))
    assert one == two
    assert one["_meta"]["digest"] != three["_meta"]["digest"]


@pytest.mark.parametrize(
    ("url", "given", "found"),
    [
        ("elasticsearch:", {"elastic_host": "a"}, [("http", "a", 9200, "")]),
        ("elasticsearch:", {"elastic_host": "a:1, https://b:2/es/"}, [("http", "a", 1, ""), ("https", "b", 2, "/es")]),
        (
            "elasticsearch:",
            {"elastic_host": "a", "elastic_scheme": "https", "elastic_port": 443},
            [("https", "a", 443, "")],
        ),
        ("elasticsearch://c:9", {"elastic_host": "a"}, [("http", "c", 9, "")]),
        ("elasticsearch+https://c", {}, [("https", "c", 9200, "")]),
        ("elasticsearch:", {}, [("http", "127.0.0.1", 9200, "")]),
        (
            "elasticsearch:",
            {"elastic_cloud_id": "x:" + base64.b64encode(b"eu.example$abc$def").decode()},
            [("https", "abc.eu.example", 443, "")],
        ),
    ],
)
def test_nodes_are_named_by_url_or_settings(
    url: str, given: dict[str, object], found: list[tuple[str, str, int, str]]
) -> None:
    assert _addresses(url, Settings(**given)) == found  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("url", "given"),
    [
        ("elasticsearch://me:secret@host", {}),
        ("elasticsearch:", {"elastic_host": "a:99999"}),
        ("elasticsearch:", {"elastic_cloud_id": "nonsense"}),
        ("elasticsearch:", {"elastic_host": "https://a", "elastic_ca_file": "/nowhere"}),
        ("elasticsearch:", {"elastic_snapshots": "ftp://there"}),
    ],
)
def test_what_names_no_node_stops_the_start(url: str, given: dict[str, object]) -> None:
    with pytest.raises(Misconfigured) as caught:
        open_store(url, Settings(**given))  # type: ignore[arg-type]
    assert "secret" not in str(caught.value)


def test_who_asks_is_told_by_key_or_password() -> None:
    assert _authorization(Settings()) == {}
    basic = base64.b64encode(b"elastic:pw").decode()
    assert _authorization(Settings(elastic_http_auth_password="pw")) == {"authorization": f"Basic {basic}"}
    assert _authorization(Settings(elastic_api_key="abc")) == {"authorization": "ApiKey abc"}
    pair = base64.b64encode(b"id:abc").decode()
    given = Settings(elastic_api_key="abc", elastic_api_key_id="id", elastic_http_auth_password="pw")
    assert _authorization(given) == {"authorization": f"ApiKey {pair}"}


async def test_naming_a_host_alone_chooses_the_store() -> None:
    loaded = load({}, {"ELASTIC_HOST": "127.0.0.1:9"})
    assert loaded.settings.store_url == "elasticsearch:"
    assert str(loaded.origins["store_url"]) == "env ELASTIC_HOST"
    async with wiring.open_store(loaded.settings) as store:
        assert isinstance(store, ElasticsearchStore)
    assert load({}, {"ELASTIC_HOST": "h", "STORE_URL": "memory:"}).settings.store_url == "memory:"
    assert load({}, {}).settings.store_url == "sqlite:"


@pytest.mark.parametrize("host", ["9200", "http://", "ftp://a", "a:b", "me:pw@a"])
def test_a_host_that_is_none_is_told_at_the_start(host: str) -> None:
    with pytest.raises(Misconfigured, match="ELASTIC_HOST"):
        load({}, {"ELASTIC_HOST": host})


@pytest.mark.parametrize(
    ("status", "body", "error"),
    [
        (400, b'{"error":{"type":"parsing_exception","reason":"r"}}', BadInput),
        (401, b"{}", Unavailable),
        (502, b"<html>", Unavailable),
        (503, b'{"error":"text"}', Unavailable),
        (429, b'{"error":{"type":"cluster_block_exception","reason":"disk usage exceeded flood-stage"}}', Full),
    ],
)
def test_statuses_become_our_errors(status: int, body: bytes, error: type[Exception]) -> None:
    with pytest.raises(error):
        fail(Answer(status, body))


def test_a_cause_is_told_with_what_caused_it_and_not_endlessly() -> None:
    cause = Cause("a", "b" * 1000, Cause("c", "d"))
    assert str(Cause("a", "b", Cause("c", "d"))) == "a: b; c: d"
    assert len(str(cause)) <= 400


def test_results_know_whether_the_same_may_be_taken_later() -> None:
    assert Result(429).is_passing
    assert Result(503).is_passing
    assert Result(403, Cause("cluster_block_exception", "index write")).is_passing
    assert not Result(400, Cause("document_parsing_exception", "r")).is_passing
    assert Result(404, Cause("index_not_found_exception")).lacks_index
    assert not Result(404).lacks_index


def test_bulk_lines_are_json_on_lines_of_their_own_whatever_the_document_looks_like() -> None:
    doc = b'{\n"text": "a\\nb",\r\n"n": 1}'
    ops = [
        Op("i", 'odd"id\u2028', "create", doc),
        Op("i", "2", "index", b"{}", version=(7, 1)),
        Op("j", "3", "delete"),
    ]
    [lines] = _requests(ops)
    text = b"".join(lines)
    assert text.endswith(b"\n")
    assert [json.loads(line) for line in text.removesuffix(b"\n").split(b"\n")] == [
        {"create": {"_index": "i", "_id": 'odd"id\u2028'}},
        {"text": "a\nb", "n": 1},
        {"index": {"_index": "i", "_id": "2", "if_seq_no": 7, "if_primary_term": 1}},
        {},
        {"delete": {"_index": "j", "_id": "3"}},
    ]
    assert one_line(b"{}") == b"{}"


def test_requests_are_cut_by_their_size_and_one_that_is_larger_goes_alone() -> None:
    ops = [Op("i", str(n), "create", b"x" * size) for n, size in enumerate([6 << 20, 6 << 20, 20 << 20, 1, 1])]
    assert [len(lines) for lines in _requests(ops)] == [1, 1, 1, 2]
