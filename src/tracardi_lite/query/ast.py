"""What a where-text means, for stores to compile. Field names are dot paths into the record."""

from __future__ import annotations

from typing import Literal, TypeAlias

from msgspec import Struct

Value: TypeAlias = str | int | float | bool | None
Operator = Literal["=", "!=", "<", "<=", ">", ">=", "prefix"]


class Compare(Struct, frozen=True, tag=True):
    """``field op value``; on a list field it holds if it holds for any element. ``prefix`` comes from ``"abc*"``."""

    field: str
    op: Operator
    value: Value


class Exists(Struct, frozen=True, tag=True):
    """The field is there and not null."""

    field: str


class Not(Struct, frozen=True, tag=True):
    term: Where


class And(Struct, frozen=True, tag=True):
    terms: tuple[Where, ...]


class Or(Struct, frozen=True, tag=True):
    terms: tuple[Where, ...]


Where: TypeAlias = Compare | Exists | Not | And | Or
