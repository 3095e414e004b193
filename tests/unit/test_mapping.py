from typing import Any

import pytest

from tracardi_lite.pipeline.event_types import EventType, EventTypes, ProfileOp
from tracardi_lite.pipeline.mapping import KEYS_MAX, apply_to_profile, map_event
from tracardi_lite.pipeline.profile import new_profile
from tracardi_lite.pipeline.values import LIST_MAX

TYPES = EventTypes()
AT = 1_700_000_000.5


def send(
    profile: dict[str, Any], type: str | EventType, properties: dict[str, Any], event_id: str = "e-1"
) -> list[str]:
    entry = TYPES.get(type) if isinstance(type, str) else type
    assert entry is not None
    event = {"properties": properties, **map_event(entry, properties)}
    return apply_to_profile(profile, entry, event, AT, event_id)


def fresh() -> dict[str, Any]:
    return new_profile("p-1", 1_700_000_000_000)


def test_a_sign_up_fills_the_event_and_the_profile() -> None:
    profile = fresh()
    properties = {"email": {"main": "Joe@Example.com"}, "firstname": "Joe", "lastname": None, "login": "joe"}

    parts = map_event(TYPES.get("sign-up"), properties)  # type: ignore[arg-type]
    changed = send(profile, "sign-up", properties)

    data = {
        "contact": {"email": {"main": "Joe@Example.com"}},
        "pii": {"firstname": "Joe"},
        "identifier": {"token": "joe"},
    }
    assert parts == {"data": data}
    assert profile["data"] == {"anonymous": True, **data}
    assert changed == ["data.contact.email.main", "data.pii.firstname", "data.identifier.token"]
    assert profile["metadata"]["fields"] == {path: [AT, "e-1"] for path in changed}


def test_what_is_already_so_is_no_change() -> None:
    profile = fresh()
    send(profile, "sign-up", {"firstname": "Joe"})

    assert send(profile, "sign-up", {"firstname": "Joe"}, "e-2") == []
    assert profile["metadata"]["fields"]["data.pii.firstname"] == [AT, "e-1"]


def test_a_sign_in_sets_the_primary_id() -> None:
    profile = fresh()

    changed = send(profile, "sign-in", {"pk": 17})

    assert profile["primary_id"] == profile["data"]["identifier"]["pk"] == "17"
    assert "primary_id" in changed


def test_consents_are_taken_over_from_the_properties() -> None:
    profile = fresh()

    send(profile, "consent-update", {"consents": {"marketing": {"revoke": "2030-01-01"}, "cookies": {}, "ads": False}})

    assert profile["consents"] == {"marketing": {"revoke": "2030-01-01"}, "cookies": {"revoke": None}}


def test_interests_grow_fall_and_are_reset_also_with_dots_in_their_names() -> None:
    profile = fresh()
    send(profile, "increase-interest", {"interest": "node.js", "value": "2.5"})
    send(profile, "increase-interest", {"interest": "node.js"})
    send(profile, "decrease-interest", {"interest": "tea"})

    assert profile["interests"] == {"node.js": 3.5, "tea": -1.0}
    assert profile["metadata"]["fields"].keys() == {"interests.node.js", "interests.tea"}

    send(profile, "reset-interest", {"interest": "node.js"})
    assert profile["interests"]["node.js"] == 0


@pytest.mark.parametrize("interest", [None, "", {"a": 1}, [], "x" * 2000])
def test_an_interest_without_a_usable_name_changes_nothing(interest: object) -> None:
    profile = fresh()

    assert send(profile, "increase-interest", {"interest": interest}) == []
    assert profile["interests"] == {}


def test_a_profile_takes_no_more_interests_than_its_bound() -> None:
    profile = fresh()
    for n in range(KEYS_MAX + 5):
        send(profile, "increase-interest", {"interest": f"i{n}"})

    assert len(profile["interests"]) == KEYS_MAX
    assert send(profile, "increase-interest", {"interest": "i0"}) == ["interests.i0"]


def test_a_list_in_a_profile_takes_each_thing_once_and_no_more_than_its_bound() -> None:
    profile = fresh()
    for n in [1, 1, *range(LIST_MAX + 5)]:
        send(profile, "add-color-preference", {"color": f"c{n}"})

    colors = profile["data"]["preferences"]["colors"]
    assert len(colors) == len(set(colors)) == LIST_MAX
    assert colors[:3] == ["c1", "c0", "c2"]


