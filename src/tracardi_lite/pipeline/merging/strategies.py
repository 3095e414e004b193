"""How one field of two profiles becomes one: the strategies that settings name (protocol §5), by field.

A strategy is a function of two sides, the survivor's and the loser's, both of which have a value. It takes the better
side, or makes a third value; what does not fit it (a text under SUM) falls back to LAST_UPDATE. All are total.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from msgspec import Struct

from tracardi_lite.pipeline.paths import Path, split
from tracardi_lite.pipeline.values import LIST_MAX, number


class Side(Struct, frozen=True):
    """One profile's say on a field."""

    value: Any
    at: float | None
    """When the field last changed, in seconds since the epoch (``metadata.fields``); None: not known."""
    updated_ms: int
    """When the profile was last updated, ms."""
    inserted_ms: int


Strategy = Callable[[Side, Side], Any]
"""(the survivor's side, the loser's) → the value."""


def last_update(ours: Side, theirs: Side) -> Any:
    """By the latest change of the field. A change whose time is known is later than one whose time is not; where
    neither is, the profile that was updated last."""
    return theirs.value if _is_later(theirs, ours) else ours.value


def first_update(ours: Side, theirs: Side) -> Any:
    return ours.value if _is_later(theirs, ours) else theirs.value if _is_later(ours, theirs) else ours.value


def last_profile_update_time(ours: Side, theirs: Side) -> Any:
    return theirs.value if theirs.updated_ms > ours.updated_ms else ours.value


def first_profile_insert_time(ours: Side, theirs: Side) -> Any:
    return theirs.value if theirs.inserted_ms < ours.inserted_ms else ours.value


def least(ours: Side, theirs: Side) -> Any:
    return min(ours.value, theirs.value) if _compare(ours, theirs) else last_update(ours, theirs)


def most(ours: Side, theirs: Side) -> Any:
    return max(ours.value, theirs.value) if _compare(ours, theirs) else last_update(ours, theirs)


def total(ours: Side, theirs: Side) -> Any:
    if not (_is_number(ours.value) and _is_number(theirs.value)):
        return last_update(ours, theirs)
    # Through ``number``: a sum beyond what JSON readers hold exactly becomes a float, as everywhere.
    return number(ours.value + theirs.value)


def both(ours: Side, theirs: Side) -> Any:
    return ours.value and theirs.value if _are_truths(ours, theirs) else last_update(ours, theirs)


def either(ours: Side, theirs: Side) -> Any:
    return ours.value or theirs.value if _are_truths(ours, theirs) else last_update(ours, theirs)


def united(ours: Side, theirs: Side) -> Any:
    """A list of what either has, each once, the survivor's first; at most ``LIST_MAX``."""
    first = ours.value if type(ours.value) is list else [ours.value]
    second = theirs.value if type(theirs.value) is list else [theirs.value]
    if len(first) + len(second) <= _SCAN_MAX or not all(type(item) is str for item in (*first, *second)):
        return (first + [item for item in second if item not in first])[:LIST_MAX]
    return list(dict.fromkeys((*first, *second)))[:LIST_MAX]


STRATEGIES: dict[str, Strategy] = {
    "LAST_UPDATE": last_update,
    "FIRST_UPDATE": first_update,
    "LAST_PROFILE_UPDATE_TIME": last_profile_update_time,
    "FIRST_PROFILE_INSERT_TIME": first_profile_insert_time,
    "MIN": least,
    "MAX": most,
    "SUM": total,
    "AND": both,
    "OR": either,
    "MERGE_LISTS_DISTINCT": united,
}

DEFAULTS: dict[str, str] = {
    "interests": "SUM",
    "stats": "SUM",
    "active": "OR",
    "data.metrics": "SUM",
    "data.metrics.ltcop": "LAST_UPDATE",
    "data.metrics.next": "LAST_UPDATE",
}
"""By field, for all below it; everything else: lists are united, and of scalars the latest change wins."""

# Below this two lists are compared item by item, which is quicker than hashing them.
_SCAN_MAX = 32


class Strategies:
    """The strategy of each field: the longest path that is given for it decides."""

    def __init__(self, given: dict[str, str] | None = None) -> None:
        self._by_path: dict[Path, Strategy] = {
            split(path): STRATEGIES[name] for path, name in {**DEFAULTS, **(given or {})}.items()
        }
        self._depths = sorted({len(path) for path in self._by_path}, reverse=True)

    def of(self, path: Path) -> Strategy | None:
        """None: by the kind of the values."""
        for depth in self._depths:
            found = self._by_path.get(path[:depth]) if depth <= len(path) else None
            if found is not None:
                return found
        return None


def parse_strategies(text: str) -> dict[str, str]:
    """``data.pii=FIRST_UPDATE, traits.score=MAX`` as a mapping. Raises ValueError naming the part that is wrong."""
    given: dict[str, str] = {}
    for part in filter(None, (part.strip() for part in text.split(","))):
        path, equals, name = (piece.strip() for piece in part.partition("="))
        if not equals or name.upper() not in STRATEGIES:
            raise ValueError(f"expected field=STRATEGY with one of {', '.join(STRATEGIES)}; got {part!r}")
        split(path)
        if path.split(".")[0] in ("id", "ids", "metadata", "stats"):
            raise ValueError(f"how {path!r} is merged can't be chosen")
        given[path] = name.upper()
    return given


def _is_later(side: Side, than: Side) -> bool:
    if side.at is not None or than.at is not None:
        return (float("-inf") if side.at is None else side.at) > (float("-inf") if than.at is None else than.at)
    return side.updated_ms > than.updated_ms


def _is_number(value: object) -> bool:
    return type(value) is int or type(value) is float


def _compare(ours: Side, theirs: Side) -> bool:
    """Whether the two values can be put in order."""
    return (_is_number(ours.value) and _is_number(theirs.value)) or (
        type(ours.value) is str and type(theirs.value) is str
    )


def _are_truths(ours: Side, theirs: Side) -> bool:
    return type(ours.value) is bool and type(theirs.value) is bool
