"""Records glued from bytes: valid JSON, and what was sent, whatever was sent."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.property.json_values import objects
from tests.rig import Rig
from tracardi_lite.pipeline.event_types import EventTypes, normalise_type
from tracardi_lite.protocol.ids import event_id

TYPES = [entry.id for entry in EventTypes()]
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
events = st.fixed_dictionaries(
    {"type": st.sampled_from(TYPES) | texts.filter(lambda text: bool(text.strip()))},
    optional={
        "id": texts,
        "properties": objects | st.none(),
        "context": objects | st.none() | st.fixed_dictionaries({"page": objects}),
        "options": objects | st.none(),
        "tags": st.lists(texts, max_size=3),
    },
)
# Sources that begin with @ are the server's own: the door lets none in.
sources = texts.filter(lambda text: not text.startswith("@"))
heads = st.fixed_dictionaries({"source": sources, "channel": texts, "instance": texts, "ip": st.none() | texts})


async def stored(sent: list[dict[str, Any]], head: dict[str, Any], **payload: Any) -> list[dict[str, Any]]:
    async with Rig(system_events=False, bulk_idle=0.0001) as rig:
        await rig.send(events=sent, message="m", payload=payload, **head)
        await rig.drain()
        assert not await rig.queue.dead_letters()
        await rig.audit()
        # As text: json.loads tells 1.0 from 1, and reads numbers of any size.
        rows = rig.store._rows["event"].values()
        return [json.loads(row.doc) for partition in rows for row in partition.values()]


def as_sent(part: Any) -> str:
    return json.dumps(json.loads(msgspec.json.encode(part or {})))


@settings(max_examples=80)
@given(
    st.lists(events, min_size=1, max_size=4),
    heads,
    objects,
    objects,
    objects,
    st.dictionaries(texts, texts, max_size=3),
)
def test_a_record_is_json_and_holds_what_was_sent(
    sent: list[dict[str, Any]],
    head: dict[str, Any],
    context: dict[str, Any],
    properties: dict[str, Any],
    request: dict[str, Any],
    headers: dict[str, str],
) -> None:
    records = asyncio.run(
        stored(sent, {**head, "headers": headers}, context=context, properties=properties, request=request)
    )

    found = {record["id"]: record for record in records}
    for index, event in reversed(list(enumerate(sent))):
        record = found.get(event.get("id") or "") or found.get(event_id("m", index))
        assert record is not None
        if [other.get("id") for other in sent].count(event.get("id")) == 1 or not event.get("id"):
            assert record["type"] == normalise_type(event["type"])
            assert json.dumps(record["properties"]) == as_sent(event.get("properties"))
            assert json.dumps(record["context"]) == as_sent(event.get("context"))
            assert json.dumps(record["config"]) == as_sent(event.get("options"))
        assert record["source"] == {"id": head["source"]}
        assert record["metadata"]["channel"] == head["channel"]
        assert record["request"]["headers"] == headers
