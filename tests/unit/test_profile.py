import re
from pathlib import Path
from typing import Any

import pytest

from tracardi_lite.pipeline.fields import leaves
from tracardi_lite.pipeline.paths import MISSING, get, split
from tracardi_lite.pipeline.profile import (
    IDS_MAX,
    add_ids,
    count_events,
    expand,
    new_profile,
    refresh_derived,
    take_place,
    touch,
    visit,
    visit_count,
)
from tracardi_lite.pipeline.session import new_session

AT = 1_700_438_400_000
ROOT = Path(__file__).parents[2]


def fresh(**given: Any) -> dict[str, Any]:
    return new_profile("p-1", AT, **given)


def test_a_new_profile_is_shaped_as_the_protocol_shows() -> None:
    assert fresh() == {
        "id": "p-1",
        "primary_id": None,
        "ids": ["p-1"],
        "metadata": {
            "time": {
                "insert": "2023-11-20T00:00:00.000+00:00",
                "create": "2023-11-20T00:00:00.000+00:00",
                "update": "2023-11-20T00:00:00.000+00:00",
                "visit": {"last": None, "current": None, "count": 0, "tz": None},
            },
            "aux": {},
            "status": None,
            "fields": {},
            "system": {"integrations": {}, "aux": {"applied": {}}},
        },
        "stats": {"visits": 0, "views": 0, "counters": {"events": 0}},
        "traits": {},
        "segments": [],
        "interests": {},
        "consents": {},
        "active": True,
        "aux": {},
        "data": {"anonymous": True},
    }


def test_a_client_may_give_a_new_profile_ids_and_times() -> None:
    profile = fresh(ids=["p-0", "p-1", "", " ", 7, None, "p-0", "x" * 5000], metadata={"create": "2020-01-01"})

    assert profile["ids"] == ["p-1", "p-0"]
    assert profile["metadata"]["time"]["create"] == "2020-01-01T00:00:00.000+00:00"


def test_a_profile_lists_no_more_ids_than_its_bound() -> None:
    profile = fresh()

    assert add_ids(profile, [f"i{n}" for n in range(2 * IDS_MAX)])
    assert len(profile["ids"]) == IDS_MAX
    assert not add_ids(profile, ["one more"])


def test_visits_are_counted_and_remembered() -> None:
    profile = fresh()
    visit(profile, AT, "Europe/Warsaw")
    visit(profile, AT + 60_000, None)

    assert profile["metadata"]["time"]["visit"] == {
        "last": "2023-11-20T00:00:00.000+00:00",
        "current": "2023-11-20T00:01:00.000+00:00",
        "count": 2,
        "tz": "Europe/Warsaw",
    }
    assert visit_count(profile) == profile["stats"]["visits"] == 2
    assert profile["aux"] == {"geo": {"continent": "Europe"}}


@pytest.mark.parametrize("tz", ["UTC", "Etc/GMT+1", "/", "Nowhere/At all"])
def test_a_time_zone_without_a_continent_names_none(tz: str) -> None:
    profile = fresh()
    visit(profile, AT, tz)

    assert profile["aux"] == {}


def test_events_and_page_views_are_counted() -> None:
    profile = fresh()
    count_events(profile, ["page-view", "sign-up", "page-view"])
    count_events(profile, iter(()))

    assert profile["stats"] == {"visits": 0, "views": 2, "counters": {"events": 3}}


def test_the_update_time_never_goes_back() -> None:
    profile = fresh()
    touch(profile, AT + 1)
    touch(profile, AT)

    assert profile["metadata"]["time"]["update"] == "2023-11-20T00:00:00.001+00:00"


@pytest.mark.parametrize(
    ("contact", "anonymous"),
    [
        ({}, True),
        ({"email": {"main": None, "private": ""}}, True),
        ({"address": {"town": "Warsaw"}}, True),
        ({"email": {"business": "a@b.c"}}, False),
        ({"phone": {"mobile": "1"}}, False),
        ({"app": {"other": {"matrix": "@a:b"}}}, False),
    ],
)
def test_who_cannot_be_reached_is_anonymous(contact: dict[str, Any], anonymous: bool) -> None:
    profile = fresh()
    profile["data"]["contact"] = contact

    refresh_derived(profile)

    assert profile["data"]["anonymous"] is anonymous


def test_the_share_of_completed_checkouts_is_derived() -> None:
    profile = fresh()
    profile["data"]["metrics"] = {"ltcosc": 3, "ltcocc": 1}

    refresh_derived(profile)

    assert profile["data"]["metrics"]["ltcop"] == 0.3333


def test_a_place_is_news_once_and_no_place_is_none() -> None:
    profile = fresh()

    assert not take_place(profile, {}, AT / 1000, "d")
    assert take_place(profile, {"city": "Warsaw"}, AT / 1000, "e")
    assert not take_place(profile, {"city": "Warsaw"}, AT / 1000, "f")
    assert profile["data"]["devices"]["last"]["geo"] == {"city": "Warsaw"}
    assert profile["metadata"]["fields"] == {"data.devices.last.geo": [AT / 1000, "e"]}


def test_an_expanded_profile_has_every_field_and_keeps_what_is_known() -> None:
    profile = fresh()
    profile["data"] = {"anonymous": False, "contact": {"email": {"main": "a@b.c"}}, "extra": 1}

    shown = expand(profile)

    assert get(shown, split("data.contact.email.main")) == "a@b.c"
    assert shown["data"]["anonymous"] is False
    assert shown["data"]["extra"] == 1
    assert [
        path for path, _ in leaves("profile") if path.startswith("data.") and get(shown, split(path)) is MISSING
    ] == []
    shown["data"]["preferences"]["colors"].append("red")
    assert expand(fresh())["data"]["preferences"]["colors"] == []
    assert "preferences" not in profile["data"]


def test_every_field_of_a_record_is_documented() -> None:
    page = (ROOT / "docs/records.md").read_text()
    rows = set(re.findall(r"^\| `([^`]+)` \|", page, re.MULTILINE))

    def names(record: Any, above: str = "") -> list[str]:
        found: list[str] = []
        for key, value in record.items():
            found += names(value, f"{above}{key}.") if isinstance(value, dict) and value else [above + key]
        return found

    session = new_session("s", profile="p", at_ms=AT)
    assert [name for name in names(fresh()) if f"profile.{name}" not in rows] == []
    assert [name for name in names(session) if f"session.{name}" not in rows] == []
