"""What stands in the stored records, field by field (protocol §4.3)."""

from __future__ import annotations

import datetime as dt
from typing import Any

import pytest

from tests.rig import RECEIVED_MS, Rig
from tracardi_lite.protocol.ids import event_id

CHROME = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/125.0.0.0 Safari/537.36"
RECEIVED = dt.datetime.fromtimestamp(RECEIVED_MS / 1000, dt.UTC).isoformat(timespec="milliseconds")


async def stored(event: dict[str, Any], **call: Any) -> dict[str, Any]:
    async with Rig() as rig:
        await rig.send(events=[event], message="m", **call)
        await rig.drain()
        (found,) = await rig.events()
        return found


async def test_an_events_record_has_the_protocols_shape() -> None:
    found = await stored(
        {
            "type": "Sign up",
            "time": {"create": "2024-01-01 00:00:00"},
            "properties": {"email": {"main": "Joe@Example.com"}, "firstname": "Joe", "more": [1, None]},
            "context": {"page": {"title": "T", "url": "http://u/p", "referer": {"host": "h.com"}}},
            "options": {"fire": True},
        },
        ip="1.2.3.4",
        headers={"user-agent": CHROME, "accept-language": "en-US,en;q=0.9"},
        payload={
            "context": {
                "time": {"tz": "Europe/Warsaw"},
                "utm": {"source": "g", "medium": "cpc"},
                "screen": {"local": {"width": 100, "height": 50, "colorDepth": 24}},
            },
            "request": {"path": "/a", "headers": {"forged": "x"}},
        },
    )
    assert found == {
        "id": event_id("m", 0),
        "name": "Sign up",
        "type": "sign-up",
        "metadata": {
            "aux": {"message": "m"},
            "time": {
                "insert": RECEIVED,
                "create": "2024-01-01T00:00:00.000+00:00",
                "update": None,
                "process_time": 0,
                "total_time": 0,
            },
            "ip": "1.2.3.4",
            "status": "collected",
            "channel": "Web",
            "processed_by": {"rules": [], "flows": [], "third_party": []},
            "profile_less": False,
            "debug": False,
            "valid": True,
            "error": False,
            "warning": False,
            "merge": False,
            "instance": {"id": "i"},
        },
        "source": {"id": "default"},
        "session": {"id": "s1", "start": RECEIVED, "duration": 0.0, "tz": "Europe/Warsaw"},
        "profile": {"id": "p1", "primary_id": None},
        "properties": {"email": {"main": "Joe@Example.com"}, "firstname": "Joe", "more": [1, None]},
        "traits": {},
        "context": {"page": {"title": "T", "url": "http://u/p", "referer": {"host": "h.com"}}},
        "request": {"path": "/a", "headers": {"user-agent": CHROME, "accept-language": "en-US,en;q=0.9"}},
        "config": {"fire": True},
        "tags": found["tags"],
        "aux": {},
        "utm": {"source": "g", "medium": "cpc", "campaign": None, "term": None, "content": None},
        "device": found["device"],
        "os": {"name": "Linux", "version": ""},
        "app": found["app"],
        "hit": {"name": "T", "url": "http://u/p", "referer": "h.com"},
        "journey": {"state": found["journey"]["state"]},
        "data": {"contact": {"email": {"main": "Joe@Example.com"}}, "pii": {"firstname": "Joe"}},
    }
    assert found["tags"]["count"] == len(found["tags"]["values"]) > 0
    assert (found["device"]["resolution"], found["device"]["type"]) == ("100x50", "pc")
    assert (found["app"]["name"], found["app"]["language"]) == ("Chrome", "en-US")


@pytest.mark.parametrize("absent", [{}, {"properties": None, "context": None, "options": None}])
async def test_null_and_nothing_are_empty_objects(absent: dict[str, Any]) -> None:
    found = await stored({"type": "a", **absent})
    assert (found["properties"], found["context"], found["config"]) == ({}, {}, {})
    assert found["tags"] == {"values": [], "count": 0}


@pytest.mark.parametrize(
    ("page", "hit"),
    [
        ({"title": "T", "url": 7, "more": 1e300}, {"name": "T", "url": "7"}),
        ({"title": None, "referer": {"host": "h.com", "path": "/"}}, {"referer": "h.com"}),
        ({"title": "T", "referer": "h.com"}, {"name": "T"}),
        ({"title": "T", "referer": None}, {"name": "T"}),
        ({"title": {"page": "T"}, "url": ["u"], "referer": {}}, {}),
        ("T", {}),
        (None, {}),
    ],
)
@pytest.mark.parametrize("type", ["a", "page-view"])
async def test_a_hit_is_what_can_be_told_of_a_page_of_any_shape(type: str, page: object, hit: dict[str, str]) -> None:
    assert (await stored({"type": type, "context": {"page": page}}))["hit"] == hit


async def test_a_page_views_own_properties_are_in_its_hit() -> None:
    view = {"type": "page-view", "context": {"page": {"title": "T"}}}
    assert (await stored({**view, "properties": {"id": "1"}}))["hit"] == {"name": "T", "id": "1"}
    assert (await stored({**view, "properties": {"other": "id"}}))["hit"] == {"name": "T"}


