"""The collector over HTTP, with the memory backends: statuses, answers, and what ends up in the queue."""

from __future__ import annotations

import asyncio
import gzip
import zlib
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import brotli
import msgspec
import pytest
from backports import zstd

from tests.door import Door, opened, payload, rest
from tracardi_lite.errors import Full, Unavailable
from tracardi_lite.ports.queue import Posted
from tracardi_lite.ports.registry import EventSource, Named, Redirect
from tracardi_lite.ports.store import Claim, Entry
from tracardi_lite.protocol.envelope import SAVE_PROFILE
from tracardi_lite.testing.clock import eventually


@pytest.fixture(params=["express", "plain"])
async def door(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[Door]:
    """Both ways in: the express lane with aiohttp behind it, and aiohttp alone. Nobody may see a difference."""
    async with opened(tmp_path, express=request.param == "express") as it:
        yield it


# --- answers ---


async def test_the_answer_has_the_protocols_shape_and_the_message_is_the_body_as_it_came(door: Door) -> None:
    body = msgspec.json.encode(payload("page-view", "sign-up"))

    status, answer = await door.post(body)

    ((head, queued, message),) = await door.queued()
    assert status == 200
    assert answer == {
        "task": head.id,
        "ux": [],
        "response": {},
        "events": [],
        "profile": {"id": door.identity.derive("s-1")},
        "session": {"id": "s-1"},
        "errors": [],
        "warnings": [],
    }
    assert message.body == body
    assert message.key == head.profile == answer["profile"]["id"]
    assert (message.events, head.source, head.channel) == (2, "web", "Web")
    assert queued["events"][1]["type"] == "sign-up"


@pytest.mark.parametrize("path", ["/track", "/track/"])
async def test_both_spellings_of_the_path_are_taken(door: Door, path: str) -> None:
    assert (await door.post(payload("x"), path))[0] == 200


async def test_no_events_is_200_with_null(door: Door) -> None:
    assert await door.post(payload()) == (200, None)
    assert await door.post({"source": {"id": "web"}}) == (200, None)
    assert await door.queued() == []


async def test_a_body_without_a_content_type_is_json_and_text_is_not(door: Door) -> None:
    body = msgspec.json.encode(payload("x"))
    async with door.client.post("/track", data=body, skip_auto_headers=["Content-Type"]) as response:
        assert response.status == 200
    status, answer = await door.post(body, headers={"Content-Type": "text/plain"})
    assert (status, answer["detail"][0]["type"]) == (422, "dict_type")
    # What `curl -d '{…}'` sends.
    assert (await door.post(body, headers={"Content-Type": "application/x-www-form-urlencoded"}))[0] == 200
    assert (await door.post(b"a=b", headers={"Content-Type": "application/x-www-form-urlencoded"}))[0] == 422


@pytest.mark.parametrize(
    ("name", "pack"),
    [("gzip", gzip.compress), ("deflate", zlib.compress), ("br", brotli.compress), ("zstd", zstd.compress)],
)
async def test_compressed_bodies_are_read(door: Door, name: str, pack: Callable[[bytes], bytes]) -> None:
    data = pack(msgspec.json.encode(payload("x")))

    assert (await door.post(data, headers={"Content-Encoding": name}))[0] == 200
    assert (await door.queued())[0][1] == payload("x")


async def test_a_bomb_is_413_and_broken_compression_400(tmp_path: Path) -> None:
    async with opened(tmp_path, body_max=100_000) as door:
        bomb = gzip.compress(b" " * 10_000_000)
        assert (await door.post(bomb, headers={"Content-Encoding": "gzip"}))[0] == 413
        assert (await door.post(b"not gzip at all", headers={"Content-Encoding": "gzip"}))[0] == 400


@pytest.mark.parametrize(
    ("name", "pack"),
    [("gzip", gzip.compress), ("deflate", zlib.compress), ("br", brotli.compress), ("zstd", zstd.compress)],
)
async def test_a_compressed_body_that_breaks_off_is_400_at_once(
    door: Door, name: str, pack: Callable[[bytes], bytes]
) -> None:
    data = pack(msgspec.json.encode(payload("x")))
    for end in (len(data) - 1, len(data) // 2, 3):
        status, answer = await door.post(data[:end], headers={"Content-Encoding": name})
        assert status == 400, end
        assert "no complete" in answer["detail"]
    assert await door.queued() == []


async def test_a_compressed_multipart_form_is_415(door: Door) -> None:
    headers = {"Content-Encoding": "gzip", "Content-Type": "multipart/form-data; boundary=b"}
    async with door.client.post("/collect/x/hook", data=gzip.compress(b"--b--"), headers=headers) as response:
        assert response.status == 415


async def test_a_bad_event_does_not_sink_the_others(door: Door) -> None:
    status, answer = await door.post(payload("good", "", "also-good"))

    ((head, _, message),) = await door.queued()
    assert status == 226
    assert [(error["index"], error["reason"]) for error in answer["errors"]] == [(1, "invalid")]
    assert (head.skip, message.events) == ([1], 2)


async def test_a_call_of_only_bad_events_is_422_and_counted(door: Door) -> None:
    assert (await door.post(payload("", " ")))[0] == 422
    counted: dict[str, int] = {}

    async def note(counts: Any) -> None:
        counted.update(counts)

    await door.refusals.hand_over(note)
    assert counted == {"invalid": 2}


async def test_too_many_events_are_413(tmp_path: Path) -> None:
    async with opened(tmp_path, events_per_call_max=3) as door:
        assert (await door.post(payload("a", "b", "c")))[0] == 200
        assert (await door.post(payload("a", "b", "c", "d")))[0] == 413


async def test_options_queue_is_201_and_put_does_what_post_does(door: Door) -> None:
    assert (await door.post(payload("x", options={"queue": True})))[0] == 201
    async with door.client.put("/track", json=payload("x")) as response:
        assert response.status == 200
    assert len(await door.queued()) == 2


async def test_options_say_what_is_saved_and_the_answer_leaves_that_out(door: Door) -> None:
    _, answer = await door.post(payload("x", options={"saveProfile": False, "saveSession": False}))

    assert (answer["profile"], answer["session"]) == ({"id": None}, {"id": None})


async def test_the_debugger_lists_event_ids_only_when_allowed(tmp_path: Path) -> None:
    call = payload("a", "", options={"debugger": True})
    call["events"][0]["id"] = "mine"
    async with opened(tmp_path) as door:
        assert (await door.post(call))[1]["events"] == []
    async with opened(tmp_path, track_debug=True) as door:
        assert (await door.post(call))[1]["events"] == ["mine"]


# --- sources ---


async def test_unknown_disabled_internal_and_wrong_sources_are_401(door: Door) -> None:
    door.rules.sources["off"] = EventSource(id="off", enabled=False)
    for source, words in (
        ("nobody", "Unknown event source"),
        ("off", "Event source disabled."),
        ("@internal-x", "Internal event sources"),
        ("hook", "webhook"),
    ):
        status, answer = await door.post(payload("x", source={"id": source}))
        assert status == 401
        assert words in answer["detail"]
    assert await door.queued() == []


async def test_without_the_source_check_any_id_is_an_open_source(tmp_path: Path) -> None:
    async with opened(tmp_path, enable_event_source_check=False) as door:
        assert (await door.post(payload("x", source={"id": "anything"})))[0] == 200
        assert (await door.queued())[0][0].channel == "Web"


async def test_a_transitional_source_keeps_the_profile_only(door: Door) -> None:
    door.rules.sources["web"] = EventSource(id="web", transitional=True)

    _, answer = await door.post(payload("x"))

    assert answer["session"] == {"id": None}
    assert answer["profile"]["id"]
    assert (await door.queued())[0][0].save == SAVE_PROFILE


async def test_known_sources_serve_on_while_the_registry_is_away_and_unknown_ones_wait(tmp_path: Path) -> None:
    async with opened(tmp_path, source_cache_ttl=0.0) as door:
        assert (await door.post(payload("x")))[0] == 200
        door.rules.away = True
        assert (await door.post(payload("x")))[0] == 200
        assert (await door.post(payload("x", source={"id": "new"})))[0] == 503


async def test_bots_are_refused_unless_allowed(tmp_path: Path) -> None:
    agent = {"User-Agent": "Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)"}
    async with opened(tmp_path) as door:
        assert await door.post(payload("x"), headers=agent) == (401, {"detail": "Traffic from bot is not allowed."})
    async with opened(tmp_path, disallow_bot_traffic=False) as door:
        assert (await door.post(payload("x"), headers=agent))[0] == 200


# --- identity ---


async def test_simultaneous_first_hits_of_a_session_get_one_profile(door: Door) -> None:
    answers = await asyncio.gather(*(door.post(payload("x")) for _ in range(10)))

    assert {answer["profile"]["id"] for _, answer in answers} == {door.identity.derive("s-1")}


async def test_the_sessions_profile_wins_over_a_sent_one(door: Door) -> None:
    entry = Entry("bound", "2026-q4")
    await door.store.claim([Claim("s:s-1", entry), Claim("p:bound", entry)])

    _, answer = await door.post(payload("x", profile={"id": door.identity.issue()}))

    assert answer["profile"]["id"] == "bound"


async def test_an_issued_id_is_taken_and_a_foreign_unknown_one_replaced(door: Door) -> None:
    mine = door.identity.issue()
    assert (await door.post(payload("x", profile={"id": mine})))[1]["profile"]["id"] == mine
    other = payload("x", profile={"id": "11111111-2222-4333-8444-555555555555"}, session={"id": "s-2"})
    assert (await door.post(other))[1]["profile"]["id"] == door.identity.derive("s-2")
    head = next(head for head, _, _ in await door.queued() if head.session == "s-2")
    assert (head.issued, head.sent_profile) == (True, "11111111-2222-4333-8444-555555555555")


async def test_a_known_foreign_id_and_an_alias_resolve_to_the_survivor(door: Door) -> None:
    await door.store.claim([Claim("p:old", Entry("survivor", "")), Claim("p:survivor", Entry("survivor", "2026-q4"))])

    for session in ("s-1", ""):
        _, answer = await door.post(payload("x", profile={"id": "old"}, session={"id": session}))
        assert answer["profile"]["id"] == "survivor"


async def test_blank_ids_are_made_and_agree_with_the_next_call(door: Door) -> None:
    _, first = await door.post(payload("x", session={"id": ""}, profile={"id": ""}))
    _, second = await door.post(payload("x", session=first["session"]))

    assert first["session"]["id"]
    assert door.identity.issued(first["profile"]["id"])
    assert second["profile"] == first["profile"]


async def test_a_static_source_keeps_ids_and_needs_one(door: Door) -> None:
    door.rules.sources["web"] = rest(static_profile_id=True)

    assert (await door.post(payload("x", profile={"id": "crm-7"})))[1]["profile"]["id"] == "crm-7"
    assert (await door.queued())[0][0].static
    status, answer = await door.post(payload("x"))
    assert (status, answer["detail"][0]["loc"]) == (422, ["body", "profile", "id"])


async def test_a_profile_less_call_has_no_profile(door: Door) -> None:
    status, answer = await door.post(payload("x", session=None), "/track?profile_less=true")

    ((head, _, message),) = await door.queued()
    assert (status, answer["profile"]) == (200, {"id": None})
    assert (head.profile, message.key) == (None, head.id)


async def test_while_the_store_is_away_calls_are_still_taken(tmp_path: Path) -> None:
    class Away:
        async def lookup(self, keys: Any) -> Any:
            raise Unavailable("store", "away")

    async with opened(tmp_path, store=Away()) as door:
        assert (await door.post(payload("x")))[1]["profile"]["id"] == door.identity.derive("s-1")
        _, answer = await door.post(payload("x", profile={"id": "foreign"}, session={"id": "s-2"}))
        assert answer["profile"]["id"] == door.identity.derive("s-2")


# --- overload ---


async def test_a_full_queue_is_503_with_retry_after(tmp_path: Path) -> None:
    class FullQueue:
        def post(self, publication: Any, done: Posted) -> None:
            raise Full("disk", "less than 256 MB free", 7.2)

    async with opened(tmp_path, queue=FullQueue()) as door, door.client.post("/track", json=payload("x")) as response:
        assert response.status == 503
        assert response.headers["Retry-After"] == "8"
        assert "disk" in (await response.json())["detail"]


async def test_bodies_in_flight_are_bounded(tmp_path: Path) -> None:
    waiting: list[Posted] = []

    class Slow:
        def post(self, publication: Any, done: Posted) -> None:
            waiting.append(done)

    async with opened(tmp_path, queue=Slow(), in_flight_max=1 << 20, body_max=1 << 20) as door:
        large = payload("x", properties={"k": "v" * 700_000})
        first = asyncio.create_task(door.post(large))
        second = asyncio.create_task(door.post(large))
        done, _ = await asyncio.wait({first, second}, return_when=asyncio.FIRST_COMPLETED)
        assert [task.result()[0] for task in done] == [503]
        await eventually(lambda: bool(waiting), what="the one that was taken is posted")
        waiting[0](None)
        assert sorted([(await first)[0], (await second)[0]]) == [200, 503]


async def test_a_body_that_does_not_arrive_is_408(tmp_path: Path) -> None:
    async with opened(tmp_path, request_timeout=1.0) as door:
        reader, writer = await asyncio.open_connection(door.host, door.port)
        writer.write(b"POST /track HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{")
        assert b" 408 " in await asyncio.wait_for(reader.readline(), 10)
        writer.close()


# --- webhooks and redirects ---


async def test_a_webhook_keeps_the_event_without_profile_or_session(door: Door) -> None:
    status, answer = await door.post({"a": 1}, "/collect/order/hook")

    ((head, queued, _),) = await door.queued()
    assert (status, answer["profile"], answer["session"]) == (200, {"id": None}, {"id": None})
    assert (head.profile, head.session) == (None, None)
    assert queued["events"] == [{"type": "order", "properties": {"a": 1}}]


async def test_a_webhook_reads_queries_forms_and_forgives_broken_json(door: Door) -> None:
    async with door.client.get("/collect/t/hook?a=1&b=x") as response:
        assert response.status == 200
    async with door.client.post("/collect/t/hook", data={"f": "1"}) as response:
        assert response.status == 200
    assert (await door.post(b"{broken", "/collect/t/hook"))[0] == 200
    assert (await door.post(b"[1]", "/collect/t/hook"))[0] == 422
    assert (await door.post(b"raw", "/collect/t/hook", headers={"Content-Type": "image/png"}))[0] == 422
    queued = [body["events"][0]["properties"] for _, body, _ in await door.queued()]
    assert sorted(map(str, queued)) == sorted(map(str, [{"a": "1", "b": "x"}, {"f": "1"}, {}]))


async def test_a_webhook_with_a_session_has_that_sessions_profile(door: Door) -> None:
    _, answer = await door.post({"a": 1}, "/collect/order/hook/s-9")

    assert answer["session"]["id"] == "s-9"
    assert answer["profile"]["id"] == door.identity.derive("s-9")


async def test_a_generating_webhook_gives_one_profile_per_merge_key(door: Door) -> None:
    door.rules.sources["hook"] = EventSource(id="hook", type=["webhook"], config={"generate_profile": True})
    one, again, other = [
        (await door.post({"email": {"main": email}}, "/collect/sign-up/hook"))[1]
        for email in ("Joe@Example.com", " joe@example.com", "ann@example.com")
    ]
    assert one["profile"] == again["profile"] != other["profile"]
    assert one["session"] == again["session"] != other["session"]


async def test_a_replacing_webhook_takes_the_profile_id_from_the_properties(door: Door) -> None:
    door.rules.sources["hook"] = EventSource(id="hook", type=["webhook"], config={"replace_profile_id": "user.id"})

    _, answer = await door.post({"user": {"id": "crm-1"}}, "/collect/order/hook")
    status, _ = await door.post({"user": {}}, "/collect/order/hook")

    assert (answer["profile"]["id"], answer["session"]["id"], status) == ("crm-1", "crm-1", 422)

    _, answer = await door.post({"user": {"id": "crm-1"}}, "/collect/order/hook/s-9")
    assert (answer["profile"]["id"], answer["session"]["id"]) == ("crm-1", "s-9")


@pytest.mark.parametrize(
    "part",
    [
        b"Content-Disposi",
        b"Content-Disposition: form-data\r\n\r\nx\r\n--B--\r\n",
        b'Content-Disposition: form-data; name="a"\r\nContent-Type: text/plain; charset=klingon\r\n\r\nx\r\n--B--\r\n',
        b'Content-Disposition: form-data; name="a"\r\nContent-Transfer-Encoding: rot13\r\n\r\nx\r\n--B--\r\n',
        b'Content-Disposition: form-data; name="a"\r\n\r\n\xff\r\n--B--\r\n',
    ],
)
async def test_a_broken_multipart_form_is_refused(door: Door, part: bytes) -> None:
    kind = {"Content-Type": "multipart/form-data; boundary=B"}

    status, answer = await door.post(b"--B\r\n" + part, "/collect/order/hook", headers=kind)

    assert (status, answer["detail"][0]["type"]) == (422, "dict_type")
    assert await door.queued() == []


async def test_a_multipart_form_that_does_not_arrive_is_408_and_a_large_one_413(tmp_path: Path) -> None:
    kind = "multipart/form-data; boundary=B"
    begin = b'--B\r\nContent-Disposition: form-data; name="a"\r\n\r\n'
    async with opened(tmp_path, request_timeout=1.0, body_max=2000, event_max=1000) as door:
        reader, writer = await asyncio.open_connection(door.host, door.port)
        head = f"POST /collect/x/hook HTTP/1.1\r\nHost: x\r\nContent-Type: {kind}\r\nContent-Length: 500\r\n\r\n"
        writer.write(head.encode() + begin)
        assert b" 408 " in await asyncio.wait_for(reader.readline(), 10)
        writer.close()
        large = begin + b"x" * 3000 + b"\r\n--B--\r\n"
        status, answer = await door.post(large, "/collect/x/hook", headers={"Content-Type": kind})
    assert (status, answer) == (413, {"detail": "The body is larger than 2000 bytes."})


async def test_a_redirect_registers_its_event_and_leads_on(door: Door) -> None:
    door.rules.sources["r"] = EventSource(id="r", type=["redirect"])
    door.rules.redirects["go"] = Redirect(
        id="go",
        source=Named("r"),
        url="https://example.com/landing",
        event_type="clicked",
        props={"campaign": "payload@params.c", "fixed": 1},
    )
    async with door.client.get("/redirect/go?c=mail", allow_redirects=False) as response:
        assert (response.status, response.headers["Location"]) == (307, "https://example.com/landing")
    async with door.client.get("/redirect/none", allow_redirects=False) as response:
        assert response.status == 404
    ((head, queued, _),) = await door.queued()
    assert head.profile is None
    assert queued["events"][0] == {"type": "clicked", "properties": {"campaign": "mail", "fixed": 1}}


async def test_who_only_looks_where_a_redirect_leads_registers_nothing(door: Door) -> None:
    door.rules.sources["r"] = EventSource(id="r", type=["redirect"])
    door.rules.redirects["go"] = Redirect(
        id="go", source=Named("r"), url="https://example.com/landing", event_type="clicked"
    )
    door.rules.redirects["shut"] = Redirect(id="shut", source=Named("web"), url="https://x.example/", event_type="c")
    for path, status in (("go", 307), ("go/s-1", 307), ("none", 404), ("shut", 401)):
        async with door.client.head(f"/redirect/{path}", allow_redirects=False) as response:
            assert response.status == status
            if status == 307:
                assert response.headers["Location"] == "https://example.com/landing"
    assert await door.queued() == []
    counted: dict[str, int] = {}

    async def note(counts: Any) -> None:
        counted.update(counts)

    await door.refusals.hand_over(note)
    assert sum(counted.values()) == 0


# --- headers and CORS ---


async def test_sensitive_headers_are_not_kept_and_the_ip_comes_from_the_trusted_header(tmp_path: Path) -> None:
    sent = {"Authorization": "Bearer x", "Cookie": "a=b", "X-Real-Ip": "203.0.113.9, 10.0.0.1", "X-Other": "1"}
    async with opened(tmp_path, use_x_forwarded_ip="X-Real-Ip") as door:
        await door.post(payload("x"), headers=sent)
        ((head, _, _),) = await door.queued()
    assert head.ip == "203.0.113.9"
    assert head.headers["x-other"] == "1"
    assert not {"authorization", "cookie"} & set(head.headers)


async def test_a_preflight_echoes_origin_and_headers(door: Door) -> None:
    asked = {
        "Origin": "https://shop.example",
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "content-type,x-timestamp",
    }
    async with door.client.options("/track", headers=asked) as response:
        headers = response.headers
        assert (response.status, await response.text()) == (200, "OK")
    assert headers["Access-Control-Allow-Origin"] == "https://shop.example"
    assert headers["Access-Control-Allow-Credentials"] == "true"
    assert headers["Access-Control-Allow-Headers"] == "content-type,x-timestamp"
    assert headers["Access-Control-Max-Age"] == "600"
    assert headers["Vary"] == "Origin"


async def test_answers_and_errors_carry_cors_headers(door: Door) -> None:
    origin = {"Origin": "https://shop.example"}
    for path, extra, allowed in (
        ("/track", {}, "*"),
        ("/track", {"Cookie": "a=b"}, "https://shop.example"),
        ("/nowhere", {}, "*"),
    ):
        async with door.client.post(path, json=payload("x"), headers=origin | extra) as response:
            assert response.headers["Access-Control-Allow-Origin"] == allowed
    async with door.client.post("/track", data=b"{", headers=origin) as response:
        assert response.status == 422
        assert response.headers["Access-Control-Allow-Origin"] == "*"


async def test_unknown_paths_and_methods_are_json(door: Door) -> None:
    async with door.client.get("/nowhere") as response:
        assert (response.status, await response.json()) == (404, {"detail": "Not Found"})
    async with door.client.get("/track") as response:
        assert (response.status, await response.json()) == (405, {"detail": "Method Not Allowed"})
        assert response.headers["Allow"] == "POST, PUT"


async def test_the_context_header_is_echoed_and_the_time_told(door: Door) -> None:
    async with door.client.post("/track", json=payload("x"), headers={"X-Context": "staging"}) as response:
        assert response.headers["X-Context"] == "staging"
        assert float(response.headers["X-Process-Time"]) >= 0


async def test_healthcheck_echoes_without_secrets(door: Door) -> None:
    async with door.client.get("/healthcheck") as response:
        assert await response.json() == ""
    _, echo = await door.post({"a": 1}, "/healthcheck", headers={"Authorization": "x"})
    assert (echo["json"], echo["body"]) == ({"a": 1}, '{"a":1}')
    assert "authorization" not in echo["headers"]
