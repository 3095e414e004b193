"""What becomes of each field when two profiles become one."""

from __future__ import annotations

from typing import Any

import pytest

from tracardi_lite.pipeline.merging import marks
from tracardi_lite.pipeline.merging.marks import HISTORY_MAX, Why
from tracardi_lite.pipeline.merging.merge import fold, set_traits_aside
from tracardi_lite.pipeline.merging.strategies import Strategies, parse_strategies
from tracardi_lite.pipeline.paths import MISSING, get, put, split
from tracardi_lite.pipeline.profile import IDS_MAX, new_profile
from tracardi_lite.pipeline.watermark import applied, mark_applied

T0 = 1_800_000_000_000


def profile(id: str, at_ms: int = T0, /, **fields: Any) -> dict[str, Any]:
    """``data__pii__firstname=("Joe", 5)``: the value, and when it changed (None: not known)."""
    made = new_profile(id, at_ms)
    for name, given in fields.items():
        path = name.replace("__", ".")
        value, at = given if isinstance(given, tuple) else (given, None)
        if value is not MISSING:
            put(made, split(path), value)
        if at is not None:
            made["metadata"]["fields"][path] = [at, f"event-{at}"]
    return made


def merged(survivor: dict[str, Any], loser: dict[str, Any], strategies: str = "") -> dict[str, Any]:
    frozen = marks.freeze(loser, survivor["id"], "2027-q1", Why(("data.contact.email.main",), T0))
    return fold(survivor, frozen, "2027-q1", Strategies(parse_strategies(strategies)))


def outcome(path: str, ours: Any, theirs: Any, strategies: str = "") -> Any:
    name = path.replace(".", "__")
    return get(merged(profile("a", **{name: ours}), profile("b", **{name: theirs}), strategies), split(path))


@pytest.mark.parametrize(
    ("ours", "theirs", "kept"),
    [
        (("Joe", 1), ("Joseph", 2), "Joseph"),
        (("Joe", 2), ("Joseph", 1), "Joe"),
        (("Joe", 1), ("Joseph", 1), "Joe"),
        (("Joe", 1), "Joseph", "Joe"),
        ("Joe", ("Joseph", 1), "Joseph"),
        (("Joe", 5), MISSING, "Joe"),
        (MISSING, ("Joseph", 5), "Joseph"),
        # Nobody knows when he was called so: better too much than too little.
        ((None, 5), "Joseph", "Joseph"),
        ((None, 5), ("Joseph", 4), None),
        (MISSING, MISSING, MISSING),
    ],
)
def test_of_scalars_the_latest_change_wins(ours: Any, theirs: Any, kept: Any) -> None:
    assert outcome("data.pii.firstname", ours, theirs) == kept


def test_without_any_times_the_profile_that_was_updated_last_wins() -> None:
    early, late = profile("a", T0, traits__x=1), profile("b", T0 + 5000, traits__x=2)
    assert merged(early, late)["traits"]["x"] == 2
    assert merged(late, early)["traits"]["x"] == 2


def test_what_was_removed_after_the_others_change_stays_removed() -> None:
    assert outcome("data.loyalty.card.id", (MISSING, 9), ("card", 5)) is MISSING
    assert outcome("data.loyalty.card.id", (MISSING, 5), ("card", 9)) == "card"
    assert outcome("data.loyalty.card.id", ("card", 5), (MISSING, 9)) is MISSING
    # A whole branch, as a consent that was revoked takes it away.
    ours = profile("a", data__contact=(MISSING, 9))
    theirs = profile("b", data__contact__email__main=("joe@x", 5))
    assert get(merged(ours, theirs), ("data", "contact")) is MISSING


