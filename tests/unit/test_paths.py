import pytest

from tracardi_lite.pipeline.paths import MISSING, get, put, remove, split


def test_a_dotted_path_is_split_into_its_keys() -> None:
    assert split("data.contact.email") == ("data", "contact", "email")


@pytest.mark.parametrize("path", ["", ".", "a.", ".a", "a..b"])
def test_a_path_with_an_empty_key_is_refused(path: str) -> None:
    with pytest.raises(ValueError, match="not a dotted path"):
        split(path)


def test_null_is_a_value_and_absence_is_missing() -> None:
    document = {"a": {"b": None}}

    assert get(document, ("a", "b")) is None
    assert get(document, ("a", "c")) is MISSING
    assert get(document, ("a", "b", "c")) is MISSING
    assert get("junk", ("a",)) is MISSING


def test_put_makes_objects_on_the_way_also_in_place_of_null() -> None:
    document: dict[str, object] = {"a": None}

    assert put(document, ("a", "b", "c"), 1)

    assert document == {"a": {"b": {"c": 1}}}


@pytest.mark.parametrize("bar", [1, "x", [], True])
def test_put_refuses_to_replace_what_bars_the_way(bar: object) -> None:
    document = {"a": bar}

    assert not put(document, ("a", "b"), 1)

    assert document == {"a": bar}


def test_remove_says_whether_something_was_there() -> None:
    document = {"a": {"b": 1}}

    assert remove(document, ("a", "b"))
    assert not remove(document, ("a", "b"))
    assert not remove(document, ("x", "y"))
    assert document == {"a": {}}
