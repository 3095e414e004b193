"""Two profile records become one: what is kept of each field, and where it came from. Pure.

Counters add, lists unite, objects merge deeply, and of scalars the latest change wins, unless a strategy says
otherwise. A field that one side has removed after the other's last change stays removed: what a customer took back is
not brought back by a merge. Nothing else that either side has is lost.
"""

from __future__ import annotations

from typing import Any

from msgspec import Struct, field

from tracardi_lite.pipeline.merging import marks
from tracardi_lite.pipeline.merging.strategies import Side, Strategies, last_update, total, united
from tracardi_lite.pipeline.paths import MISSING, Path, join
from tracardi_lite.pipeline.profile import IDS_MAX, refresh_derived
from tracardi_lite.pipeline.values import iso, parse_time
from tracardi_lite.pipeline.watermark import unite_applied

Profile = dict[str, Any]

_OWN = frozenset({"id", "ids", "metadata"})
_GEO = ("data", "devices", "last", "geo")


class _Times(Struct):
    """When each field of a profile last changed, in seconds since the epoch, and the profile itself, in ms."""

    fields: dict[str, Any]
    updated_ms: int
    inserted_ms: int

    def at(self, path: Path) -> float | None:
        """Of the field, or of the nearest object around it that was changed as a whole."""
        for length in range(len(path), 0, -1):
            if (found := self.exact(join(path[:length]))) is not None:
                return found
        return None

    def latest_below(self, path: Path) -> float | None:
        """Of the field and everything in it."""
        name = join(path)
        found = [self.exact(key) for key in self.fields if key == name or key.startswith(f"{name}.")]
        return max((at for at in found if at is not None), default=None)

    def exact(self, name: str) -> float | None:
        """Of the field by its dotted name, whether it is there or was removed."""
        entry = self.fields.get(name)
        at = entry[0] if type(entry) is list and entry else None
        return float(at) if type(at) is float or type(at) is int else None


class _Merge(Struct):
    ours: _Times
    theirs: _Times
    strategies: Strategies
    taken: list[str] = field(default_factory=list)
    """Fields whose value is now the loser's."""

    def objects(self, path: Path, ours: dict[str, Any], theirs: dict[str, Any]) -> dict[str, Any]:
        made: dict[str, Any] = {}
        for key in dict.fromkeys((*ours, *theirs)):
            value = self.value((*path, key), ours.get(key, MISSING), theirs.get(key, MISSING))
            if value is not MISSING:
                made[key] = value
        return made

    def value(self, path: Path, ours: Any, theirs: Any) -> Any:
        if _is_nothing(theirs):
            return self._lone(path, ours, self.ours, self.theirs)
        if _is_nothing(ours):
            value = self._lone(path, theirs, self.theirs, self.ours)
            if value is MISSING:
                return ours
            self.taken.append(join(path))
            return value
        if type(ours) is dict and type(theirs) is dict and not _is_whole(path):
            return self.objects(path, ours, theirs)
        strategy = self.strategies.of(path)
        if strategy is None or (strategy is total and type(ours) is list):
            strategy = united if type(ours) is list and type(theirs) is list else last_update
        value = strategy(self._side(self.ours, path, ours), self._side(self.theirs, path, theirs))
        if value != ours:
            self.taken.append(join(path))
        return value

    def _lone(self, path: Path, value: Any, has: _Times, lacks: _Times) -> Any:
        """What only one side has, unless the other one has removed it since."""
        if _is_nothing(value):
            return value
        removed = lacks.exact(join(path))
        if removed is not None:
            changed = has.latest_below(path) or has.at(path) if type(value) is dict else has.at(path)
            if changed is not None and changed < removed:
                return MISSING
        if type(value) is dict and not _is_whole(path):
            kept = {key: self._lone((*path, key), inner, has, lacks) for key, inner in value.items()}
            return {key: inner for key, inner in kept.items() if inner is not MISSING}
        return value

    def _side(self, times: _Times, path: Path, value: Any) -> Side:
        return Side(value, times.at(path), times.updated_ms, times.inserted_ms)


def fold(survivor: Profile, loser: Profile, partition: str, strategies: Strategies) -> Profile:
    """The survivor's new record, with everything of the frozen ``loser``, whose record is in ``partition``.

    The records passed in are not changed, but the result shares values with them: encode it, or forget them.
    """
    merging = _Merge(_times(survivor), _times(loser), strategies)
    made: Profile = {
        "id": survivor["id"],
        **merging.objects(
            (),
            {key: value for key, value in survivor.items() if key not in _OWN},
            {key: value for key, value in loser.items() if key not in _OWN},
        ),
    }
    made.setdefault("primary_id", None)
    made["ids"] = _ids(survivor, loser)
    made["metadata"] = _metadata(survivor, loser, merging)
    _note(made, survivor, loser, partition, merging.taken)
    refresh_derived(made)
    return made