def test_counters_add_lists_unite_and_objects_merge_deeply() -> None:
    ours = profile("a", traits__deep={"x": 1, "same": {"y": 2}}, interests__tea=2, segments=["s1", "s2"])
    theirs = profile("b", traits__deep={"z": 3, "same": {"w": 4}}, interests__tea=3, segments=["s2", "s3"])
    ours["stats"] = {"visits": 2, "views": 3, "counters": {"events": 7, "mine": 1}}
    theirs["stats"] = {"visits": 1, "views": 4, "counters": {"events": 5, "theirs": 2}}
    put(ours, ("data", "metrics"), {"ltcosc": 2, "ltcosv": 10.5, "ltcocc": 1})
    put(theirs, ("data", "metrics"), {"ltcosc": 2, "ltcosv": 1, "ltcocc": 1})
    made = merged(ours, theirs)
    assert made["traits"]["deep"] == {"x": 1, "z": 3, "same": {"y": 2, "w": 4}}
    assert made["interests"] == {"tea": 5}
    assert made["segments"] == ["s1", "s2", "s3"]
    assert made["stats"] == {"visits": 3, "views": 7, "counters": {"events": 12, "mine": 1, "theirs": 2}}
    assert made["data"]["metrics"] == {"ltcosc": 4, "ltcosv": 11.5, "ltcocc": 2, "ltcop": 0.5}


def test_a_measure_is_no_counter() -> None:
    assert outcome("data.pii.attributes.height", (180, 1), (182, 2)) == 182
    assert outcome("traits.score", (3, 2), (4, 1)) == 3


def test_lists_of_one_stay_lists() -> None:
    assert outcome("data.preferences.colors", ["red"], ["red"]) == ["red"]
    assert outcome("data.preferences.colors", ["red"], MISSING) == ["red"]


def test_a_place_and_a_consent_are_taken_whole() -> None:
    here, there = {"city": "Wien", "location": [16, 48]}, {"country": {"code": "PL"}}
    assert outcome("data.devices.last.geo", (here, 1), (there, 2)) == there
    ours = profile("a", consents=({"ads": {"revoke": "2027-01-01"}, "mail": {"revoke": None}}, 1))
    theirs = profile("b", consents=({"ads": {"revoke": None}}, 2))
    assert merged(ours, theirs)["consents"] == {"ads": {"revoke": None}, "mail": {"revoke": None}}
    assert merged(theirs, ours)["consents"] == {"ads": {"revoke": None}, "mail": {"revoke": None}}


@pytest.mark.parametrize(
    ("strategy", "ours", "theirs", "kept"),
    [
        ("LAST_UPDATE", (1, 1), (2, 2), 2),
        ("FIRST_UPDATE", (1, 1), (2, 2), 1),
        ("FIRST_UPDATE", (1, 2), (2, 1), 2),
        ("MIN", (1, 1), (2, 2), 1),
        ("MAX", (3, 1), (2, 2), 3),
        ("MIN", ("b", 1), ("a", 2), "a"),
        ("MIN", ("b", 1), (2, 2), 2),
        ("SUM", (1, 1), (2, 2), 3),
        ("SUM", ("one", 2), (2, 1), "one"),
        ("SUM", ([1], 2), ([2], 1), [1, 2]),
        ("AND", (True, 1), (False, 2), False),
        ("OR", (True, 1), (False, 2), True),
        ("OR", ("x", 1), ("y", 2), "y"),
        ("MERGE_LISTS_DISTINCT", ("a", 1), ("b", 2), ["a", "b"]),
        ("MERGE_LISTS_DISTINCT", (["a"], 1), (["a", "b"], 2), ["a", "b"]),
        ("LAST_PROFILE_UPDATE_TIME", (1, 9), (2, 1), 1),
        ("FIRST_PROFILE_INSERT_TIME", (1, 9), (2, 1), 1),
    ],
)
def test_a_field_is_merged_by_the_strategy_that_is_set_for_it(strategy: str, ours: Any, theirs: Any, kept: Any) -> None:
    assert outcome("traits.x", ours, theirs, f"traits={strategy}") == kept
    assert outcome("traits.x", ours, theirs, f"traits=LAST_UPDATE, traits.x={strategy.lower()}") == kept


def test_strategies_by_the_profiles_own_times() -> None:
    old, young = profile("a", T0, traits__x=(1, 9)), profile("b", T0 + 1000, traits__x=(2, 1))
    assert merged(old, young, "traits=LAST_PROFILE_UPDATE_TIME")["traits"]["x"] == 2
    assert merged(young, old, "traits=FIRST_PROFILE_INSERT_TIME")["traits"]["x"] == 1


