"""docs/where.md tells the truth: each of its examples is tried, and the numbers in it are the code's."""

from __future__ import annotations

import json
import re
import sqlite3
from pathlib import Path

import pytest

from tracardi_lite.backends.store.sqlite import schema, search, searches
from tracardi_lite.backends.store.sqlite import where as where_sql
from tracardi_lite.errors import BadInput
from tracardi_lite.query import matches
from tracardi_lite.query.parse import DEPTH_MAX, TERMS_MAX, TEXT_MAX, parse

TEXT = (Path(__file__).parents[2] / "docs" / "where.md").read_text()
RECORD = json.loads(re.findall(r"<!-- record -->\n```json\n(.*?)```", TEXT, re.DOTALL)[0])
ROWS = [
    (text.replace("\\|", "|"), holds)
    for text, holds in re.findall(r"^\| `(.+?)` \| (yes|no|error) \|", TEXT, re.MULTILINE)
]


def test_the_page_has_its_examples() -> None:
    assert len(ROWS) > 25
    assert {holds for _, holds in ROWS} == {"yes", "no", "error"}


@pytest.mark.parametrize(("text", "holds"), ROWS)
def test_an_example_holds_as_the_page_says(text: str, holds: str) -> None:
    if holds == "error":
        with pytest.raises(BadInput):
            parse(text)
        return
    where = parse(text)
    assert where is not None
    assert matches(where, RECORD) == (holds == "yes")
    layout = schema.LAYOUTS["event"]
    connection = sqlite3.connect(":memory:")
    for statement in layout.tables:
        connection.execute(statement)
    connection.execute(
        "INSERT INTO record (id, at_ms, profile, type, source, message, doc) VALUES (?, ?, ?, ?, '', '', ?)",
        ("e-1", 1795449060120, "p-1", "page-view", json.dumps(RECORD).encode()),
    )
    sql, values = where_sql.compiled(where, layout)
    (number,) = connection.execute(f"SELECT count(*) FROM record WHERE {sql}", values).fetchone()
    connection.close()
    assert number == (holds == "yes")


def test_the_error_on_the_page_is_the_error_that_is_answered() -> None:
    with pytest.raises(BadInput) as caught:
        parse(ROWS[-1][0])
    assert json.dumps(caught.value.detail) in TEXT


def test_the_limits_on_the_page_are_the_limits() -> None:
    flat = " ".join(TEXT.split())
    assert f"at most {TEXT_MAX} characters, {TERMS_MAX} comparisons, and {DEPTH_MAX} levels" in flat
    assert f"within the first {searches.DEPTH_MAX:,} results" in flat
    assert f"ends after {search.SEARCH_S:.0f} seconds" in flat
