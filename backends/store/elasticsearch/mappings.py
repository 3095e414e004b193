"""Templates, settings and mappings of the indices (protocol §4.2), as data. Pure.

Roots are strict, so that a field nobody knows shows up instead of spreading. Free objects (properties, context …) are
``flattened``: any number of keys costs one field. ``traits`` alone grows with what is sent, up to ``FIELDS_MAX`` fields
for an index; what does not fit is moved aside by ``rescue``. Typed dates and numbers that are malformed are kept and
not indexed.

The typed fields of ``data`` come from the same file as the pipeline's, so they can't differ.
"""

from __future__ import annotations

import hashlib
from functools import cache
from typing import Any

import msgspec

from tracardi_lite import data
from tracardi_lite.backends.store.elasticsearch.names import DIRECTORY, Names

Tree = dict[str, Any]

FIELDS_MAX = 2000
DATES = "strict_date_optional_time||yyyy-MM-dd HH:mm:ss||yyyy-MM-dd HH:mm:ssXXX||epoch_millis"
ID_BYTES_MAX = 512
"""Elasticsearch's own bound of ``_id``."""
_KEYWORD_MAX = 1024
"""Characters; longer values are kept and can't be searched for."""
_LEAF_MAX = 8191
"""Characters of a flattened value: Lucene's 32,766 bytes of a term, at four bytes for each."""
_REFRESH = {"event": "10s", "session": "3s", DIRECTORY: "30s"}
"""The protocol's. The directory is read by key only, which needs no refresh."""

TIME_FIELD = {"event": "metadata.time.insert", "profile": "metadata.time.update", "session": "metadata.time.update"}
"""What searches sort by."""

KEYWORD: Tree = {"type": "keyword", "ignore_above": _KEYWORD_MAX}
NUMBER: Tree = {"type": "double", "ignore_malformed": True}
DATE: Tree = {"type": "date", "format": DATES, "ignore_malformed": True}
FLAG: Tree = {"type": "boolean"}
FLATTENED: Tree = {"type": "flattened", "depth_limit": 64, "ignore_above": _LEAF_MAX}
KEPT: Tree = {"type": "object", "enabled": False}
DYNAMIC: Tree = {"type": "object", "dynamic": "true"}


def _object(**fields: Tree) -> Tree:
    return {"dynamic": "false", "properties": fields}


def _keywords(*names: str) -> Tree:
    return dict.fromkeys(names, KEYWORD)


_GEO = _object(
    country=_object(**_keywords("name", "code")),
    **_keywords("county", "city", "postal"),
    latitude=NUMBER,
    longitude=NUMBER,
    location={"type": "geo_point", "ignore_malformed": True},
)

_KINDS: dict[str, Tree] = {
    "text": KEYWORD,
    "texts": KEYWORD,
    "number": NUMBER,
    "date": DATE,
    "geo": _GEO,
    "object": FLATTENED,
    "numbers": FLATTENED,
    "consents": FLATTENED,
}
"""What the kinds of ``fields.json`` become."""


def _typed(tree: Tree) -> Tree:
    return {name: _object(**_typed(kind)) if isinstance(kind, dict) else _KINDS[kind] for name, kind in tree.items()}


def _typed_data(record: str) -> Tree:
    trees: dict[str, Tree] = msgspec.json.decode(data.read("fields.json"))
    return _typed(trees[record]["data"])


_TIMES = {"insert": DATE, "create": DATE, "update": DATE}

_VISITOR = {
    "device": _object(
        **_keywords("name", "brand", "model", "type", "ip", "resolution", "orientation"),
        touch=FLAG,
        color_depth=NUMBER,
        geo=_GEO,
    ),
    "os": _object(**_keywords("name", "version")),
    "app": _object(**_keywords("type", "name", "version", "language", "resolution"), bot=FLAG),
    "utm": _object(**_keywords("source", "medium", "campaign", "term", "content")),
}


