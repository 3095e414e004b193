"""A where-text cut into tokens, each with its place in the text. The grammar is ``tracardi_lite.query.parse``'s."""

from __future__ import annotations

import re
from typing import Literal

from msgspec import Struct

from tracardi_lite.errors import BadInput

TokenKind = Literal[
    "word", "text", "prefix", "operator", "and", "or", "not", "in", "exists", "open", "close", "comma", "end"
]

_KEYWORDS: dict[str, TokenKind] = {"and": "and", "or": "or", "not": "not", "in": "in", "exists": "exists"}
_SIGNS: dict[str, TokenKind] = {
    "&&": "and",
    "||": "or",
    "!": "not",
    "(": "open",
    "[": "open",
    ")": "close",
    "]": "close",
    ",": "comma",
}
_TOKEN = re.compile(
    r"""
      (?P<space>\s+)
    | (?P<text>"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')(?P<star>\*)?
    | (?P<operator>!=|<=|>=|<|>|=|:)
    | (?P<sign>&&|\|\||[!()\[\],])
    # A time of day is the one value with colons that need not be quoted.
    | (?P<date>\d{4}-\d{2}-\d{2}T\d{2}:\d{2}[\d:.]*(?:Z|[+-]\d{2}:?\d{2})?)
    | (?P<word>[^\s()\[\]:=!<>,"'&|]+)
    """,
    re.VERBOSE | re.DOTALL,
)


class Token(Struct, frozen=True):
    kind: TokenKind
    text: str
    at: int
    """Characters before it."""


def fail(at: int, expected: str, found: str) -> BadInput:
    """The error for a text that stops making sense at ``at`` (from 0; people are told from 1).

    ``found`` says what kind of thing stands there, not the thing: an answer repeats nothing of a request.
    """
    return BadInput(
        422,
        {
            "message": f"where: expected {expected} at position {at + 1}, found {found}",
            "position": at + 1,
            "expected": expected,
        },
    )


def tokens(text: str) -> list[Token]:
    """All tokens, an ``end`` last. ``BadInput`` 422 for what is none."""
    found: list[Token] = []
    at = 0
    while at < len(text):
        match = _TOKEN.match(text, at)
        if match is None:
            if text[at] in "\"'":
                raise fail(len(text), "a closing quote", "the end")
            raise fail(at, "a field, a value or an operator", "a character that is none")
        if match["space"] is None:
            found.append(_token(match, at))
        at = match.end()
    found.append(Token("end", "", len(text)))
    return found


def _token(match: re.Match[str], at: int) -> Token:
    if match["text"] is not None:
        unescaped = re.sub(r"\\(.)", r"\1", match["text"][1:-1], flags=re.DOTALL)
        return Token("prefix" if match["star"] else "text", unescaped, at)
    if match["operator"] is not None:
        return Token("operator", match["operator"], at)
    if match["sign"] is not None:
        return Token(_SIGNS[match["sign"]], match["sign"], at)
    word = match["date"] or match["word"]
    return Token(_KEYWORDS.get(word.lower(), "word"), word, at)
