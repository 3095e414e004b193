"""The admin API over HTTP: real handlers, the SQLite registry, store and queue in memory."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import msgspec
import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer
from msgspec import structs

from tracardi_lite.admin import AdminContext, add_admin_routes
from tracardi_lite.admin.answers import with_field
from tracardi_lite.admin.routes import ROUTES
from tracardi_lite.backends.queue.memory import open_queue
from tracardi_lite.backends.registry.sql import open_registry, passwords
from tracardi_lite.backends.store.memory import open_store
from tracardi_lite.errors import Unavailable
from tracardi_lite.install import install
from tracardi_lite.ports.queue import DeadLetter, Done, Publication, Tally
from tracardi_lite.ports.registry import SOURCE_TYPES, User
from tracardi_lite.ports.store import Claim, Entry, EventWrite, RecordWrite, Store
from tracardi_lite.protocol.envelope import Head, decode_head, encode_head
from tracardi_lite.settings import Settings
from tracardi_lite.testing.clock import FakeClock

LOGIN = {"username": "admin@localhost", "password": "a password"}
NOW_MS = 1_800_000_000_000  # 2027-01-15T08:00:00Z
HOUR_MS = 3_600_000


class Api:
    """A client with a token, and the parts behind it."""

    def __init__(
        self, http: TestClient[web.Request, web.Application], context: AdminContext, changed: list[str]
    ) -> None:
        self.http = http
        self.context = context
        self.changed = changed
        self.headers: dict[str, str] = {}

    async def log_in(self) -> None:
        answer = await self.http.post("/user/token", data=LOGIN)
        assert answer.status == 200
        self.headers = {"Authorization": f"Bearer {(await answer.json())['access_token']}"}

    async def ask(self, method: str, path: str, **options: Any) -> tuple[int, Any]:
        answer = await self.http.request(method, path, headers=self.headers, **options)
        assert answer.content_type == "application/json"
        return answer.status, await answer.json()

    async def get(self, path: str, **params: Any) -> Any:
        status, value = await self.ask("GET", path, params=params)
        assert status == 200, value
        return value

    async def post(self, path: str, body: Any = None) -> Any:
        status, value = await self.ask("POST", path, json=body)
        assert status == 200, value
        return value


@pytest.fixture(autouse=True)
def cheap_passwords(monkeypatch: pytest.MonkeyPatch) -> None:
    from argon2 import PasswordHasher

    hasher = PasswordHasher(time_cost=1, memory_cost=64, parallelism=1)
    monkeypatch.setattr(passwords, "_hasher", lambda: hasher)
    monkeypatch.setattr(passwords, "NOBODY", hasher.hash("nobody's"))


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(
        data_dir=tmp_path,
        queue_partitions=2,
        installation_token="open-sesame",
        queue_url="pulsar://user:hunter2@broker",
    )


@pytest.fixture
async def api(settings: Settings) -> AsyncIterator[Api]:
    async with opened(settings) as api:
        yield api


@asynccontextmanager
async def opened(settings: Settings) -> AsyncIterator[Api]:
    clock, changed = FakeClock(NOW_MS), list[str]()
    async with (
        open_registry("sqlite:", settings, clock) as registry,
        open_store("memory:", settings) as store,
        open_queue("memory:", settings, clock=clock) as queue,
    ):
        context = AdminContext(
            settings=settings,
            registry=registry,
            store=store,
            queue=queue,
            clock=clock,
            version="1.2.3",
            source_changed=changed.append,
        )
        await install(settings, registry, password=LOGIN["password"])
        app = web.Application()
        add_admin_routes(app, context)
        async with TestClient(TestServer(app)) as http:
            api = Api(http, context, changed)
            await api.log_in()
            yield api


# --- who may ---


@pytest.mark.parametrize("route", [route for route in ROUTES if not route.open], ids=lambda r: f"{r.method} {r.path}")
async def test_nothing_but_logging_in_and_installing_is_answered_without_a_token(api: Api, route: Any) -> None:
    path = (
        route.path.replace("{index:event|profile|session}", "event").replace(r"{page:\d{1,9}}", "1").replace("{", "")
    ).replace("}", "")
    for headers in (
        {},
        {"Authorization": "Bearer nonsense"},
        {"Authorization": "Basic YTpi"},
        {"Authorization": "Bearer"},
    ):
        answer = await api.http.request(route.method, path, headers=headers)
        assert answer.status == 401
        assert answer.headers["WWW-Authenticate"] == "Bearer"
        assert isinstance((await answer.json())["detail"], str)


async def test_every_route_answers_403_where_the_admin_api_is_off(api: Api, settings: Settings) -> None:
    context = msgspec.structs.replace(api.context, settings=msgspec.structs.replace(settings, expose_gui_api=False))
    app = web.Application()
    add_admin_routes(app, context)
    async with TestClient(TestServer(app)) as http:
        for method, path in (("POST", "/user/token"), ("GET", "/install"), ("GET", "/info/version")):
            answer = await http.request(method, path, headers=api.headers, data=LOGIN if method == "POST" else None)
            assert answer.status == 403
            assert "EXPOSE_GUI_API" in (await answer.json())["detail"]


async def test_logging_in_gives_a_token_that_logging_out_ends(api: Api) -> None:
    answer = await api.http.post("/token", data=LOGIN | {"grant_type": "password"})
    body = await answer.json()
    assert body | {"access_token": ""} == {
        "access_token": "",
        "token_type": "bearer",
        "roles": ["admin"],
        "preference": {},
    }
    api.headers = {"Authorization": f"bearer {body['access_token']}"}
    assert await api.get("/info/version") == "1.2.3"
    assert await api.post("/user/logout") is None
    assert (await api.ask("GET", "/info/version"))[0] == 401


async def test_a_bad_login_is_400_and_too_many_are_429_with_when_to_try_again(api: Api) -> None:
    for _ in range(5):
        status, body = await api.ask("POST", "/user/token", data=LOGIN | {"password": "guess"})
        assert status == 400
        assert body["detail"].startswith("Authentication error: ")
    answer = await api.http.post("/user/token", data=LOGIN)
    assert answer.status == 429
    assert answer.headers["Retry-After"] == "300"
    assert (await answer.json())["detail"].startswith("Authentication error: ")
    assert await api.get("/info/version") == "1.2.3", "who is logged in stays so"


@pytest.mark.parametrize(
    ("options", "status"),
    [
        ({}, 422),
        ({"data": {"username": "a@b"}}, 422),
        ({"data": LOGIN | {"grant_type": "implicit"}}, 422),
        ({"json": LOGIN}, 422),
        ({"data": b"x" * 100_000, "headers": {"Content-Type": "application/x-www-form-urlencoded"}}, 413),
        ({"data": b"--x", "headers": {"Content-Type": "multipart/form-data"}}, 422),
        ({"data": b"--x\r\nContent-Dis", "headers": {"Content-Type": "multipart/form-data; boundary=x"}}, 422),
        ({"data": "ä", "headers": {"Content-Type": "application/x-www-form-urlencoded; charset=nonsense"}}, 422),
    ],
    ids=str,
)
async def test_a_login_that_is_no_form_is_refused(api: Api, options: dict[str, Any], status: int) -> None:
    answer = await api.http.post("/user/token", **options)
    assert answer.status == status
    assert "detail" in await answer.json()


async def test_a_token_ends_when_it_is_not_used_and_lives_while_it_is(api: Api) -> None:
    clock = api.context.clock
    assert isinstance(clock, FakeClock)
    for _ in range(4):
        clock.advance(1700)
        await api.get("/info/version")
    clock.advance(1801)
    assert (await api.ask("GET", "/info/version"))[0] == 401


async def test_other_roles_may_not(api: Api) -> None:
    await api.context.registry.create_user(User(id="m@example.com", roles=["marketer"]), "a password")
    token = await api.context.registry.issue_token("m@example.com", 60)
    answer = await api.http.get("/info/version", headers={"Authorization": f"Bearer {token}"})
    assert answer.status == 403


async def test_a_registry_that_is_away_is_503_with_retry_after(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    async def away(*_: object) -> None:
        raise Unavailable("registry", "gone fishing", retry_after_s=2.5)

    monkeypatch.setattr(api.context.registry, "check_token", away)
    answer = await api.http.get("/event-sources", headers=api.headers)
    assert answer.status == 503
    assert answer.headers["Retry-After"] == "3"
    assert "registry" in (await answer.json())["detail"]


# --- installing ---


async def test_the_state_of_the_installation_is_open_to_all(api: Api) -> None:
    api.headers = {}
    assert await api.get("/install") == {"schema_ok": True, "admin_ok": True, "form_ok": True, "warning": None}


async def test_installing_over_http_makes_an_administrator_with_the_token_only(api: Api) -> None:
    body = {"token": "open-sesame", "username": "ann@example.com", "password": "long enough", "needs_admin": True}
    for change in ({"token": "guess"}, {"token": ""}, {"username": "ann"}):
        status, answer = await api.ask("POST", "/install", json=body | change)
        assert status == 403
        assert isinstance(answer["detail"], str)
    staging, production = await api.post("/install", body)
    assert staging["admin"] == "ann@example.com"
    assert staging["created"] == {"templates": [], "indices": [], "aliases": []}
    assert production["report"] == []
    assert await api.context.registry.authenticate("ann@example.com", "long enough") is not None


async def test_installing_with_settings_that_cannot_change_is_a_conflict(api: Api, settings: Settings) -> None:
    context = msgspec.structs.replace(api.context, settings=msgspec.structs.replace(settings, tenant_name="other"))
    app = web.Application()
    add_admin_routes(app, context)
    async with TestClient(TestServer(app)) as http:
        answer = await http.post("/install", json={"token": "open-sesame", "needs_admin": False})
        assert answer.status == 409
        assert "tenant_name" in (await answer.json())["detail"]


# --- event sources and redirects ---


async def test_a_source_is_made_read_listed_replaced_and_deleted(api: Api) -> None:
    body = {"id": "shop", "type": "rest", "name": "Shop", "tags": ["eu"], "config": None, "enabled": None}
    assert await api.post("/event-source", body) == "shop"
    source = await api.get("/event-source/shop")
    assert source["type"] == ["rest"]
    assert source["bridge"]["id"] == "778ded05-4ff3-4e08-9a86-72c0195fa95d"
    assert source["enabled"] is True
    assert source["timestamp"].startswith("2027-01-15T08:00:00")
    assert await api.post("/event-source", source | {"enabled": False}) == "shop"
    assert (await api.get("/event-source/shop")) == source | {"enabled": False}

    listed = await api.get("/event-sources")
    assert listed["total"] == 2
    assert [row["id"] for row in listed["grouped"]["Event sources"]] == ["default", "shop"]
    assert (await api.get("/event-sources", query="sho"))["total"] == 1
    assert await api.get("/event-sources/by_type", query="nothing") == {"total": 0, "grouped": None}

    deleted, was = (await api.ask("DELETE", "/event-source/shop"))[1]
    assert deleted is True
    assert was["id"] == "shop"
    assert (await api.ask("DELETE", "/event-source/shop"))[1] == [False, None]
    assert await api.ask("GET", "/event-source/shop") == (404, None)
    assert api.changed == ["shop"] * 4


async def test_a_source_without_an_id_gets_one(api: Api) -> None:
    id = await api.post("/event-source", {"type": ["webhook"], "name": "Hook"})
    assert (await api.get(f"/event-source/{id}"))["name"] == "Hook"


@pytest.mark.parametrize(
    "body",
    [
        {"id": "x", "type": ["pigeon"]},
        {"id": "@internal", "type": ["rest"]},
        {"id": "x", "type": 5},
        {"id": 5, "type": ["rest"]},
        {"id": "x", "config": "text"},
        [],
        "text",
        None,
    ],
    ids=str,
)
async def test_what_is_no_source_is_422_with_a_reason(api: Api, body: Any) -> None:
    status, answer = await api.ask("POST", "/event-source", json=body)
    assert status == 422
    assert answer["detail"]
    assert (await api.get("/event-sources"))["total"] == 1


async def test_bodies_that_are_not_json_or_too_large_are_refused(api: Api) -> None:
    status, answer = await api.ask("POST", "/event-source", data=b"{not json")
    assert (status, answer["detail"][0]["type"]) == (422, "json_invalid")
    assert (await api.ask("POST", "/event-source", data=b"[" * 100_000))[0] == 422
    assert (await api.ask("POST", "/event-source", data=BytesIO(b" " * (2 << 20))))[0] == 413


async def test_sources_as_entities_and_the_types_there_are(api: Api) -> None:
    await api.post("/event-source", {"id": "hook", "type": ["webhook"], "name": "Hook"})
    assert await api.get("/event-sources/entity", type="webhook") == {
        "total": 1,
        "result": [{"id": "hook", "name": "Hook"}],
    }
    assert (await api.get("/event-sources/entity", add_current="true"))["result"][0]["id"] == "@current-source"
    names = await api.get("/event-sources/type/name")
    assert set(names["result"]) == set(SOURCE_TYPES)
    configurations = await api.get("/event-sources/type/configuration")
    assert configurations["total"] == len(SOURCE_TYPES)
    assert configurations["result"]["rest"]["config"] == {"static_profile_id": False}


async def test_redirects_are_made_read_listed_and_deleted(api: Api) -> None:
    body = {"name": "Mail", "source": {"id": "default"}, "url": "https://example.com/", "event_type": "clicked"}
    id = await api.post("/event-redirect", body)
    redirect = await api.get(f"/event-redirect/{id}")
    assert redirect["props"] == {}
    assert await api.get("/event-redirects") == {"total": 1, "result": [redirect]}
    assert (await api.ask("POST", "/event-redirect", json=body | {"url": "ftp://x"}))[0] == 422
    assert (await api.ask("POST", "/event-redirect", json={"name": "no url"}))[0] == 422
    assert (await api.ask("DELETE", f"/event-redirect/{id}"))[1] == [True, redirect]
    assert (await api.ask("DELETE", f"/event-redirect/{id}"))[1] == [False, None]
    assert await api.ask("GET", f"/event-redirect/{id}") == (404, None)


# --- records ---


async def put(store: Store, kind: Any, id: str, partition: str, doc: dict[str, Any], **more: Any) -> None:
    data = msgspec.json.encode({"id": id, **doc})
    (verdict,) = await store.put([RecordWrite(kind, id, partition, data, None, NOW_MS, **more)])
    assert verdict.outcome.value == "stored"


async def add_events(store: Store, *events: tuple[str, str, str, str, int]) -> None:
    """(id, type, session, profile, hours ago)"""
    writes = []
    for id, kind, session, profile, hours in events:
        doc = {"id": id, "type": kind, "session": {"id": session}, "profile": {"id": profile}}
        insert = NOW_MS - hours * HOUR_MS
        writes.append(
            EventWrite(id, "2027-1", msgspec.json.encode(doc), "m", kind, "default", session, profile, insert)
        )
    assert {verdict.outcome.value for verdict in await store.create_events(writes)} == {"stored"}


@pytest.fixture
async def merged(api: Api) -> Api:
    """A profile, another that became its alias, and one that the directory does not know."""
    store = api.context.store
    await put(store, "profile", "ann", "2026-q4", {"ids": ["ann", "old-ann"], "traits": {"n": 1}})
    await put(store, "profile", "stray", "2020-q1", {})
    await put(store, "session", "s-1", "2027-q1", {"profile": {"id": "ann"}}, profile="ann")
    await store.claim(
        [
            Claim("p:ann", Entry("ann", "2026-q4")),
            Claim("p:old-ann", Entry("ann", "")),
            Claim("p:older-ann", Entry("old-ann", "")),
            Claim("p:loop", Entry("pool", "")),
            Claim("p:pool", Entry("loop", "")),
            Claim("s:s-1", Entry("ann", "2027-q1")),
        ]
    )
    await add_events(
        store,
        ("e-1", "page-view", "s-1", "ann", 0),
        ("e-2", "sign-up", "s-1", "ann", 1),
        ("e-3", "page-view", "s-0", "old-ann", 5),
        ("e-4", "page-view", "s-9", "stray", 5),
    )
    return api


@pytest.mark.parametrize("id", ["ann", "old-ann", "older-ann"])
async def test_a_profile_is_found_by_every_id_it_had(merged: Api, id: str) -> None:
    profile = await merged.get(f"/profile/{id}")
    assert profile["id"] == "ann"
    assert profile["traits"] == {"n": 1}
    assert profile["_meta"]["index"] == "09x.8504a.tracardi-profile-2026-q4"
    assert profile["_meta"]["id"] == "ann"
    assert profile["_meta"]["version"]


async def test_a_profile_that_the_directory_does_not_know_is_found_all_the_same(merged: Api) -> None:
    assert (await merged.get("/profile/stray"))["_meta"]["index"].endswith("2020-q1")
    assert await merged.ask("GET", "/profile/nobody") == (404, None)
    assert await merged.ask("GET", "/profile/loop") == (404, None)


async def test_deleting_by_an_old_id_deletes_the_customer(merged: Api) -> None:
    assert await merged.get("/profile/count") == {"count": 2}
    status, answer = await merged.ask("DELETE", "/profile/old-ann")
    assert (status, answer["_id"], answer["result"]) == (200, "ann", "deleted")
    assert await merged.ask("DELETE", "/profile/old-ann") == (404, None)
    assert await merged.get("/profile/count") == {"count": 1}


async def test_sessions_are_read_counted_and_deleted(merged: Api) -> None:
    session = await merged.get("/session/s-1")
    assert session["_meta"]["index"] == "09x.8504a.tracardi-session-2027-q1"
    assert (await merged.get("/session/profile/old-ann"))["id"] == "s-1"
    assert await merged.ask("GET", "/session/profile/ann?n=1") == (404, None)
    assert await merged.get("/session/count") == {"count": 1}
    assert (await merged.ask("DELETE", "/session/s-1"))[0] == 200
    assert await merged.ask("GET", "/session/s-1") == (404, None)


async def test_events_are_read_counted_and_deleted(merged: Api) -> None:
    answer = await merged.get("/event/e-1")
    assert answer["event"]["type"] == "page-view"
    assert answer["_metadata"]["index"] == "09x.8504a.tracardi-event-2027-1"
    assert await merged.get("/event/count") == {"count": 4}
    assert await merged.get("/event/count", where='type="sign-up"') == {"count": 1}
    assert (await merged.ask("DELETE", "/event/e-1"))[1]["result"] == "deleted"
    assert await merged.ask("GET", "/event/e-1") == (404, None)
    assert await merged.ask("DELETE", "/event/e-1") == (404, None)


@pytest.mark.parametrize("id", ["ann", "old-ann"])
async def test_a_profiles_events_are_found_under_all_its_ids_newest_first(merged: Api, id: str) -> None:
    answer = await merged.get(f"/events/profile/{id}")
    assert (answer["total"], [event["id"] for event in answer["result"]]) == (3, ["e-1", "e-2", "e-3"])
    answer = await merged.get(f"/events/profile/{id}", limit=1)
    assert (answer["total"], len(answer["result"])) == (3, 1)
    assert (await merged.get("/events/profile/nobody")) == {"total": 0, "result": []}


async def test_a_sessions_events_say_whether_there_are_more(merged: Api) -> None:
    answer = await merged.get("/events/session/s-1/profile/ann")
    assert ([event["id"] for event in answer["result"]], answer["more_to_load"]) == (["e-1", "e-2"], False)
    assert (await merged.get("/events/session/s-1/profile/ann", limit=1))["more_to_load"] is True
    assert (await merged.get("/events/session/s-1/profile/stray"))["result"] == []


async def test_limits_are_numbers_within_bounds(merged: Api) -> None:
    for limit in ("-1", "1001", "x", "1.5"):
        assert (await merged.ask("GET", "/events/profile/ann", params={"limit": limit}))[0] == 422


async def test_refreshing_and_flushing_are_answered(api: Api) -> None:
    for path in ("/profiles/refresh", "/sessions/refresh", "/events/refresh", "/events/flush", "/profiles/flash"):
        assert await api.get(path) is True


def test_a_field_is_added_to_a_document_without_decoding_it() -> None:
    assert bytes(with_field(b'{"a":1}', "_meta", {"b": 2})) == b'{"a":1,"_meta":{"b":2}}'
    assert bytes(with_field(b" { } \n".strip(), "_meta", None)) == b'{"_meta":null}'


# --- search ---


async def test_selecting_by_a_condition(merged: Api) -> None:
    answer = await merged.post("/event/select", {"where": 'type="page-view"', "limit": 2})
    assert (answer["total"], len(answer["result"])) == (3, 2)
    assert (await merged.post("/event/select", {}))["total"] == 4
    assert (await merged.post("/profile/select", {"where": None, "limit": 0})) == {"total": 2, "result": []}
    assert (await merged.post("/session/select", {"where": "profile.id=ann"}))["total"] == 1


@pytest.mark.parametrize(
    "body",
    [{"where": 'type="'}, {"where": "((("}, {"where": 5}, {"limit": -1}, {"limit": 1001}, {"limit": "x"}, []],
    ids=str,
)
async def test_a_select_that_makes_no_sense_is_422(merged: Api, body: Any) -> None:
    status, answer = await merged.ask("POST", "/event/select", json=body)
    assert status == 422
    assert answer["detail"]


async def test_other_records_are_not_selected(api: Api) -> None:
    assert (await api.http.post("/user/select", headers=api.headers, json={})).status == 404


async def test_selecting_a_range_page_by_page(merged: Api) -> None:
    body = {"minDate": {"delta": {"type": "minus", "value": -2, "entity": "hour"}}, "where": "", "limit": 1}
    answer = await merged.post("/event/select/range", body)
    assert (answer["total"], answer["result"][0]["id"], answer["buckets"]) == (2, "e-1", [])
    assert (await merged.post("/event/select/range", body | {"start": 1}))["result"][0]["id"] == "e-2"
    assert (await merged.post("/event/select/range/page/1", body))["result"][0]["id"] == "e-2"
    assert (await merged.post("/event/select/range/page/9", body))["result"] == []
    assert (await merged.ask("POST", "/event/select/range/page/999999999", json=body))[0] == 422


async def test_a_histogram_counts_every_event_once(merged: Api) -> None:
    answer = await merged.post("/event/select/histogram", {})
    assert answer["total"] == 4
    assert answer["buckets"] == ["count"]
    assert sum(row["count"] for row in answer["result"]) == 4
    assert {row["interval"] for row in answer["result"]} == {"+30m"}
    assert [row["date"] for row in answer["result"] if row["count"]] == [
        "2027-01-15T03:00:00+00:00",
        "2027-01-15T07:00:00+00:00",
        "2027-01-15T08:00:00+00:00",
    ]
    local = await merged.post("/event/select/histogram", {"timeZone": "Asia/Kolkata", "where": 'type="sign-up"'})
    assert [row["date"] for row in local["result"] if row["count"]] == ["2027-01-15T12:30:00+05:30"]


async def test_a_grouped_histogram_has_a_count_for_each_group_in_each_row(merged: Api) -> None:
    answer = await merged.post("/event/select/histogram?group_by=type", {"where": "profile.id exists"})
    assert sorted(answer["buckets"]) == ["page-view", "sign-up"]
    assert all(set(row) == {"date", "interval", "page-view", "sign-up"} for row in answer["result"])
    assert sum(row["page-view"] for row in answer["result"]) == 3
    assert (await merged.ask("POST", "/event/select/histogram?group_by=a'b", json={}))[0] == 422


# --- queue ---


def letter(id: str, **change: Any) -> DeadLetter:
    head = Head(id=f"m-{id}", received_ms=NOW_MS, source="default", session="s", profile="p", only=None)
    body = b'{"source":{"id":"default"},"events":[{"type":"a"},{"type":"b"}]}'
    values = {"key": "p", "head": encode_head(head), "body": body, "events": 1, "indices": [1]} | change
    return DeadLetter(id=id, reason="no such thing", died_ms=NOW_MS, tries=5, **values)


async def bury(api: Api, *letters: DeadLetter) -> None:
    """Publish, receive, and let each message die as the letter given."""
    consumer = await api.context.queue.subscribe("tracardi-function-subscription")
    try:
        for dead in letters:
            await api.context.queue.publish(Publication(dead.key, dead.head, dead.body, dead.events))
            (message,) = await consumer.receive(10, 1 << 20, 5)
            await consumer.ack([Done(message, Tally(dead=dead.events))], [dead])
    finally:
        await consumer.close()


async def test_the_backlog_counts_messages_by_partition_and_subscription(api: Api) -> None:
    for number in range(5):
        await api.context.queue.publish(Publication(f"k{number}", b"h", b"b", events=100))
    answer = await api.get("/queue/system/functions/backlog")
    assert answer["total"] == 5
    assert {tuple(sorted(row)) for row in answer["backlog"]} == {("count", "partition", "subscription")}
    assert {row["partition"] for row in answer["backlog"]} == {
        "persistent://tracardi/system/functions-partition-0",
        "persistent://tracardi/system/functions-partition-1",
    }
    assert sum(row["count"] for row in answer["backlog"]) == 5
    status, answer = await api.ask("GET", "/queue/system/workflows/backlog")
    assert status == 404
    assert "/queue/system/functions/backlog" in answer["detail"]


async def test_dead_letters_are_listed_with_reason_and_payload(api: Api) -> None:
    await bury(
        api,
        letter("1"),
        letter("2", head=b"junk", body=b"\xff not json", indices=None),
        letter("3", body=b'"' + b"x" * (1 << 20) + b'"'),
    )
    answer = await api.get("/dead-letters", limit=2)
    assert (answer["total"], len(answer["result"]), answer["more_to_load"]) == (3, 2, True)
    first, second = answer["result"]
    assert first["reason"] == "no such thing"
    assert first["died"] == "2027-01-15T08:00:00.000+00:00"
    assert first["indices"] == [1]
    assert first["body"]["events"][1] == {"type": "b"}
    assert (second["message"], second["body"], second["body_bytes"]) == (None, None, 10)
    rest = await api.get("/dead-letters", limit=2, after=second["id"])
    assert [(row["id"], row["body"], row["body_bytes"]) for row in rest["result"]] == [("3", None, (1 << 20) + 2)]
    assert rest["more_to_load"] is False
    assert (await api.ask("GET", "/dead-letters?limit=0"))[0] == 422


async def test_replaying_sends_only_what_died_under_the_same_message_id(api: Api) -> None:
    await bury(api, letter("1"))
    assert await api.post("/dead-letters/1/replay") == {"id": "1", "events": 1, "replayed": True}
    assert await api.ask("POST", "/dead-letters/1/replay") == (404, None)
    consumer = await api.context.queue.subscribe("tracardi-function-subscription")
    (message,) = await consumer.receive(10, 1 << 20, 5)
    head = decode_head(message.head)
    assert (head.id, head.only, message.key, message.events) == ("m-1", [1], "p", 1)
    assert message.body == letter("1").body
    await consumer.close()
    ledger = await api.get("/ledger")
    assert (ledger["received"], ledger["replayed"], ledger["dead"], ledger["pending"]) == (1, 1, 0, 1)
    assert ledger["adds_up"] is True


async def test_a_letter_that_can_only_die_again_is_not_replayed_but_can_be_deleted(api: Api) -> None:
    await bury(api, letter("1", head=b"junk"))
    assert (await api.ask("POST", "/dead-letters/1/replay"))[0] == 422
    assert await api.ask("DELETE", "/dead-letters/1") == (200, True)
    assert await api.ask("DELETE", "/dead-letters/1") == (404, None)
    assert (await api.get("/dead-letters"))["result"] == []


async def test_a_letter_is_found_behind_many_others(api: Api, monkeypatch: pytest.MonkeyPatch) -> None:
    from tracardi_lite.admin import queue

    monkeypatch.setattr(queue, "SCAN_PAGE", 2)
    await bury(api, *(letter(str(number)) for number in range(1, 8)))
    assert (await api.post("/dead-letters/7/replay"))["replayed"] is True
    monkeypatch.setattr(queue, "SCAN_MAX", 4)
    assert (await api.ask("POST", "/dead-letters/6/replay"))[0] == 409


async def test_the_ledger_adds_up_with_what_the_door_refused(api: Api) -> None:
    queue = api.context.queue
    await queue.note_refused({"bot": 3, "source": 2})
    await bury(api, letter("1"))
    await queue.publish(Publication("k", b"h", b"b", events=10))
    consumer = await queue.subscribe("tracardi-function-subscription")
    (message,) = await consumer.receive(1, 1 << 20, 5)
    await consumer.ack([Done(message, Tally(stored=6, duplicate=3, rejected=1))])
    await consumer.close()
    await queue.publish(Publication("k", b"h", b"b", events=4))
    assert await api.get("/ledger") == {
        "received": 20,
        "replayed": 0,
        "stored": 6,
        "duplicate": 3,
        "rejected": {"total": 6, "by_reason": {"not_saved": 1, "bot": 3, "source": 2}},
        "dead_lettered": 1,
        "dead": 1,
        "pending": 4,
        "difference": 0,
        "adds_up": True,
    }


# --- system ---


async def test_the_version_in_short_and_at_length(api: Api) -> None:
    assert await api.get("/info/version") == "1.2.3"
    for path in ("/info/version/", "/info/version/details"):
        details = await api.get(path)
        assert details["version"] == "1.2.3"
        assert details["installed"] == {"schema": True, "users": True, "form": True}
        assert details["tenant"] == "8504a"


async def test_settings_are_listed_by_their_environment_names_without_secrets(api: Api) -> None:
    rows = {row["label"]: row for row in await api.get("/system/settings")}
    assert all(set(row) == {"label", "value", "desc"} and row["desc"] for row in rows.values())
    assert rows["BULK_SIZE"]["value"] == 500
    assert rows["EXPOSE_GUI_API"]["value"] is True
    assert rows["INSTALLATION_TOKEN"]["value"] not in ("", "open-sesame")
    assert "hunter2" not in str(rows)
    assert "broker" in rows["QUEUE_URL"]["value"]


@pytest.mark.parametrize(
    ("guesser", "owner", "locked"),
    [
        ("203.0.113.9", "192.0.2.1", False),
        ("203.0.113.9, 10.0.0.1", "203.0.113.9", True),
        ("2001:db8:1:2::1", "2001:db8:1:2:ffff::9", True),
        ("2001:db8:1:2::1", "2001:db8:1:3::1", False),
        ("::ffff:203.0.113.9", "203.0.113.9", True),
        ("no address", "no address", True),
        ("no address", "another", False),
    ],
)
async def test_a_login_is_locked_for_the_place_that_guessed(
    settings: Settings, guesser: str, owner: str, locked: bool
) -> None:
    async with opened(structs.replace(settings, use_x_forwarded_ip="X-Real-IP")) as api:
        for _ in range(5):
            answer = await api.http.post(
                "/user/token", data=LOGIN | {"password": "guess"}, headers={"X-Real-IP": guesser}
            )
            assert answer.status == 400
        answer = await api.http.post("/user/token", data=LOGIN, headers={"X-Real-IP": owner})
        assert answer.status == (429 if locked else 200)
