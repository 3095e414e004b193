"""What is due for which partition. Pure.

Age counts from a partition's end, so that its youngest record is at least as old. Profiles are never dropped: a
partition is one of birth, and somebody who first came years ago may be here today.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Literal, cast

from msgspec import Struct

from tracardi_lite import partitioning
from tracardi_lite.ports.store import KINDS, Kind, PartitionInfo, Tier
from tracardi_lite.settings import Settings

LOOK_AHEAD_MS = 2 * 86_400_000
"""How long before its first record a partition is made: a pass or two may fail."""


class Step(Struct, frozen=True):
    act: Literal["create", "move", "drop"]
    kind: Kind
    name: str
    tier: Tier = "hot"
    """Of a move: where to."""


def due(settings: Settings, partitions: Iterable[PartitionInfo], now_ms: int) -> list[Step]:
    """In the order in which they are best done: room for new records first, then from the oldest on."""
    known = [(cast(Kind, info.kind), info.name) for info in partitions if partitioning.is_name(info.name)]
    known.sort(key=lambda each: (partitioning.starts_ms(each[1]), each))
    steps = list(_missing(settings, set(known), now_ms))
    for kind, name in known:
        age_s = (now_ms - _end_ms(name)) / 1000
        if 0 < _keep_s(settings, kind) <= age_s:
            steps.append(Step("drop", kind, name))
        elif 0 < settings.retention_cold_after <= age_s:
            steps.append(Step("move", kind, name, "cold"))
        elif 0 < settings.retention_warm_after <= age_s:
            steps.append(Step("move", kind, name, "warm"))
    return steps


def _missing(settings: Settings, known: set[tuple[Kind, str]], now_ms: int) -> Iterator[Step]:
    for kind in KINDS:
        now = partitioning.partition_of(getattr(settings, f"{kind}_partitioning"), now_ms)
        wanted = [now]
        if _end_ms(now) - now_ms <= LOOK_AHEAD_MS:
            wanted.append(partitioning.following(now))
        yield from (Step("create", kind, name) for name in wanted if (kind, name) not in known)


def _end_ms(name: str) -> int:
    return partitioning.starts_ms(partitioning.following(name))


def _keep_s(settings: Settings, kind: Kind) -> int:
    """How long after its end a partition is kept; 0: for ever."""
    return {"event": settings.retention_event, "session": settings.retention_session}.get(kind, 0)
