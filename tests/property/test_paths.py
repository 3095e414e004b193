from copy import deepcopy

from hypothesis import given
from hypothesis import strategies as st

from tests.property.json_values import keys, objects, values
from tracardi_lite.pipeline.paths import MISSING, get, put, remove

some_path = st.lists(keys, min_size=1, max_size=4).map(tuple)


@given(objects, some_path, values)
def test_what_was_put_is_what_is_got(document: dict[str, object], path: tuple[str, ...], value: object) -> None:
    before = deepcopy(document)

    if put(document, path, value):
        assert get(document, path) == value
    else:
        assert document == before


@given(objects, some_path)
def test_what_was_removed_is_missing(document: dict[str, object], path: tuple[str, ...]) -> None:
    there = get(document, path) is not MISSING

    assert remove(document, path) is there
    assert get(document, path) is MISSING