def test_times_visits_and_ids() -> None:
    ours, theirs = profile("a", T0 + 1000), profile("b", T0, primary_id=("pk", 3))
    ours["ids"] += ["emm-1"]
    theirs["ids"] += ["emm-1", "emm-2"]
    ours["metadata"]["time"]["visit"] = {"last": None, "current": "2027-01-02", "count": 1, "tz": "Europe/Wien"}
    theirs["metadata"]["time"]["visit"] = {"last": "2027-01-01", "current": "2027-01-03", "count": 4, "tz": None}
    made = merged(ours, theirs)
    assert made["ids"] == ["a", "b", "emm-1", "emm-2"]
    assert made["primary_id"] == "pk"
    time = made["metadata"]["time"]
    assert time["insert"] == theirs["metadata"]["time"]["insert"]
    assert time["update"] == ours["metadata"]["time"]["update"]
    assert time["visit"] == {"last": "2027-01-02", "current": "2027-01-03", "count": 5, "tz": "Europe/Wien"}
    assert made["metadata"]["fields"]["primary_id"] == [3, "event-3"]


def test_ids_keep_within_their_bound_and_the_profiles_own_come_first() -> None:
    ours, theirs = profile("a"), profile("b")
    ours["ids"] += [f"x{n}" for n in range(IDS_MAX - 1)]
    made = merged(ours, theirs)
    assert made["ids"][:2] == ["a", "b"]
    assert len(made["ids"]) == IDS_MAX


def test_what_either_has_taken_in_the_merged_one_has() -> None:
    ours, theirs = profile("a"), profile("b")
    mark_applied(ours, "a", "t/0", (100,))
    mark_applied(theirs, "b", "t/0", (150,))
    mark_applied(theirs, "a", "t/0", (7,))
    made = merged(ours, theirs)
    assert applied(made, "a", "t/0", (100,))
    assert not applied(made, "a", "t/0", (120,)), "a message of the other key, still in flight"
    assert applied(made, "b", "t/0", (150,))
    assert not applied(theirs, "a", "t/0", (8,)), "what was passed in is not changed"


def test_a_merge_is_told_of_with_what_came_from_where() -> None:
    ours = profile("a", data__pii__firstname=("Joe", 1))
    theirs = profile("b", data__pii__firstname=("Joseph", 2), data__pii__lastname=("Doe", 2))
    theirs["stats"]["counters"]["events"] = 3
    (told,) = marks.history(merged(ours, theirs))
    assert told["id"] == "b"
    assert told["into"] == "a"
    assert told["why"] == ["data.contact.email.main"]
    assert told["events"] == 3
    assert {"data.pii.firstname", "data.pii.lastname"} <= set(told["fields"])


def test_a_history_is_carried_on_and_has_an_end() -> None:
    made = profile("a")
    for number in range(HISTORY_MAX + 5):
        made = merged(made, merged(profile(f"b{number}"), profile(f"c{number}")))
    told = marks.history(made)
    assert len(told) == HISTORY_MAX
    assert {"b54", "c54"} <= {entry["id"] for entry in told}


def test_fields_that_no_index_would_take_are_set_aside_and_kept() -> None:
    theirs = profile("b", traits__x=1, data__metrics__custom={"y": 2}, data__metrics__ltv=3)
    aside = set_traits_aside(marks.freeze(theirs, "a", "2027-q1", Why()))
    made = fold(profile("a", traits__x="text"), aside, "2027-q1", Strategies())
    assert made["traits"] == {"x": "text"}
    assert made["data"]["metrics"] == {"ltv": 3}
    assert made["trash"]["merged-b"] == {"traits": {"x": 1}, "custom": {"y": 2}}
    assert theirs["traits"] == {"x": 1}


def test_a_record_from_elsewhere_may_lack_what_ours_have() -> None:
    bare = {"id": "b", "metadata": {"time": {"insert": None}}, "data": {}, "traits": {"x": 1}}
    made = merged(profile("a"), bare)
    assert made["traits"] == {"x": 1}
    assert made["stats"]["counters"]["events"] == 0
