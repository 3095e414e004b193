import pytest

from tracardi_lite.pipeline.context import accepted_languages, languages, timezone, utm, visitor

CHROME = "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/125.0.0.0 Safari/537.36"
CONTEXT = {
    "time": {"local": "11/23/2026, 4:00:00 PM", "tz": "Europe/Warsaw"},
    "browser": {"local": {"browser": {"userAgent": CHROME, "language": "en-US"}}},
    "screen": {"local": {"width": 100, "height": 50, "colorDepth": 24, "orientation": "landscape-primary"}},
    "utm": {"source": "g", "medium": "cpc"},
    "location": {"country": {"name": "Poland", "code": "PL"}, "city": "Warsaw", "latitude": 52.1, "longitude": 21.0},
}


def test_the_trackers_context_gives_what_the_protocol_shows() -> None:
    parts = visitor(CONTEXT, {"x-forwarded-for": "1.2.3.4, 10.0.0.1"}, "10.0.0.2")

    assert parts == {
        "device": {
            "name": "Other",
            "brand": None,
            "model": None,
            "type": "pc",
            "touch": False,
            "ip": "1.2.3.4",
            "resolution": "100x50",
            "color_depth": 24,
            "orientation": "landscape",
            "geo": {**CONTEXT["location"], "location": [21.0, 52.1]},
        },
        "os": {"name": "Linux", "version": ""},
        "app": {
            "type": "browser",
            "name": "Chrome",
            "version": "125.0.0",
            "language": "en-US",
            "bot": False,
            "resolution": None,
        },
        "utm": {"source": "g", "medium": "cpc", "campaign": None, "term": None, "content": None},
    }
    assert timezone(CONTEXT) == "Europe/Warsaw"


def test_without_a_context_the_headers_speak() -> None:
    parts = visitor(None, {"user-agent": "curl/8.5.0", "accept-language": "pl;q=0.5, de-DE"}, "10.0.0.2")

    assert parts["device"]["ip"] == "10.0.0.2"
    assert parts["app"] == {
        "type": "other",
        "name": "curl",
        "version": "8.5.0",
        "language": "de-DE",
        "bot": False,
        "resolution": None,
    }
    assert parts["utm"] == {}
    assert parts["device"]["geo"] == {}


def test_the_client_may_name_its_device() -> None:
    device = {"name": "Till 4", "brand": "Acme", "model": "T", "type": "kiosk", "touch": True}

    told = visitor({"device": device}, {}, None)["device"]

    assert {key: told[key] for key in device} == device


def test_orientation_follows_from_the_screen_when_it_is_not_said() -> None:
    assert visitor({"screen": {"width": 50, "height": 100}}, {}, None)["device"]["orientation"] == "portrait"
    assert visitor({"screen": {"width": 100, "height": 50}}, {}, None)["device"]["orientation"] == "landscape"
    assert visitor({"screen": {"width": -1, "height": 50}}, {}, None)["device"]["orientation"] is None


@pytest.mark.parametrize("latitude", [91, -91, "north", None, 1e400])
def test_a_place_off_the_globe_has_no_coordinates(latitude: object) -> None:
    place = visitor({"location": {"city": "X", "latitude": latitude, "longitude": 0}}, {}, None)["device"]["geo"]

    assert place == {"city": "X"}


def test_languages_are_ordered_by_how_much_they_are_wanted() -> None:
    header = "fr;q=0.2, en-US, en;q=0.9, *;q=0.1, xx;q=0.8, de;q=0, ;;"

    assert accepted_languages(header)[:4] == ("en-US", "en", "xx", "fr")
    names, codes = languages({"accept-language": header})
    assert names == ["English", "French"]
    assert codes[:3] == ["en", "xx", "fr"]


def test_a_campaign_without_any_field_is_none() -> None:
    assert utm({"utm": {"source": "", "medium": None, "campaign": {}}}) == {}
