"""The where-language's grammar: what a text means, and where it stops making sense."""

from __future__ import annotations

from typing import Any

import pytest

from tracardi_lite.errors import BadInput
from tracardi_lite.query import And, Compare, Exists, Not, Or, Where
from tracardi_lite.query.parse import DEPTH_MAX, TERMS_MAX, TEXT_MAX, parse


def eq(field: str, value: Any) -> Compare:
    return Compare(field, "=", value)


@pytest.mark.parametrize(
    ("text", "where"),
    [
        ("", None),
        ("  \n ", None),
        ('profile.id: "abc"', eq("profile.id", "abc")),
        ("profile.id:abc", eq("profile.id", "abc")),
        ("type = page-view", eq("type", "page-view")),
        (r'name: "a \"b\" \\ c"', eq("name", 'a "b" \\ c')),
        ("type != page-view", Not(eq("type", "page-view"))),
        ("n < 5", Compare("n", "<", 5)),
        ("n <= -5.5", Compare("n", "<=", -5.5)),
        ("n > 1e3", Compare("n", ">", 1000.0)),
        ('n >= "5"', Compare("n", ">=", "5")),
        ("n: 5", Or((eq("n", 5), eq("n", "5")))),
        ("n: 007", eq("n", "007")),
        ("n: 99999999999999999999", Or((eq("n", 1e20), eq("n", "99999999999999999999")))),
        ("ok: true", Or((eq("ok", True), eq("ok", "true")))),
        ('ok: "true"', eq("ok", "true")),
        ("x: null", Not(Exists("x"))),
        ("x != NULL", Not(Not(Exists("x")))),
        ("x: *", Exists("x")),
        ("x exists", Exists("x")),
        ("x NOT EXISTS", Not(Exists("x"))),
        ("type: page*", Compare("type", "prefix", "page")),
        ('type: "page view"*', Compare("type", "prefix", "page view")),
        ('type: "page*"', eq("type", "page*")),
        ("type: (a OR b)", Or((eq("type", "a"), eq("type", "b")))),
        ("tags: (a AND NOT b)", And((eq("tags", "a"), Not(eq("tags", "b"))))),
        ("type IN [a, 'b c']", Or((eq("type", "a"), eq("type", "b c")))),
        ("type NOT IN (a)", Not(eq("type", "a"))),
        ("a:x AND b:y OR c:z", Or((And((eq("a", "x"), eq("b", "y"))), eq("c", "z")))),
        ("a:x && (b:y || c:z)", And((eq("a", "x"), Or((eq("b", "y"), eq("c", "z")))))),
        ("NOT a:x and !b:y", And((Not(eq("a", "x")), Not(eq("b", "y"))))),
        ("event@properties.x: y", eq("properties.x", "y")),
        ("profile@traits.x: y", eq("traits.x", "y")),
        ("time >= 2026-11-01", Compare("time", ">=", "2026-11-01")),
        ("time < 2026-11-01T10:00:00Z", Compare("time", "<", "2026-11-01 10:00:00")),
        ("time < '2026-11-01 10:00:00.5+02:00'", Compare("time", "<", "2026-11-01 08:00:00.5")),
        ("traits.größe: ü", eq("traits.größe", "ü")),
    ],
)
def test_a_text_means_its_clause(text: str, where: Where | None) -> None:
    assert parse(text) == where


@pytest.mark.parametrize(
    ("text", "position", "expected"),
    [
        ("type", 5, "one of"),
        ("type:", 6, "a value"),
        ("type: a b", 9, "AND, OR or the end"),
        ("type: a AND", 12, "a field's name"),
        ("(type: a", 9, "closing bracket"),
        ("type: a)", 8, "AND, OR or the end"),
        ("type: (a", 9, "closing bracket"),
        ("type IN a", 9, "a list"),
        ("type IN [a b]", 12, "a comma"),
        ("type NOT a", 10, "IN or EXISTS"),
        ('type: "a', 9, "closing quote"),
        ("type: a*b", 7, "* at the end"),
        ("n < a*", 5, "a whole value"),
        ("n < true", 5, "a number"),
        ("url: http://x", 10, "AND, OR or the end"),
        ('"type": a', 1, "a field's name"),
        ("a..b: c", 1, "a field's name"),
        ("a\\b: c", 1, "a field's name"),
        ("a & b", 3, "a field, a value or an operator"),
    ],
)
def test_an_error_says_where_and_what_was_expected(text: str, position: int, expected: str) -> None:
    with pytest.raises(BadInput) as caught:
        parse(text)
    assert caught.value.status == 422
    assert isinstance(detail := caught.value.detail, dict)
    assert (detail["position"], expected in detail["expected"]) == (position, True), detail
    assert detail["expected"] in detail["message"]


def test_length_depth_and_terms_are_bounded() -> None:
    parse("(" * DEPTH_MAX + "a:b" + ")" * DEPTH_MAX)
    parse(f"a IN [{','.join('x' * TERMS_MAX)}]")
    for text in (
        "(" * (DEPTH_MAX + 1) + "a:b" + ")" * (DEPTH_MAX + 1),
        "NOT " * (DEPTH_MAX + 1) + "a:b",
        "(" * 4000,
        f"a IN [{','.join('x' * (TERMS_MAX + 1))}]",
        "a:" + "b" * TEXT_MAX,
    ):
        with pytest.raises(BadInput):
            parse(text)