def test_checkouts_are_counted_and_summed() -> None:
    profile = fresh()
    send(profile, "checkout-started", {"value": 10})
    send(profile, "checkout-started", {"value": "2.5"})
    send(profile, "checkout-started", {})
    send(profile, "checkout-completed", {"value": 10})

    assert profile["data"]["metrics"] == {"ltcosv": 12.5, "ltcosc": 3, "ltcocv": 10, "ltcocc": 1}


def test_a_spoilt_counter_counts_again() -> None:
    profile = fresh()
    profile["data"]["metrics"] = {"ltcosc": "many", "ltcosv": "4"}

    send(profile, "checkout-started", {"value": 1})

    assert profile["data"]["metrics"] == {"ltcosc": 1, "ltcosv": 5}


def test_messages_fill_a_contact_only_if_it_is_unknown() -> None:
    profile = fresh()
    send(profile, "message-sent", {"identity": {"email": {"main": "a@b.c"}}})
    send(profile, "message-sent", {"identity": {"email": {"main": "other@b.c"}}})

    assert profile["data"]["contact"]["email"] == {"main": "a@b.c"}


def test_a_loyalty_card_comes_and_goes() -> None:
    profile = fresh()
    send(profile, "loyalty-card-added", {"id": 7, "name": "Gold", "expires": "2030-01-01 00:00:00"})
    assert profile["data"]["loyalty"]["card"] == {"id": "7", "name": "Gold", "expires": "2030-01-01 00:00:00"}

    assert send(profile, "loyalty-card-removed", {"id": 7}) == [
        "data.loyalty.card.id",
        "data.loyalty.card.name",
        "data.loyalty.card.expires",
    ]
    assert profile["data"]["loyalty"]["card"] == {}


@pytest.mark.parametrize("wrap", [lambda place: place, lambda place: {"location": place}])
def test_a_location_is_taken_flat_or_nested_and_becomes_the_profiles_last_place(wrap: Any) -> None:
    profile = fresh()
    place = {"country": {"name": "Poland", "code": "PL"}, "city": "Warsaw", "latitude": 52.1, "longitude": "21"}

    send(profile, "location", wrap(place))

    assert profile["data"]["devices"]["last"]["geo"] == {**place, "longitude": 21, "location": [21, 52.1]}


def test_all_traits_can_be_replaced_at_once() -> None:
    profile = fresh()
    profile["traits"] = {"old": 1}

    send(profile, "profile-traits-update", {"new": {"deep": [1, None]}})

    assert profile["traits"] == {"new": {"deep": [1, None]}}


def test_values_that_do_not_fit_are_left_out_and_said() -> None:
    warnings: list[str] = []
    properties = {"id": "7", "price": "cheap", "variant": {"name": "x", "color": {}, "smell": 1}, "name": {"first": 1}}

    parts = map_event(TYPES.get("product-clicked"), properties, warnings)  # type: ignore[arg-type]

    assert parts == {"data": {"ec": {"product": {"id": "7", "variant": {"name": "x"}}}}}
    assert warnings == [
        "properties.name does not fit data.ec.product.name",
        "properties.price does not fit data.ec.product.price",
    ]


def test_an_operation_whose_value_does_not_fit_is_skipped_and_said() -> None:
    warnings: list[str] = []
    entry = EventType(id="x", profile=[ProfileOp(to="data.metrics.ltv", op="+", source="properties.value")])

    assert apply_to_profile(fresh(), entry, {"properties": {"value": {"much": True}}}, AT, "e", warnings) == []
    assert warnings == ["properties.value does not fit + of data.metrics.ltv"]


def test_constants_and_nested_custom_paths_work() -> None:
    entry = EventType(
        id="x",
        profile=[
            ProfileOp(to="segments", op="append", value="buyer"),
            ProfileOp(to="data.metrics.custom.seats", op="decrement", value=2),
            ProfileOp(to="traits.last", value={"any": [1]}),
            ProfileOp(to="traits.{properties.name}", source="properties.big", value=1),
        ],
    )
    profile = fresh()

    changed = send(profile, entry, {"name": "n", "big": {"objects": "are refused where clients choose the keys"}})

    assert changed == ["segments", "data.metrics.custom.seats", "traits.last"]
    assert profile["segments"] == ["buyer"]
    assert profile["data"]["metrics"] == {"custom": {"seats": -2}}
    assert profile["traits"] == {"last": {"any": [1]}}
