"""The where-language as Elasticsearch's DSL: what the mapping's types make of it, and what is refused."""

from __future__ import annotations

import pytest

from tracardi_lite.backends.store.elasticsearch.where import ALL, NONE, compiled, field_of
from tracardi_lite.errors import BadInput
from tracardi_lite.ports.store import Kind
from tracardi_lite.query import And, Compare, Exists, Not, Or, Where


@pytest.mark.parametrize(
    ("kind", "path", "type"),
    [
        ("event", "type", "keyword"),
        ("event", "metadata.time.insert", "date"),
        ("event", "session.duration", "double"),
        ("event", "metadata.valid", "boolean"),
        ("event", "properties.basket.id", "flattened"),
        ("event", "metadata.aux.message", "flattened"),
        ("event", "data.ec.order.income.value", "double"),
        ("event", "data.contact.email.main", "keyword"),
        ("event", "traits.n", "trait"),
        ("event", "traits", "object"),
        ("event", "request.headers", "kept"),
        ("event", "session", "object"),
        ("event", "nothing.of.it", "unknown"),
        ("event", "type.below", "unknown"),
        ("event", "device.geo.location", "unknown"),
        ("profile", "stats.counters.events", "double"),
        ("profile", "interests.film", "flattened"),
        ("profile", "data.pii.birthday", "date"),
        ("session", "metadata.system.aux.applied", "flattened"),
    ],
)
def test_the_mapping_says_what_a_path_leads_to(kind: Kind, path: str, type: str) -> None:
    assert field_of(kind, path).type == type


@pytest.mark.parametrize(
    ("where", "query"),
    [
        (Compare("type", "=", "a"), {"term": {"type": "a"}}),
        (Compare("type", "prefix", "a"), {"prefix": {"type": "a"}}),
        (Compare("type", "<", "a"), {"range": {"type": {"lt": "a"}}}),
        (Compare("type", "!=", "a"), {"bool": {"must_not": [{"term": {"type": "a"}}]}}),
        (Compare("type", "=", 5), NONE),
        (Compare("type", "=", True), NONE),
        (Compare("type", "=", None), {"bool": {"must_not": [{"exists": {"field": "type"}}]}}),
        (Compare("type", "<", None), NONE),
        (Compare("session.duration", ">=", 5), {"range": {"session.duration": {"gte": 5}}}),
        (Compare("session.duration", "=", "5"), NONE),
        (Compare("session.duration", "<", True), NONE),
        (Compare("metadata.valid", "=", True), {"term": {"metadata.valid": True}}),
        (Compare("metadata.valid", "=", "true"), NONE),
        (Compare("properties.a", "=", "x"), {"term": {"properties.a": "x"}}),
        (Compare("properties.a", "=", 5), {"terms": {"properties.a": ["5", "5.0"]}}),
        (Compare("properties.a", "=", 5.5), {"terms": {"properties.a": ["5.5"]}}),
        (Compare("properties.a", "=", True), {"term": {"properties.a": "true"}}),
        (Compare("properties.a", ">", "x"), {"range": {"properties.a": {"gt": "x"}}}),
        (Compare("traits.n", "=", 5), {"match": {"traits.n": {"query": 5, "lenient": True}}}),
        (Compare("traits.n", "<", 5), {"range": {"traits.n": {"lt": 5}}}),
        (Compare("traits.n", "prefix", "5"), {"prefix": {"traits.n": "5"}}),
        (Compare("nothing", "=", "x"), NONE),
        (Compare("session", "=", "x"), NONE),
        (Exists("session"), {"exists": {"field": "session"}}),
        (Exists("nothing"), NONE),
        (
            Compare("metadata.time.insert", ">=", "2026-09-22"),
            {"range": {"metadata.time.insert": {"gte": 1_790_035_200_000, "format": "epoch_millis"}}},
        ),
        (
            Compare("metadata.time.insert", "=", "2026-09-22T02:00:00.500+02:00"),
            {
                "range": {
                    "metadata.time.insert": {
                        "gte": 1_790_035_200_500,
                        "lte": 1_790_035_200_500,
                        "format": "epoch_millis",
                    }
                }
            },
        ),
        (Compare("metadata.time.insert", "=", "soon"), NONE),
        (Compare("metadata.time.insert", "<", 5), NONE),
        (And(()), {"bool": {"filter": []}}),
        (Or((Exists("type"),)), {"bool": {"should": [{"exists": {"field": "type"}}], "minimum_should_match": 1}}),
        (Not(Exists("type")), {"bool": {"must_not": [{"exists": {"field": "type"}}]}}),
    ],
)
def test_a_clause_becomes_the_query_that_means_it(where: Where, query: dict[str, object]) -> None:
    assert compiled("event", where) == query


@pytest.mark.parametrize(
    ("where", "word"),
    [
        (Compare("properties.price", ">", 5), "text only"),
        (Compare("metadata.time.insert", "prefix", "2026"), "beginning"),
        (Compare("metadata.time.insert", ">", "soon"), "not one"),
        (Compare("request.headers.x", "=", "y"), "kept"),
        (Not(Exists("config")), "kept"),
    ],
)
def test_what_would_be_answered_wrongly_is_refused(where: Where, word: str) -> None:
    with pytest.raises(BadInput, match=word) as caught:
        compiled("event", where)
    assert caught.value.status == 422


def test_the_queries_of_all_and_nothing_differ() -> None:
    assert ALL != NONE
