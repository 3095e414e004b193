"""Partitions age in a real Elasticsearch: tiers, real snapshots, a drop and a restore, by the pass and by hand."""

from __future__ import annotations

import asyncio
import json
import re
from uuid import uuid4

import pytest
from aiohttp import web
from msgspec import structs

from tests.integration.elastic import cleaned, fresh_settings, opened, server
from tests.integration.elastic_proxy import Proxy
from tracardi_lite import partitioning
from tracardi_lite.backends.store.elasticsearch.connection import Connection
from tracardi_lite.cli import run
from tracardi_lite.clock import SystemClock
from tracardi_lite.errors import BadInput
from tracardi_lite.lifecycle.keeper import Keeper
from tracardi_lite.lifecycle.plan import Step
from tracardi_lite.ports.store import STORED
from tracardi_lite.settings import Settings
from tracardi_lite.testing.store_suite import event_write

pytestmark = pytest.mark.integration

DAY_S = 86_400


def policy() -> Settings:
    return fresh_settings(
        store_url="elasticsearch:",
        elastic_snapshots=f"fs:{server()['snapshots']}/{uuid4().hex[:8]}",
        retention_event=400 * DAY_S,
        retention_warm_after=40 * DAY_S,
        retention_cold_after=100 * DAY_S,
        retention_replicas=0,
    )


def month_ending_ago(days: int) -> str:
    """The event partition that had ended so many days ago, at least."""
    at_ms = SystemClock().now_ms() - days * DAY_S * 1000
    return partitioning.previous(partitioning.partition_of("month", at_ms))


async def index_settings(connection: Connection, settings: Settings, partition: str) -> dict[str, str]:
    index = f"09x.{settings.tenant_name}.tracardi-event-{partition}"
    answer = await connection.do("GET", f"/{index}/_settings?flat_settings=true")
    found: dict[str, str] = json.loads(answer.body)[index]["settings"]
    return found


async def test_the_pass_takes_partitions_through_their_ages_and_keeps_a_copy_of_what_it_drops() -> None:
    settings = policy()
    old, cold, warm = (month_ending_ago(days) for days in (400, 100, 40))
    events = [event_write(partition=name) for name in (old, cold, warm)]
    async with cleaned(settings) as connection, opened(settings) as store:
        assert await store.create_events(events) == [STORED] * 3
        keeper = Keeper(store, settings, SystemClock(), "one")
        steps = await keeper.once()
        assert [step for step in steps if step.act != "create"] == [
            Step("drop", "event", old),
            Step("move", "event", cold, "cold"),
            Step("move", "event", warm, "warm"),
        ]
        assert await keeper.once() == []
        assert await Keeper(store, settings, SystemClock(), "two").once() == [], "one leads"

        left = {(info.kind, info.name) for info in await store.partitions()}
        assert ("event", old) not in left
        assert {kind for kind, _ in left} == {"event", "profile", "session"}, "today's were made"
        for name, tiers in ((cold, "data_cold,data_warm,data_hot"), (warm, "data_warm,data_hot")):
            found = await index_settings(connection, settings, name)
            assert found["index.routing.allocation.include._tier_preference"] == tiers
            assert found["index.blocks.write"] == "true"
            assert found["index.number_of_replicas"] == "0"

        assert await store.find("event", events[0].id) is None
        [copy] = await store.lifecycle.snapshots()
        assert (copy.partition, copy.state) == (old, "success")
        assert await store.lifecycle.restore("event", old)
        back = await store.find("event", events[0].id)
        assert back is not None
        assert json.loads(back.doc) == json.loads(events[0].doc)