def set_traits_aside(loser: Profile) -> Profile:
    """The loser with its free fields where no store minds their types: for a survivor's partition that has learnt
    other types for them. They can be read there, and nothing else is lost."""
    free = {key: loser[key] for key in ("traits", "misc", "aux") if loser.get(key)}
    custom = loser.get("data", {}).get("metrics", {}).get("custom")
    data = loser["data"]
    if custom:
        free["custom"] = custom
        data = {**data, "metrics": {key: value for key, value in data["metrics"].items() if key != "custom"}}
    aside = {**loser.get("trash", {}), f"merged-{loser['id']}": free}
    return {**loser, "traits": {}, "misc": {}, "aux": {}, "data": data, "trash": aside}


def _ids(survivor: Profile, loser: Profile) -> list[str]:
    """Both ids come first, since events are looked for under them; what is too much falls off the end."""
    known = [survivor["id"], *survivor.get("ids", ()), *loser.get("ids", ())]
    known.insert(1, loser["id"])
    return list(dict.fromkeys(known))[:IDS_MAX]


def _metadata(survivor: Profile, loser: Profile, merging: _Merge) -> dict[str, Any]:
    ours, theirs = survivor["metadata"], loser["metadata"]
    return {
        **{key: value for key, value in theirs.items() if key not in ("status", "system")},
        **ours,
        "time": _time(ours["time"], theirs["time"]),
        "aux": merging.objects(("metadata", "aux"), ours.get("aux") or {}, theirs.get("aux") or {}),
        "fields": _fields(ours.get("fields") or {}, theirs.get("fields") or {}),
        "system": _system(ours.get("system") or {}, theirs.get("system") or {}),
    }


def _time(ours: dict[str, Any], theirs: dict[str, Any]) -> dict[str, Any]:
    known, other = ours.get("visit") or {}, theirs.get("visit") or {}
    begun = sorted(filter(None, (visit.get(key) for visit in (known, other) for key in ("last", "current"))))
    later = other if (other.get("current") or "") > (known.get("current") or "") else known
    return {
        **theirs,
        **ours,
        "insert": _earliest(ours.get("insert"), theirs.get("insert")),
        "create": _earliest(ours.get("create"), theirs.get("create")),
        "update": max(filter(None, (ours.get("update"), theirs.get("update"))), default=None),
        "visit": {
            **other,
            **known,
            "last": begun[-2] if len(begun) > 1 else None,
            "current": begun[-1] if begun else None,
            "count": (known.get("count") or 0) + (other.get("count") or 0),
            "tz": later.get("tz") or known.get("tz") or other.get("tz"),
        },
    }


def _earliest(ours: Any, theirs: Any) -> Any:
    # ISO times in UTC compare as text.
    return min(filter(None, (ours, theirs)), default=None)


def _fields(ours: dict[str, Any], theirs: dict[str, Any]) -> dict[str, Any]:
    times = _Times(ours, 0, 0)
    others = _Times(theirs, 0, 0)
    made = dict(ours)
    for name, entry in theirs.items():
        at, other = times.exact(name), others.exact(name)
        if at is None or (other is not None and other > at):
            made[name] = entry
    return made


def _system(ours: dict[str, Any], theirs: dict[str, Any]) -> dict[str, Any]:
    integrations = {**(theirs.get("integrations") or {}), **(ours.get("integrations") or {})}
    aux, other = ours.get("aux") or {}, theirs.get("aux") or {}
    return {**theirs, **ours, "integrations": integrations, "aux": {**_without_mark(other), **aux}}


def _without_mark(aux: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in aux.items() if key != "merge"}


def _note(made: Profile, survivor: Profile, loser: Profile, partition: str, taken: list[str]) -> None:
    """The watermarks of both, the note that makes a second fold a no-op, and the tale of the merge."""
    aux = marks.own_aux(made)
    aux["applied"] = {key: dict(streams) for key, streams in marks.aux_of(survivor).get("applied", {}).items()}
    unite_applied(made, {"metadata": {"system": {"aux": {"applied": marks.aux_of(loser).get("applied", {})}}}})
    aux["folded"] = {**marks.folded(survivor), **marks.folded(loser), loser["id"]: partition}
    into = marks.into(loser)
    assert into is not None, "only frozen records are folded"
    counters = loser.get("stats", {}).get("counters", {})
    entry = {
        "id": loser["id"],
        "into": survivor["id"],
        "at": iso(into.at_ms),
        "why": list(into.why),
        "events": counters.get("events", 0),
        "fields": taken[: marks.FIELDS_TOLD_MAX],
    }
    told = sorted((*marks.history(survivor), *marks.history(loser), entry), key=lambda each: str(each.get("at", "")))
    aux["history"] = told[-marks.HISTORY_MAX :]


def _times(profile: Profile) -> _Times:
    metadata = profile["metadata"]
    fields = metadata.get("fields")
    time = metadata["time"]
    return _Times(
        fields if type(fields) is dict else {}, parse_time(time.get("update")) or 0, parse_time(time.get("insert")) or 0
    )


def _is_nothing(value: Any) -> bool:
    return value is MISSING or value is None or value == ""


def _is_whole(path: Path) -> bool:
    """Objects that mean something only as a whole: a place, a consent."""
    return path == _GEO or (len(path) == 2 and path[0] == "consents")
