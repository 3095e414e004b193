"""From a where-text to its meaning. The language, for people: docs/where.md.

    any     = all { OR all }
    all     = one { AND one }
    one     = NOT one | "(" any ")" | field test
    test    = operator value | (":" | "=") "(" values ")" | [NOT] IN list | [NOT] EXISTS
    values  = the same three levels, of values instead of tests

Bounds: ``TEXT_MAX`` characters, ``DEPTH_MAX`` levels of brackets and NOTs, ``TERMS_MAX`` comparisons; each is far
above what a person writes, and keeps every store's own compiler (SQLite: expression depth 1000) within its limits.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import NoReturn

from tracardi_lite.errors import BadInput
from tracardi_lite.query import dates
from tracardi_lite.query.ast import And, Compare, Exists, Not, Operator, Or, Where
from tracardi_lite.query.tokens import Token, TokenKind, fail, tokens

TEXT_MAX = 4096
DEPTH_MAX = 32
TERMS_MAX = 200

_OPERATORS: dict[str, Operator] = {"<": "<", "<=": "<=", ">": ">", ">=": ">="}
# Quotes, backslashes and brackets can't be in a name, so a store may put it into its own path language.
_FIELD = re.compile(r"(?:(?P<root>event|profile|session)@)?(?P<path>[\w$/+@-]+(?:\.[\w$/+@-]+)*)")
_NUMBER = re.compile(r"-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?", re.ASCII)
_INT64 = 1 << 63
_FOUND: dict[TokenKind, str] = {
    "word": "a word",
    "text": "a quoted text",
    "prefix": "a quoted text",
    "operator": "an operator",
    "and": "AND",
    "or": "OR",
    "not": "NOT",
    "in": "IN",
    "exists": "EXISTS",
    "open": "an opening bracket",
    "close": "a closing bracket",
    "comma": "a comma",
    "end": "the end",
}


def parse(text: str, *, rooted: bool = False) -> Where | None:
    """The clause that a text means; None for an empty one. ``BadInput`` 422 says where, and what was expected.

    ``rooted``: the text is about an event and what belongs to it, so ``profile@a`` is its field ``profile.a``, and not
    a record's field ``a``.
    """
    if len(text) > TEXT_MAX:
        raise BadInput(422, {"message": f"where: at most {TEXT_MAX} characters, not {len(text)}"})
    parser = _Parser(tokens(text), rooted)
    if parser.sees("end"):
        return None
    where = parser.any(parser.test)
    if not parser.sees("end"):
        parser.expected("AND, OR or the end")
    return where


class _Parser:
    def __init__(self, tokens: list[Token], rooted: bool) -> None:
        self._tokens = tokens
        self._rooted = rooted
        self._next = 0
        self._depth = 0
        self._terms = 0

    def sees(self, *kinds: TokenKind) -> bool:
        return self._tokens[self._next].kind in kinds

    def expected(self, what: str) -> NoReturn:
        token = self._tokens[self._next]
        raise fail(token.at, what, _FOUND[token.kind])

    def _take(self) -> Token:
        token = self._tokens[self._next]
        self._next += 1
        return token

    def _took(self, kind: TokenKind) -> bool:
        if not self.sees(kind):
            return False
        self._next += 1
        return True

    # The three levels serve both tests and, in brackets after an operator, values.

    def any(self, leaf: Callable[[], Where]) -> Where:
        terms = [self._all(leaf)]
        while self._took("or"):
            terms.append(self._all(leaf))
        return terms[0] if len(terms) == 1 else Or(tuple(terms))

    def _all(self, leaf: Callable[[], Where]) -> Where:
        terms = [self._one(leaf)]
        while self._took("and"):
            terms.append(self._one(leaf))
        return terms[0] if len(terms) == 1 else And(tuple(terms))

    def _one(self, leaf: Callable[[], Where]) -> Where:
        if not self.sees("not", "open"):
            return leaf()
        self._depth += 1
        if self._depth > DEPTH_MAX:
            raise fail(self._tokens[self._next].at, f"at most {DEPTH_MAX} levels of brackets and NOTs", "one more")
        where: Where
        if self._took("not"):
            where = Not(self._one(leaf))
        else:
            self._take()
            where = self.any(leaf)
            if not self._took("close"):
                self.expected("AND, OR or a closing bracket")
        self._depth -= 1
        return where

    def test(self) -> Where:
        field = self._field()
        if self._took("not"):
            if not self.sees("in", "exists"):
                self.expected("IN or EXISTS")
            return Not(self._membership(field))
        if self.sees("in", "exists"):
            return self._membership(field)
        if not self.sees("operator"):
            self.expected("one of : = != < <= > >= IN EXISTS")
        sign = self._take().text
        if sign in _OPERATORS:
            return self._ordered(field, _OPERATORS[sign])
        if sign == "!=":
            return Not(self._equal(field))
        if self.sees("open"):
            return self._one(lambda: self._equal(field))
        return self._equal(field)

    def _field(self) -> str:
        if not self.sees("word"):
            self.expected("a field's name")
        token = self._take()
        match = _FIELD.fullmatch(token.text)
        if match is None:
            raise fail(token.at, "a field's name: words joined by dots", "other characters in it")
        if self._rooted and match["root"] in ("profile", "session"):
            return f"{match['root']}.{match['path']}"
        return match["path"]

    def _membership(self, field: str) -> Where:
        if self._took("exists"):
            return Exists(field)
        self._take()
        if not self._took("open"):
            self.expected("a list in brackets")
        terms = [self._equal(field)]
        while self._took("comma"):
            terms.append(self._equal(field))
        if not self._took("close"):
            self.expected("a comma or a closing bracket")
        return terms[0] if len(terms) == 1 else Or(tuple(terms))

    def _equal(self, field: str) -> Where:
        token = self._value()
        if token.kind == "text":
            return Compare(field, "=", token.text)
        if token.kind == "prefix":
            return Compare(field, "prefix", token.text)
        word = token.text
        if word.endswith("*"):
            return Compare(field, "prefix", word[:-1]) if len(word) > 1 else Exists(field)
        if word.lower() == "null":
            return Not(Exists(field))
        literal = {"true": True, "false": False}.get(word.lower(), _number(word))
        if literal is None:
            return Compare(field, "=", word)
        # Records hold what clients sent: 42 and "42" are both 42 to the person who types it.
        return Or((Compare(field, "=", literal), Compare(field, "=", word)))

    def _ordered(self, field: str, operator: Operator) -> Where:
        token = self._value()
        if token.kind == "prefix" or (token.kind == "word" and token.text.endswith("*")):
            raise fail(token.at, "a whole value after < and >", "a prefix")
        if token.kind == "word":
            if token.text.lower() in ("true", "false", "null"):
                raise fail(token.at, "a number, a date or a text after < and >", "a value without an order")
            number = _number(token.text)
            if number is not None:
                return Compare(field, operator, number)
        return Compare(field, operator, dates.normal(token.text) or token.text)

    def _value(self) -> Token:
        if not self.sees("word", "text", "prefix"):
            self.expected("a value")
        token = self._take()
        self._terms += 1
        if self._terms > TERMS_MAX:
            raise fail(token.at, f"at most {TERMS_MAX} comparisons", "one more")
        if token.kind == "word" and "*" in token.text[:-1]:
            raise fail(token.at, "* at the end of a value only", "one before it")
        return token


def _number(word: str) -> int | float | None:
    if not _NUMBER.fullmatch(word):
        return None
    try:
        whole = int(word)
    except ValueError:
        return float(word)
    return whole if -_INT64 <= whole < _INT64 else float(word)