def test_the_same_by_hand(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    settings = policy()
    for key in ("elastic_host", "tenant_name", "elastic_snapshots", "elastic_index_shards"):
        monkeypatch.setenv(key.upper(), str(getattr(settings, key)))
    event = event_write(partition="2025-3")

    def partitions(*args: str) -> str:
        code = run(("partitions", *args))
        said = capsys.readouterr()
        assert code == 0, said.err
        return said.out

    async def write() -> None:
        async with opened(settings) as store:
            assert await store.create_events([event]) == [STORED]

    async def found() -> bool:
        async with opened(settings) as store:
            return await store.find("event", event.id) is not None

    async def sweep() -> None:
        async with cleaned(settings):
            pass

    try:
        assert partitions("create", "event", "2025-3") == "Made event partition 2025-3.\n"
        assert "is there" in partitions("create", "event", "2025-3")
        asyncio.run(write())
        assert "No snapshots" in partitions("snapshots")
        assert "cold nodes" in partitions(
            "move", "event", "2025-3", "cold", "--read-only", "--merge", "--replicas", "0"
        )
        assert partitions("snapshot", "event", "2025-3").endswith(": success\n")
        assert [each["partition"] for each in json.loads(partitions("snapshots", "--json"))] == ["2025-3"]
        assert run(("partitions", "restore", "event", "2025-3")) == 1
        assert "drop it first" in capsys.readouterr().err
        partitions("drop", "event", "2025-3", "--yes")
        assert not asyncio.run(found())
        assert partitions("restore", "event", "2025-3") == "Restored event partition 2025-3.\n"
        assert asyncio.run(found())
        assert run(("partitions", "snapshot", "event", "1999-1")) == 1
        assert "no partition" in capsys.readouterr().err
    finally:
        asyncio.run(sweep())


class NodesWithS3(Proxy):
    """Elasticsearch with the module ``repository-s3``, which is not published: repositories of the type ``s3`` are kept
    in folders of the type ``fs``. What is asked of them is held against Elasticsearch's documentation: ``bucket`` is
    the one setting that has to be there, ``base_path`` neither begins nor ends with a slash, credentials are the
    nodes'."""

    def __init__(self, target: str, folder: str) -> None:
        super().__init__(target)
        self.folder = folder
        self.asked: list[dict[str, dict[str, str]]] = []

    def sent(self, request: web.Request, body: bytes) -> bytes:
        if request.method != "PUT" or not re.fullmatch(r"/_snapshot/[^/]+", request.path):
            return body
        asked = json.loads(body)
        assert asked.keys() == {"type", "settings"}
        assert asked["type"] == "s3"
        assert {"bucket"} <= asked["settings"].keys() <= {"bucket", "base_path"}
        assert asked["settings"]["base_path"].strip("/") == asked["settings"]["base_path"]
        self.asked.append(asked)
        location = "/".join((self.folder, asked["settings"]["bucket"], asked["settings"]["base_path"]))
        return json.dumps({"type": "fs", "settings": {"location": location}}).encode()

    def received(self, request: web.Request, body: bytes) -> bytes:
        if request.method != "GET" or not re.fullmatch(r"/_snapshot/[^/]+", request.path) or not self.asked:
            return body
        return json.dumps(dict.fromkeys(json.loads(body), self.asked[-1])).encode()


async def test_snapshots_go_to_s3_as_documented_and_come_back() -> None:
    async with NodesWithS3(server()["url"], f"{server()['snapshots']}/{uuid4().hex[:8]}").running() as nodes:
        settings = fresh_settings(
            elastic_host=nodes.url, store_url="elasticsearch:", elastic_snapshots="s3://my-bucket/of/tracardi/"
        )
        event = event_write(partition="2025-3")
        async with cleaned(settings), opened(settings) as store:
            assert await store.create_events([event]) == [STORED]
            assert (await store.lifecycle.snapshot("event", "2025-3")).state == "success"
            assert await store.drop_partition("event", "2025-3")
            assert await store.find("event", event.id) is None
            assert await store.lifecycle.restore("event", "2025-3")
            back = await store.find("event", event.id)
            assert back is not None
            assert back.doc == event.doc
            assert not [line for line in await store.provision(dry_run=True) if "snapshots" in line]
    assert nodes.asked == [{"type": "s3", "settings": {"bucket": "my-bucket", "base_path": "of/tracardi"}}]


async def test_nodes_that_have_no_s3_say_so() -> None:
    settings = fresh_settings(store_url="elasticsearch:", elastic_snapshots="s3://my-bucket")
    async with cleaned(settings), opened(settings) as store:
        with pytest.raises(BadInput, match=r"can't use s3://my-bucket for snapshots.*\[s3\] does not exist"):
            await store.provision()


async def test_a_place_that_has_changed_is_said_and_one_with_more_settings_left_alone() -> None:
    settings = policy()
    elsewhere = f"fs:{server()['snapshots']}/{uuid4().hex[:8]}"
    async with cleaned(settings) as connection, opened(settings) as store:
        await store.provision()
        target = f"/_snapshot/tracardi-lite-{settings.tenant_name}"
        location = settings.elastic_snapshots.removeprefix("fs:")
        await connection.do("PUT", target, {"type": "fs", "settings": {"location": location, "compress": "false"}})
        assert await store.provision() == []
        await store.lifecycle.snapshots()
        assert b'"compress":"false"' in (await connection.do("GET", target)).body
        async with opened(structs.replace(settings, elastic_snapshots=elsewhere)) as moved:
            line = f"register {elsewhere} (was {settings.elastic_snapshots}) for snapshots"
            assert await moved.provision(dry_run=True) == [line]
            assert await moved.provision() == [line]
            assert await moved.provision() == []