@pytest.mark.parametrize(
    ("id", "kept"),
    [
        ("mine", True),
        ('q"uo\\te\n', True),
        ("ż" * 256, True),
        ("x" * 257, False),
        ("日" * 256, False),
        (" ", False),
        ("", False),
    ],
)
async def test_a_clients_id_is_kept_if_the_store_can_hold_it(id: str, kept: bool) -> None:
    found = await stored({"type": "a", "id": id})
    assert found["id"] == (id if kept else event_id("m", 0))


async def test_a_clients_insert_time_is_the_events_and_does_not_choose_its_partition() -> None:
    async with Rig() as rig:
        await rig.send(events=[{"type": "a", "time": {"insert": "2020-02-03T04:05:06+02:00"}}])
        await rig.drain()
        (event,) = await rig.events()
        assert event["metadata"]["time"]["insert"] == "2020-02-03T02:05:06.000+00:00"
        assert event["metadata"]["time"]["create"] == "2020-02-03T02:05:06.000+00:00"
        assert [row.name for row in await rig.store.partitions() if row.kind == "event"] == ["2027-1"]


async def test_a_predefined_types_tags_replace_the_clients() -> None:
    own = await stored({"type": "custom", "tags": ["x", "y"]})
    assert own["tags"] == {"values": ["x", "y"], "count": 2}
    predefined = await stored({"type": "page-view", "tags": ["x"]})
    assert predefined["tags"] == {"values": ["activity:browsing"], "count": 1}


async def test_properties_that_do_not_fit_are_kept_as_sent_and_warned_of() -> None:
    found = await stored({"type": "sign-up", "properties": {"firstname": {"not": "a text"}}})
    assert found["properties"] == {"firstname": {"not": "a text"}}
    assert found["data"] == {}
    assert found["metadata"]["warning"] is True
    assert found["aux"]["warnings"]


async def test_an_event_without_a_stored_session_tells_of_the_device_by_itself() -> None:
    found = await stored({"type": "a"}, profile=None, session=None, headers={"user-agent": CHROME})
    assert found["session"] is None
    assert found["app"]["name"] == "Chrome"


async def test_later_events_carry_the_sessions_device_not_their_own() -> None:
    async with Rig() as rig:
        await rig.send("a", headers={"user-agent": CHROME})
        await rig.send("b", headers={"user-agent": "curl/8.0"})
        await rig.drain()
        assert [event["app"]["name"] for event in await rig.events()] == ["Chrome", "Chrome"]


async def test_system_events_are_of_the_internal_source_and_a_moment_before() -> None:
    async with Rig() as rig:
        await rig.send("page-view", "custom")
        await rig.drain()
        system = {e["type"]: e for e in await rig.records("event") if e["source"]["id"].startswith("@internal-")}
        times = [
            dt.datetime.fromisoformat(system[type]["metadata"]["time"]["insert"]).timestamp()
            for type in ("profile-created", "session-opened", "visit-started")
        ]
        assert [round(RECEIVED_MS / 1000 - time) for time in times] == [3, 2, 1]
        assert system["visit-started"]["properties"] == {"trigger-event-types": ["page-view", "custom"]}
        for event in system.values():
            assert event["config"] == {"async": True}
            assert event["tags"]["values"] == ["event:system"]
            assert event["session"]["id"] == "s1"
            assert event["profile"]["id"] == "p1"
            assert event["metadata"]["aux"]["message"] == "m0"


async def test_the_journey_goes_from_awareness_to_consideration_with_the_second_visit() -> None:
    async with Rig() as rig:
        await rig.send("page-view", session="s1")
        await rig.drain()
        await rig.send("page-view", session="s2")
        await rig.drain()
        states = [event["journey"]["state"] for event in await rig.events()]
        assert states == ["awareness", "consideration"]


async def test_location_reaches_event_session_and_profile() -> None:
    async with Rig() as rig:
        place = {"country": {"name": "Poland", "code": "PL"}, "city": "Warsaw", "latitude": 52.1, "longitude": 21.0}
        await rig.send(events=[{"type": "location", "properties": {"location": place}}])
        await rig.drain()
        (event,) = await rig.events()
        assert event["device"]["geo"]["city"] == "Warsaw"
        assert event["device"]["geo"]["location"] == [21.0, 52.1]
        profile = await rig.record("profile", "p1")
        assert profile["data"]["devices"]["last"]["geo"]["city"] == "Warsaw"


async def test_where_an_event_says_the_customer_is_lasts_until_a_call_says_otherwise() -> None:
    async def last_city() -> str:
        profile = await rig.record("profile", "p1")
        city: str = profile["data"]["devices"]["last"]["geo"]["city"]
        return city

    warsaw = {"context": {"location": {"city": "Warsaw"}}}
    moved = {"type": "location", "properties": {"location": {"city": "Krakow"}}}
    async with Rig() as rig:
        await rig.send(events=[{"type": "a"}, moved, {"type": "b"}], payload=warsaw)
        await rig.drain()
        assert await last_city() == "Krakow"
        await rig.send("page-view")
        await rig.drain()
        assert await last_city() == "Krakow"
        await rig.send("page-view", payload=warsaw)
        await rig.drain()
        assert await last_city() == "Warsaw"
