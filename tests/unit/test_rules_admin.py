"""Rules over HTTP: in our shape, in the original's five, and tried."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from tracardi_lite.admin import AdminContext, Route
from tracardi_lite.admin.guard import guarded
from tracardi_lite.admin.rule_shapes import rule_of, shape_of
from tracardi_lite.admin.rules import ROUTES
from tracardi_lite.backends.queue.memory import open_queue
from tracardi_lite.backends.registry.sql import open_registry
from tracardi_lite.backends.store.memory import open_store
from tracardi_lite.pipeline.rules import compliance, identification, reshaping, to_profile, traits, validation
from tracardi_lite.pipeline.rules.dry_run import Desk
from tracardi_lite.ports.registry import RULE_KINDS, Registry, Rule
from tracardi_lite.ports.store import KINDS, Claim, Entry, Query, RecordWrite, Store
from tracardi_lite.settings import Settings
from tracardi_lite.testing.clock import FakeClock


class Api:
    def __init__(self, http: TestClient[Any, Any], registry: Registry, store: Store) -> None:
        self.http, self.registry, self.store = http, registry, store
        self.changes = 0

    async def ask(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        answer = await self.http.request(method, path, json=body)
        return answer.status, await answer.json()

    def changed(self) -> None:
        self.changes += 1


@pytest.fixture
async def api(tmp_path: Path) -> AsyncIterator[Api]:
    settings, clock = Settings(data_dir=tmp_path), FakeClock(1_800_000_000_000)
    async with (
        open_registry("sqlite:", settings, clock) as registry,
        open_store("memory:", settings) as store,
        open_queue("memory:", settings, clock=clock) as queue,
    ):
        await registry.migrate()
        app = web.Application()
        http = TestClient(TestServer(app))
        api = Api(http, registry, store)
        context = AdminContext(
            settings=settings,
            registry=registry,
            store=store,
            queue=queue,
            clock=clock,
            version="1",
            rules=Desk(),
            rules_changed=api.changed,
        )
        for route in ROUTES:
            # Who may is the guard's business, and has its tests.
            opened = Route(route.method, route.path, route.handler, open=True)
            app.router.add_route(route.method, route.path, guarded(context, opened))
        async with http:
            yield api


TAGS = {"kind": "mapping", "id": "m", "name": "Money", "event_type": "order-paid", "spec": {"tags": ["x"]}}

ORIGINALS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "validation": (
        "/event-validator",
        "/event-validators",
        {
            "id": "v",
            "name": "V",
            "event_type": "a",
            "tags": ["t"],
            "enabled": True,
            "validation": {"json_schema": {"event@properties": {"type": "object"}}, "condition": "properties.x = 1"},
        },
    ),
    "reshaping": (
        "/event-reshape-schema",
        "/event-reshape-schemas",
        {
            "id": "r",
            "name": "R",
            "event_type": {"id": "a", "name": "A"},
            "event_source": {"id": "shop", "name": "Shop"},
            "enabled": False,
            "reshaping": {
                "reshape_schema": {"properties": {"x": "event@properties.y"}, "context": None},
                "condition": None,
            },
        },
    ),
    "mapping": (
        "/event-type/mapping",
        "/event-type/search/mappings",
        {"id": "m", "name": "M", "event_type": "a", "index_schema": {"x": "y"}, "index_enabled": True, "tags": ["t"]},
    ),
    "to-profile": (
        "/event-to-profile",
        "/events-to-profiles/by_tag",
        {
            "id": "p",
            "name": "P",
            "event_type": {"id": "a", "name": "A"},
            "config": {"condition": "profile@traits.x = 1"},
            "event_to_profile": [
                {
                    "event": {"value": "properties.x", "ref": True},
                    "op": op,
                    "profile": {"value": "traits.x", "ref": True},
                }
                for op in (0, 1, 2)
            ],
        },
    ),
    "compliance": (
        "/consent/compliance/field",
        "/consent/compliance/fields",
        {
            "id": "c",
            "name": "C",
            "event_type": {"id": "a", "name": "A"},
            "settings": [
                {
                    "action": "Hash",
                    "field": {"value": "event@properties.x", "ref": True},
                    "consents": [{"id": "marketing", "name": "Marketing"}],
                }
            ],
        },
    ),
}


async def test_a_rule_is_saved_read_listed_and_deleted(api: Api) -> None:
    assert await api.ask("POST", "/rule", TAGS) == (200, "m")
    whole = msgspec.to_builtins(msgspec.convert(TAGS, Rule))
    assert await api.ask("GET", "/rule/mapping/m") == (200, whole)
    assert await api.ask("GET", "/rules") == (200, {"total": 1, "result": [whole]})
    assert (await api.ask("GET", "/rules?kind=validation"))[1]["total"] == 0
    assert (await api.ask("GET", "/rules?query=money"))[1]["total"] == 1
    assert (await api.ask("GET", "/rules?kind=magic"))[0] == 422
    assert await api.ask("DELETE", "/rule/mapping/m") == (200, [True, whole])
    assert await api.ask("DELETE", "/rule/mapping/m") == (200, [False, None])
    assert await api.ask("GET", "/rule/mapping/m") == (404, None)
    assert api.changes == 3


async def test_a_rule_without_an_id_gets_one(api: Api) -> None:
    status, id = await api.ask("POST", "/rule", {**TAGS, "id": None})
    assert status == 200
    assert await api.registry.rule("mapping", id) is not None


@pytest.mark.parametrize(
    ("change", "loc"),
    [
        ({"spec": {"traits": {"a..b": "c"}}}, ["body", "spec", "traits", "a..b"]),
        ({"condition": "type ="}, ["body", "condition"]),
        ({"kind": "magic"}, ["body", "kind"]),
        ({"enabled": "perhaps"}, ["body", "enabled"]),
    ],
    ids=str,
)
async def test_a_broken_rule_is_422_with_its_place_and_not_saved(
    api: Api, change: dict[str, Any], loc: list[str]
) -> None:
    status, body = await api.ask("POST", "/rule", TAGS | change)
    assert status == 422
    assert body["detail"][0]["loc"] == loc
    assert await api.registry.rules() == []
    assert api.changes == 0


@pytest.mark.parametrize("kind", ORIGINALS)
async def test_the_originals_shape_is_taken_and_given_back(api: Api, kind: str) -> None:
    path, listing, body = ORIGINALS[kind]
    assert await api.ask("GET", listing) == (200, {"total": 0, "grouped": None})
    assert await api.ask("POST", path, body) == (200, body["id"])
    saved = await api.registry.rule(kind, body["id"])
    assert saved is not None
    assert saved.event_type == "a"
    assert saved.enabled is body.get("enabled", True)
    status, shown = await api.ask("GET", f"{path}/{body['id']}")
    assert status == 200
    assert (await api.ask("GET", listing))[1]["grouped"].popitem()[1] == [shown]
    assert await api.ask("POST", path, shown) == (200, body["id"])
    assert await api.registry.rule(kind, body["id"]) == saved, "read and saved again, it is the same rule"
    assert (await api.ask("DELETE", f"{path}/{body['id']}")) == (200, [True, shown])
    assert await api.ask("GET", f"{path}/{body['id']}") == (404, None)


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("validation", {}),
        ("validation", {"validation": {"json_schema": {"event@properties": {"type": 5}}}}),
        ("reshaping", {"reshaping": {}}),
        ("mapping", {"index_schema": 7}),
        ("to-profile", {"event_to_profile": 7}),
        ("to-profile", {"event_to_profile": [7]}),
        ("to-profile", {"event_to_profile": [{"event": None, "op": 9, "profile": None}]}),
        ("to-profile", {"event_to_profile": [{"event": {"value": 5}, "op": 0, "profile": {"value": None}}]}),
        ("compliance", {}),
        ("compliance", {"settings": [None]}),
        ("compliance", {"settings": [{"action": "eat", "field": None, "consents": 5}]}),
    ],
    ids=str,
)
async def test_what_is_no_rule_of_the_originals_is_422(api: Api, kind: str, body: dict[str, Any]) -> None:
    status, answer = await api.ask("POST", ORIGINALS[kind][0], {"id": "x", "name": "x", "event_type": "a", **body})
    assert status == 422, answer
    assert answer["detail"][0]["loc"][0] == "body"


def test_what_the_original_has_no_word_for_survives_its_shape() -> None:
    for kind, (_, _, body) in ORIGINALS.items():
        rule = msgspec.convert(rule_of(kind, body), Rule)
        more = msgspec.structs.replace(rule, order=7, source="shop", condition="type = a", description="d")
        assert msgspec.convert(rule_of(kind, shape_of(more)), Rule) == more
    values = [{"to": "traits.n", "op": "increment"}, {"to": "traits.v", "value": 5}, "traits.w"]
    rule = Rule(kind="to-profile", id="p", spec={"ops": values})
    again = msgspec.convert(rule_of("to-profile", shape_of(rule)), Rule)
    assert again.spec["ops"] == [
        {"to": "traits.n", "op": "increment"},
        {"to": "traits.v", "op": "equal", "value": 5},
        {"to": "traits.w", "op": "equal", "from": "traits.w"},
    ]


async def test_what_there_is_for_a_type_is_told_with_what_is_built_in(api: Api) -> None:
    await api.ask("POST", "/event-type/mapping", {**ORIGINALS["mapping"][2], "event_type": "sign-up"})
    status, body = await api.ask("GET", "/event-type/mappings/Sign%20Up")
    assert status == 200
    assert [each["build_in"] for each in body["result"]] == [True, False]
    assert body["result"][0]["index_schema"]["email.main"] == "data.contact.email.main"
    status, body = await api.ask("GET", "/event-to-profiles/type/sign-up")
    assert status == 200
    assert all(each["build_in"] for each in body["result"])
    assert (await api.ask("GET", "/event-to-profiles/type/never-heard-of"))[0] == 404


async def test_rules_are_tried_and_nothing_is_stored(api: Api) -> None:
    await api.ask("POST", "/rule", TAGS)
    draft = {"kind": "to-profile", "id": "d", "spec": {"ops": [{"to": "traits.total", "from": "properties.total"}]}}
    body = {"event": {"type": "Order paid", "properties": {"total": 7}}, "rules": [draft]}
    status, result = await api.ask("POST", "/rules/try", body)
    assert status == 200
    assert result["after"]["event"]["tags"]["values"] == ["x"]
    assert result["before"]["event"]["tags"]["values"] == []
    assert result["after"]["profile"]["traits"] == {"total": 7}
    assert [(each["id"], each["matched"]) for each in result["rules"]] == [("m", True), ("d", True)]
    assert await api.registry.rule("to-profile", "d") is None
    for kind in KINDS:
        assert (await api.store.search(kind, Query())).total == 0


async def test_rules_are_tried_on_a_stored_profile(api: Api) -> None:
    await api.store.claim([Claim("p:p-1", Entry("p-1", "2027-q1", "m"))])
    doc = msgspec.json.encode({"id": "p-1", "traits": {"plan": "gold"}})
    await api.store.put([RecordWrite("profile", "p-1", "2027-q1", doc, None, 0)])
    body = {"event": {"type": "a"}, "profile_id": "p-1"}
    assert (await api.ask("POST", "/rules/try", body))[1]["after"]["profile"]["traits"] == {"plan": "gold"}
    assert (await api.ask("POST", "/rules/try", body | {"profile_id": "nobody"}))[0] == 422


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"event": {}},
        {"event": {"type": "a"}, "rule": []},
        {"event": {"type": "a"}, "rules": [{"kind": "mapping", "id": "x"}]},
        {"event": {"type": "sign-up", "properties": {"email": {"main": "a"}}}, "profile": {"data": {"contact": 5}}},
        {"event": {"type": "sign-up", "properties": {"email": {"main": "a"}}}, "profile": {"data": 5}},
    ],
    ids=str,
)
async def test_a_trial_that_makes_no_sense_is_422(api: Api, body: dict[str, Any]) -> None:
    status, answer = await api.ask("POST", "/rules/try", body)
    assert status == 422, answer


def test_every_field_and_kind_of_a_rule_and_of_its_content_is_documented() -> None:
    page = (Path(__file__).parents[2] / "docs" / "rules.md").read_text()
    contents = (
        validation.Spec,
        reshaping.Spec,
        traits.Spec,
        to_profile.Spec,
        identification.Spec,
        compliance.Spec,
        compliance.Setting,
    )
    names = {field.name for struct in (Rule, *contents) for field in msgspec.structs.fields(struct)} | set(RULE_KINDS)
    assert not [name for name in sorted(names) if f"`{name}`" not in page and f'"{name}"' not in page]
