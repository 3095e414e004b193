"""What a profile's record says of its merging: ``metadata.system.aux.merge``, ``folded`` and ``history``.

A loser is first *frozen*: its record names the survivor, and from then on is changed by nothing but the end of its
merging. Its content is then folded into the survivor's record, which notes the loser under ``folded`` in the same
write. At last the loser becomes a *stub*, which holds nothing but where it went, for ever: a late write of a worker
that was paused finds it, and fails its compare-and-set. The note is taken back when the loser is known to be a stub.

Bounds: ``HISTORY_MAX`` merges are told of, each with ``FIELDS_TOLD_MAX`` fields; the notes under ``folded`` are as many
as merges are under way.
"""

from __future__ import annotations

from typing import Any

from msgspec import Struct

from tracardi_lite.pipeline.profile import new_profile
from tracardi_lite.pipeline.values import iso, parse_time

HISTORY_MAX = 50
FIELDS_TOLD_MAX = 50

MERGING = "merging"
MERGED = "merged"
MOVED = "moved"
"""``metadata.status``: a frozen record; a stub whose events are still under its id; one whose events have moved."""

Profile = dict[str, Any]


class Into(Struct, frozen=True):
    """Where a frozen record or a stub goes."""

    id: str
    partition: str
    stub: bool
    at_ms: int
    why: tuple[str, ...]


class Why(Struct, frozen=True):
    """What made two profiles one, for their history."""

    keys: tuple[str, ...] = ()
    """Fields whose values they share, ``pass``, or ``identification``."""
    at_ms: int = 0
    """When they were merged."""
    seen_ms: int = 0
    """When the message was received that brought it about: the birth of a profile that has no record yet."""


def aux_of(profile: Profile) -> dict[str, Any]:
    """``metadata.system.aux``; {} where a record from elsewhere has none."""
    system = profile["metadata"].get("system")
    aux = system.get("aux") if type(system) is dict else None
    return aux if type(aux) is dict else {}


def own_aux(profile: Profile) -> dict[str, Any]:
    """The same, made if absent: to be written to."""
    system = profile["metadata"].setdefault("system", {})
    aux: dict[str, Any] = system.setdefault("aux", {})
    return aux


def is_marked(profile: Profile) -> bool:
    """Whether there is anything to see to before the record is worked on."""
    aux = aux_of(profile)
    return "merge" in aux or "folded" in aux


def into(profile: Profile) -> Into | None:
    """Where the record goes; None for a living one."""
    mark = aux_of(profile).get("merge")
    if type(mark) is not dict:
        return None
    return Into(mark["into"], mark["partition"], mark["stub"], parse_time(mark["at"]) or 0, tuple(mark.get("why", ())))


def freeze(profile: Profile, survivor: str, partition: str, why: Why) -> Profile:
    """A copy that names its survivor."""
    frozen = {**profile, "metadata": {**profile["metadata"]}}
    metadata = frozen["metadata"]
    metadata["status"] = MERGING
    metadata["system"] = {
        **metadata.get("system", {}),
        "aux": {**aux_of(profile), "merge": _mark(survivor, partition, why)},
    }
    return frozen


def stub(id: str, survivor: str, partition: str, why: Why, times: dict[str, Any] | None = None) -> Profile:
    """What is left of a loser. ``times``: its ``metadata.time``, if it had a record."""
    left = new_profile(id, why.at_ms)
    metadata = left["metadata"]
    if times is not None:
        metadata["time"].update({key: times[key] for key in ("insert", "create", "update") if times.get(key)})
    metadata["status"] = MERGED
    metadata["system"]["aux"] = {"merge": {**_mark(survivor, partition, why), "stub": True}}
    left["active"] = False
    return left


def _mark(survivor: str, partition: str, why: Why) -> dict[str, Any]:
    return {"into": survivor, "partition": partition, "stub": False, "at": iso(why.at_ms), "why": list(why.keys)}


def folded(profile: Profile) -> dict[str, str]:
    """The losers whose content is in this record and who may not be stubs yet: id → partition."""
    found = aux_of(profile).get("folded")
    return found if type(found) is dict else {}


def history(profile: Profile) -> list[dict[str, Any]]:
    """The merges that made the profile, oldest first: ``id``, ``at``, ``why``, ``into``, ``events``, ``fields``."""
    told = aux_of(profile).get("history")
    return [entry for entry in told if type(entry) is dict] if type(told) is list else []


def age(profile: Profile | None, id: str) -> tuple[int, str]:
    """Smaller is older. A profile without a record is younger than any with one; ties go by id.

    It never changes in a record's life but for its making: a survivor is the older one, so that its time of insertion
    is the earliest of both already. That is what keeps merges from going in circles.
    """
    if profile is None:
        return _NEVER_MS, id
    at_ms = parse_time(profile["metadata"]["time"].get("insert"))
    return _NEVER_MS - 1 if at_ms is None else at_ms, id


_NEVER_MS = 1 << 62
