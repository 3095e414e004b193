"""A where-clause means the same in SQL as in Python, for any record; and a text means one thing or is an error."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tracardi_lite.backends.store.sqlite import schema
from tracardi_lite.backends.store.sqlite import where as where_sql
from tracardi_lite.errors import BadInput
from tracardi_lite.query import And, Compare, Exists, Not, Or, Where, dates, matches
from tracardi_lite.query.parse import parse

LAYOUT = schema.LAYOUTS["event"]

# Few names and values, so that clauses and records meet.
TEXTS = st.sampled_from(["a", "ab", "abc", "", "A", "5", "true", "ä", "🦊", "q\"u'o", "%", "a*", "T", "Z", "10"])
DATES = st.sampled_from(
    [
        "2026-11-01",
        "2026-11-01 00:00:00",
        "2026-11-01T00:00:00.000+00:00",
        "2026-11-01T00:00:00.500Z",
        "2026-10-31 23:59:59",
        "2026-11-10T10:00:00+00:00",
        "2026-11-19",
    ]
)
NUMBERS = st.one_of(st.integers(-3, 12), st.sampled_from([5.0, 0.1, -2.5, 1e20, 2**53 + 1, -(2**63), 2**63 - 1]))
SCALARS = st.one_of(TEXTS, DATES, NUMBERS, st.booleans(), st.none())
LEAVES = st.one_of(SCALARS, st.lists(SCALARS, max_size=3), st.dictionaries(st.sampled_from("xyz"), SCALARS, max_size=2))
FIELDS = st.sampled_from(
    ["traits.x", "traits.y", "traits.x.x", "traits", "id", "type", "profile.id", "profile", "metadata.time.insert"]
)
TIMES = {
    "2026-11-01T00:00:00.000+00:00": 1_793_491_200_000,
    "2026-11-01T00:00:00.500+00:00": 1_793_491_200_500,
    "2026-10-31T23:59:59.999+00:00": 1_793_491_199_999,
}


@st.composite
def records(draw: st.DrawFn) -> dict[str, Any]:
    return {
        "id": draw(TEXTS),
        "type": draw(TEXTS),
        "profile": draw(st.one_of(st.none(), st.fixed_dictionaries({"id": TEXTS}))),
        "source": {"id": "s"},
        "metadata": {"time": {"insert": draw(st.sampled_from(sorted(TIMES)))}, "aux": {"message": "m"}},
        "traits": draw(st.dictionaries(st.sampled_from("xyz"), LEAVES, max_size=3)),
    }


VALUES = st.one_of(TEXTS, DATES, NUMBERS, st.booleans(), st.none())
COMPARES = st.builds(Compare, FIELDS, st.sampled_from(["=", "!=", "<", "<=", ">", ">=", "prefix"]), VALUES)
CLAUSES: st.SearchStrategy[Where] = st.recursive(
    st.one_of(COMPARES, st.builds(Exists, FIELDS)),
    lambda terms: st.one_of(
        st.builds(Not, terms),
        st.builds(And, st.lists(terms, min_size=1, max_size=3).map(tuple)),
        st.builds(Or, st.lists(terms, min_size=1, max_size=3).map(tuple)),
    ),
    max_leaves=6,
)


@pytest.fixture(scope="module")
def database() -> Iterator[sqlite3.Connection]:
    connection = sqlite3.connect(":memory:", isolation_level=None)
    for statement in LAYOUT.tables:
        connection.execute(statement)
    yield connection
    connection.close()


def found(connection: sqlite3.Connection, record: dict[str, Any], where: Where) -> bool:
    connection.execute("DELETE FROM record")
    profile = record["profile"]["id"] if record["profile"] else None
    row = (
        record["id"],
        TIMES[record["metadata"]["time"]["insert"]],
        profile,
        record["type"],
        msgspec.json.encode(record),
    )
    connection.execute(
        "INSERT INTO record (id, at_ms, profile, type, source, message, doc) VALUES (?, ?, ?, ?, 's', 'm', ?)", row
    )
    sql, values = where_sql.compiled(where, LAYOUT)
    (number,) = connection.execute(f"SELECT count(*) FROM record WHERE {sql}", values).fetchone()
    sql, values = where_sql.compiled(where, LAYOUT, where_sql.VALID_DOC)
    assert connection.execute(f"SELECT count(*) FROM record WHERE {sql}", values).fetchone() == (number,)
    return bool(number)


@given(record=records(), where=CLAUSES)
def test_sql_finds_what_the_evaluator_matches(
    database: sqlite3.Connection, record: dict[str, Any], where: Where
) -> None:
    assert found(database, record, where) == matches(where, record)


def test_one_comparison_of_each_kind_agrees_on_each_kind_of_value(database: sqlite3.Connection) -> None:
    values: list[Any] = [
        "a",
        "5",
        "2026-11-01T00:00:00Z",
        5,
        5.0,
        True,
        False,
        None,
        [],
        [None],
        ["a", 5],
        {},
        {"x": 1},
    ]
    literals: list[Any] = ["a", "5", "2026-11-01", 5, 4.5, True, False, None]
    operators: list[Any] = ["=", "!=", "<", "<=", ">", ">=", "prefix"]
    base = {"id": "i", "type": "t", "profile": None, "metadata": {"time": {"insert": min(TIMES)}}}
    for value in values:
        record = {**base, "traits": {"x": value}}
        for field in ("traits.x", "traits.none"):
            assert found(database, record, Exists(field)) == matches(Exists(field), record), (field, value)
            for operator in operators:
                for literal in literals:
                    where = Compare(field, operator, literal)
                    assert found(database, record, where) == matches(where, record), (value, where)


# --- the text ---


def spelled(where: Where) -> str:
    """A text for a clause, fully bracketed and quoted."""
    match where:
        case And(terms):
            return "(" + " AND ".join(map(spelled, terms)) + ")"
        case Or(terms):
            return "(" + " OR ".join(map(spelled, terms)) + ")"
        case Not(term):
            return f"NOT ({spelled(term)})"
        case Exists(field):
            return f"{field} EXISTS"
        case Compare(field, "prefix", value):
            return f"{field}: {quoted(str(value))}*"
        case Compare(field, op, value):
            return f"{field} {op} {quoted(value) if isinstance(value, str) else value}"


def quoted(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


TEXT_COMPARES = st.builds(Compare, FIELDS, st.sampled_from(["=", "<", "<=", ">", ">=", "prefix"]), st.text(max_size=8))
NUMBER_COMPARES = st.builds(Compare, FIELDS, st.sampled_from(["<", "<=", ">", ">="]), st.integers(-(2**63), 2**63 - 1))
SPELLABLE: st.SearchStrategy[Where] = st.recursive(
    st.one_of(TEXT_COMPARES, NUMBER_COMPARES, st.builds(Exists, FIELDS)),
    lambda terms: st.one_of(
        st.builds(Not, terms),
        st.builds(And, st.lists(terms, min_size=2, max_size=3).map(tuple)),
        st.builds(Or, st.lists(terms, min_size=2, max_size=3).map(tuple)),
    ),
    max_leaves=5,
)


def dated(where: Where) -> Where:
    """What the parser makes of dates: their normal form, where they are ordered."""
    match where:
        case And(terms):
            return And(tuple(map(dated, terms)))
        case Or(terms):
            return Or(tuple(map(dated, terms)))
        case Not(term):
            return Not(dated(term))
        case Compare(field, op, str() as value) if op not in ("=", "prefix"):
            return Compare(field, op, dates.normal(value) or value)
    return where


@given(where=SPELLABLE)
def test_a_spelled_clause_parses_back_to_itself(where: Where) -> None:
    assert parse(spelled(where)) == dated(where)


ALPHABET = st.sampled_from(
    [*"ab.*:=!<>()[],\"'\\ @-5&|", " AND ", " OR ", "NOT ", " IN ", " EXISTS", "2026-11-01", "null"]
)


@given(text=st.one_of(st.text(max_size=40), st.lists(ALPHABET, max_size=20).map("".join)))
def test_any_text_is_a_clause_or_an_error_with_a_place(database: sqlite3.Connection, text: str) -> None:
    try:
        where = parse(text)
    except BadInput as error:
        assert isinstance(error.detail, dict)
        assert 1 <= error.detail["position"] <= len(text) + 1
        return
    if where is not None:
        matches(where, {})
        sql, values = where_sql.compiled(where, LAYOUT)
        database.execute(f"SELECT count(*) FROM record WHERE {sql}", values).fetchone()


@given(text=DATES)
def test_a_normal_date_is_its_own_normal_form_and_keeps_its_instant(text: str) -> None:
    normal = dates.normal(text)
    assert normal is not None
    assert dates.normal(normal) == normal
    assert dates.comparable(normal) == dates.comparable(text)


INSTANTS = st.datetimes(datetime(1970, 1, 2), datetime(2200, 1, 1), timezones=st.just(UTC))
SPELLINGS = st.sampled_from(
    [
        lambda at: at.isoformat(),
        lambda at: at.isoformat(sep=" ", timespec="microseconds"),
        lambda at: at.replace(tzinfo=None).isoformat() + "Z",
        lambda at: at.replace(tzinfo=None).isoformat(sep=" "),
    ]
)


@given(one=INSTANTS, two=INSTANTS, spell_one=SPELLINGS, spell_two=SPELLINGS)
def test_dates_compare_as_text_in_the_order_of_time(
    one: datetime, two: datetime, spell_one: Callable[[datetime], str], spell_two: Callable[[datetime], str]
) -> None:
    first, second = dates.comparable(spell_one(one)), dates.comparable(spell_two(two))
    assert (first < second, first == second) == (one < two, one == two)


@given(at=INSTANTS, hours=st.integers(-12, 14))
def test_a_date_with_an_offset_is_brought_to_utc(at: datetime, hours: int) -> None:
    local = at.astimezone(timezone(timedelta(hours=hours)))
    normal = dates.normal(local.isoformat())
    assert normal is not None
    assert dates.comparable(normal) == dates.comparable(at.isoformat())
    assert dates.floor_ms(normal) == int(at.timestamp()) * 1000 + at.microsecond // 1000
