import json
import re
from pathlib import Path

import pytest

from tracardi_lite.errors import Misconfigured
from tracardi_lite.pipeline import docs
from tracardi_lite.pipeline.event_types import (
    EventType,
    EventTypes,
    ProfileOp,
    check,
    event_name,
    load_custom,
    normalise_type,
    predefined,
)

ROOT = Path(__file__).parents[2]
PROTOCOL = """
sign-up sign-in identification profile-update consent-update page-view search product-search-result screen-view
page-print location product-clicked product-details-page-view product-added-to-basket product-removed-from-basket
product-shared product-reviewed product-returned basket-viewed order-started order-completed order-status-change
order-waiting-for-dispatch order-dispatched order-dispatch-in-transit order-awaiting-pickup order-delivered
checkout-started checkout-completed checkout-status sale-completed payment-info-entered delivery-info-entered
increase-interest decrease-interest reset-interest add-color-preference add-size-preference add-brand-preference
add-channel-preference add-payment-preference message-sent message-status message-received message-opened
messaging-started messaging-ended loyalty-card-added loyalty-card-removed promotion-viewed promotion-clicked
account-deleted account-payable account-receivable payable-overdue receivable-overdue payment-sent payment-received
rating session-opened visit-started visit-ended profile-created profile-inactive profile-archived
"""


def test_all_of_the_protocols_types_are_known() -> None:
    types = EventTypes()

    assert len(PROTOCOL.split()) == 65
    assert [name for name in PROTOCOL.split() if types.get(name) is None] == []


@pytest.mark.parametrize("entry", predefined(), ids=lambda entry: entry.id)
def test_every_predefined_type_can_be_obeyed(entry: EventType) -> None:
    check(entry)

    assert entry.id == normalise_type(entry.id)
    assert entry.description


def test_profile_update_takes_the_72_fields_of_the_protocol() -> None:
    entry = EventTypes().get("profile-update")
    assert entry is not None

    assert len(entry.copies) == len(entry.ops) == 72


def test_types_without_mappings_need_no_properties() -> None:
    types = EventTypes()

    assert [name for name in ("visit-started", "basket-viewed") if types.get(name).needs_properties] == []  # type: ignore[union-attr]
    assert types.get("increase-interest").needs_properties  # type: ignore[union-attr]
    assert types.get("consent-update").needs_properties  # type: ignore[union-attr]
    assert types.get("no-such-type") is None


def test_a_page_view_without_what_it_copies_need_not_be_decoded() -> None:
    entry = EventTypes().get("page-view")
    assert entry is not None
    assert not entry.may_copy(b'{"title":"t","ids":[1]}')
    assert entry.may_copy(b'{"id":"1"}')
    assert entry.may_copy(rb'{"\u0069d":"1"}'), "the same name, written with an escape"


def test_the_journey_state_of_a_page_view_depends_on_the_visit() -> None:
    entry = EventTypes().get("page-view")
    assert entry is not None

    assert [entry.journey_state(visits) for visits in (0, 1, 2)] == ["awareness", "awareness", "consideration"]


def test_types_are_normalised_and_named_as_the_protocol_says() -> None:
    assert normalise_type(" a b C ") == "a-b-c"
    assert event_name("sign-up") == "Sign up"


def test_a_custom_type_takes_the_place_of_a_predefined_one() -> None:
    mine = EventType(id="Page View", state="mine")

    types = EventTypes(custom=[mine])

    assert types.get("page-view") is mine
    assert len(types) == len(predefined())


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        (EventType(id="x", copy={"a": "data.contact.emial.main"}), r"did you mean 'data\.contact\.email\.main'"),
        (EventType(id="x", copy={"a": "metadata.time.insert"}), "no field"),
        (EventType(id="x", copy={"a": "data.contact.email.main.more"}), "is below a text"),
        (EventType(id="x", copy={"": "traits.a"}), "not a dotted path"),
        (EventType(id="x", profile=["data.contact"]), "object of fields"),
        (EventType(id="x", profile=[ProfileOp(to="stats.counters.events", value=1)]), "counted by the program"),
        (EventType(id="x", profile=[ProfileOp(to="ids", source="properties.a")]), "only be appended"),
        (EventType(id="x", profile=[ProfileOp(to="data.pii.gender", op="+", value=1)]), "needs a number"),
        (EventType(id="x", profile=[ProfileOp(to="traits", op="+", value=1)]), "needs a number"),
        (EventType(id="x", profile=[ProfileOp(to="data.pii.gender", op="append", value=1)]), "needs a list"),
        (EventType(id="x", profile=[ProfileOp(to="traits.a")]), "needs 'from' or 'value'"),
        (EventType(id="x", profile=[ProfileOp(to="traits.a", source="profile.id")]), "no path into an event"),
        (EventType(id="x", profile=[ProfileOp(to="interests.{profile.id}", op="increment")]), "no path into an event"),
        (EventType(id=" "), "the id is empty"),
    ],
)
def test_an_entry_that_cannot_be_obeyed_is_named(entry: EventType, message: str) -> None:
    with pytest.raises(Misconfigured, match=message) as raised:
        EventTypes(custom=[entry])

    assert repr(entry.id) in str(raised.value)


def test_custom_types_are_read_from_json_and_toml(tmp_path: Path) -> None:
    as_json = tmp_path / "types.json"
    as_json.write_text('[{"id": "a", "copy": {"x": "traits.x"}, "profile": ["traits.x"]}]')
    as_toml = tmp_path / "types.toml"
    as_toml.write_text('[[event_type]]\nid = "a"\ncopy = {x = "traits.x"}\nprofile = ["traits.x"]\n')

    for entry in (*load_custom(as_json), *load_custom(as_toml)):
        assert (entry.id, entry.copy, entry.profile) == ("a", {"x": "traits.x"}, ["traits.x"])


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("gone.json", None, "No such file"),
        ("a.json", "{", "truncated"),
        ("a.json", "{}", "expected a list"),
        ("a.json", '[{"id": "fine"}, {"id": "b", "copies": {}}]', r"entry 1 \('b'\).*unknown field"),
        ("a.json", '[{"id": "b", "profile": [{"to": "traits.a", "op": "set"}]}]', r"entry 0 \('b'\).*'set'"),
        ("a.json", "[3]", "entry 0"),
        ("a.json", '[{"id": "b", "copy": {"a": "nowhere"}}]', "event type 'b'"),
        ("a.toml", "[[event_type", "a.toml"),
    ],
)
def test_a_faulty_file_is_refused_with_the_place(tmp_path: Path, name: str, content: str | None, message: str) -> None:
    file = tmp_path / name
    if content is not None:
        file.write_text(content)

    with pytest.raises(Misconfigured, match=message) as raised:
        load_custom(file)

    assert raised.value.key == "event_types_file"


def test_the_page_is_what_the_data_say() -> None:
    page = docs.event_types_page()

    assert (ROOT / "docs/event-types.md").read_text() == page, "run make docs"


def test_the_example_of_the_page_works(tmp_path: Path) -> None:
    example = re.search(r"```json\n(.*?)```", docs.event_types_page(), re.DOTALL)
    assert example is not None
    file = tmp_path / "types.json"
    file.write_text(example[1])

    assert [entry.id for entry in load_custom(file)] == [json.loads(example[1])[0]["id"]]
