"""Whatever is written, the loader answers with settings in their bounds or with problems; never with a crash."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tracardi_lite.settings import Problems, load
from tracardi_lite.settings.fields import FIELDS, Field
from tracardi_lite.settings.values import Wrong, parse, plain, shown, size

FIELD = st.sampled_from(list(FIELDS.values()))
SCALAR = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary()
RAW = st.recursive(SCALAR, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=4)

_TYPES = {"switch": bool, "whole number": int, "number": float, "text": str, "path": Path, "choice": str}


@given(FIELD, RAW)
def test_a_value_is_of_its_type_and_in_its_bounds_or_is_refused(field: Field, raw: object) -> None:
    try:
        value = parse(field, raw)
    except Wrong as wrong:
        assert field.expected in str(wrong)
        return
    assert type(value) is _TYPES[field.type] or isinstance(value, Path)
    if field.choices:
        assert value in field.choices
    if field.type in ("whole number", "number"):
        assert field.option.ge is None or value >= field.option.ge
        assert field.option.le is None or value <= field.option.le


@given(FIELD, st.data())
def test_what_is_shown_to_programs_reads_back_as_the_same_value(field: Field, data: st.DataObject) -> None:
    if field.type not in ("whole number", "number", "switch"):
        return
    low = field.option.ge if field.option.ge is not None else 0
    high = field.option.le if field.option.le is not None else 1 << 60
    kind: dict[str, st.SearchStrategy[object]] = {
        "switch": st.booleans(),
        "whole number": st.integers(int(low), int(high)),
        "number": st.floats(low, high)
        .map(lambda number: round(number, 6))
        .filter(lambda number: low <= number <= high),
    }
    value = data.draw(kind[field.type])
    assert parse(field, plain(field, value)) == value
    assert parse(field, str(plain(field, value))) == value


@given(st.integers(0, 1 << 60))
def test_a_size_that_is_shown_is_exact(count: int) -> None:
    field = FIELDS["queue_bytes_max"]
    text = size(count)
    if count >= Decimal(field.option.ge or 0):
        assert parse(field, text) == count


@given(st.dictionaries(st.sampled_from([name for field in FIELDS.values() for name in field.env_names]), st.text()))
def test_any_environment_gives_settings_or_problems_that_name_it(environ: dict[str, str]) -> None:
    try:
        load({}, environ)
    except Problems as problems:
        assert {problem.key for problem in problems.problems} <= set(environ)


@given(st.text(alphabet=st.characters(codec="utf-8")))
def test_any_file_gives_settings_or_problems(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    path = tmp_path_factory.getbasetemp() / "any.toml"
    path.write_text(text, encoding="utf-8")
    try:
        load({}, {}, path)
    except Problems as problems:
        assert problems.problems


@given(st.text(min_size=1).filter(str.strip))
def test_a_secret_is_never_shown(secret: str) -> None:
    assert shown(FIELDS["installation_token"], secret) == "(hidden)"