def _event() -> Tree:
    return {
        **_keywords("id", "name", "type"),
        "metadata": _object(
            time=_object(**_TIMES, process_time=NUMBER, total_time=NUMBER),
            **_keywords("ip", "status", "channel"),
            processed_by=_object(**_keywords("rules", "flows", "third_party")),
            instance=_object(**_keywords("id")),
            **dict.fromkeys(("profile_less", "debug", "valid", "error", "warning", "merge"), FLAG),
            aux=FLATTENED,
        ),
        "source": _object(**_keywords("id")),
        "session": _object(**_keywords("id", "tz"), start=DATE, duration=NUMBER),
        "profile": _object(**_keywords("id", "primary_id")),
        "entity": _object(**_keywords("id")),
        "tags": _object(values=KEYWORD, count=NUMBER),
        "journey": _object(state=KEYWORD, rate=NUMBER),
        "hit": _object(**_keywords("id", "name", "url", "referer", "query", "category")),
        **_VISITOR,
        "data": _object(**_typed_data("event")),
        "properties": FLATTENED,
        "context": FLATTENED,
        "aux": FLATTENED,
        "trash": FLATTENED,
        "traits": DYNAMIC,
        "request": KEPT,
        "config": KEPT,
    }


def _session() -> Tree:
    return {
        "id": KEYWORD,
        "profile": _object(**_keywords("id", "primary_id")),
        "metadata": _object(
            time=_object(**_TIMES, timestamp=NUMBER, duration=NUMBER, weekday=NUMBER),
            **_keywords("channel", "status"),
            aux=FLATTENED,
            system=FLATTENED,
        ),
        **_VISITOR,
        "context": FLATTENED,
        "properties": FLATTENED,
        "aux": FLATTENED,
        "trash": FLATTENED,
        "traits": DYNAMIC,
    }


def _profile() -> Tree:
    return {
        **_keywords("id", "primary_id", "ids", "segments"),
        "metadata": _object(
            time=_object(
                **_TIMES,
                segmentation=DATE,
                visit=_object(last=DATE, current=DATE, count=NUMBER, tz=KEYWORD),
            ),
            status=KEYWORD,
            aux=FLATTENED,
            fields=KEPT,
            system=FLATTENED,
        ),
        "stats": _object(visits=NUMBER, views=NUMBER, counters=_object(events=NUMBER)),
        "active": FLAG,
        "interests": FLATTENED,
        "consents": FLATTENED,
        "aux": FLATTENED,
        "misc": KEPT,
        "collections": KEPT,
        "trash": FLATTENED,
        "traits": DYNAMIC,
        "data": _object(**_typed_data("profile"), anonymous=FLAG),
    }


def _directory() -> Tree:
    unsearched = {"type": "keyword", "index": False, "doc_values": False}
    return {"target": KEYWORD, "partition": unsearched, "message": unsearched}


_FIELDS = {"event": _event, "session": _session, "profile": _profile, DIRECTORY: _directory}


@cache
def fields(kind: str) -> Tree:
    """The typed fields of a kind, as a mapping's ``properties``. Do not change it."""
    return _FIELDS[kind]()


def mapping(kind: str) -> Tree:
    """The whole mapping. Free traits: texts are keywords, numbers doubles (so that 5 and 7.5 agree), nothing a date."""
    body: Tree = {"dynamic": "strict", "date_detection": False, "properties": fields(kind)}
    if kind != DIRECTORY:
        body["dynamic_templates"] = [
            {"texts": {"match_mapping_type": "string", "mapping": KEYWORD}},
            {"numbers": {"match_mapping_type": "long", "mapping": {"type": "double"}}},
            {"fractions": {"match_mapping_type": "double", "mapping": {"type": "double"}}},
        ]
    # Told apart by it, so that an index that someone else made, or an older version, is brought up to date.
    return {"_meta": {"digest": _digest(body)}, **body}


def template(kind: str, names: Names, *, shards: int, replicas: int) -> Tree:
    """The composable template; ``_meta.digest`` changes with anything in it."""
    index: Tree = {
        "number_of_shards": shards,
        "number_of_replicas": replicas,
        "mapping.total_fields.limit": FIELDS_MAX,
        # STORED means kept: fsync before the answer, whatever the cluster's default.
        "translog.durability": "request",
    }
    if kind in _REFRESH:
        index["refresh_interval"] = _REFRESH[kind]
    body: Tree = {
        "index_patterns": [names.pattern(kind)],
        "priority": 200,
        # We make every index by name. A late write to a dropped one must not bring it back in another shape.
        "allow_auto_create": False,
        "template": {"settings": {"index": index}, "mappings": mapping(kind)},
    }
    if kind != DIRECTORY:
        body["template"]["aliases"] = {names.base(kind): {}}
    return {"_meta": {"name": names.template(kind), "version": 1, "digest": _digest(body)}, **body}


def _digest(body: Tree) -> str:
    return hashlib.sha256(msgspec.json.encode(body, order="deterministic")).hexdigest()[:16]
