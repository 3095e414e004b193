"""Obeys event types: derives an event's typed parts from its properties, then changes the profile accordingly.

Pure and total: whatever the properties hold, nothing raises. A value that does not fit its field is left out and said
in ``warnings``. An event type without ``copy`` and ``profile`` costs nothing here: see ``EventType.needs_properties``.

Bounds: a list in a profile holds at most ``LIST_MAX`` items, and an object whose keys come from events (interests) at
most ``KEYS_MAX``, so that no client can grow a profile without end.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tracardi_lite.pipeline.event_types import EventType, Op
from tracardi_lite.pipeline.paths import MISSING, Path, get, join, put, remove
from tracardi_lite.pipeline.values import LIST_MAX, number, short_text

KEYS_MAX = 1000


def map_event(event_type: EventType, properties: object, warnings: list[str] | None = None) -> dict[str, Any]:
    """The event's derived parts: ``data``, ``hit``, ``device.geo``, ``traits``, whichever the type fills.

    Null properties are passed over. The result shares values with ``properties``; neither may be changed later.
    """
    parts: dict[str, Any] = {}
    for source, to, fit in event_type.copies:
        value = get(properties, source)
        if value is MISSING or value is None:
            continue
        fitted = fit(value)
        if fitted is MISSING:
            if source and warnings is not None:
                warnings.append(f"properties.{join(source)} does not fit {join(to)}")
        else:
            put(parts, to, fitted)
    return parts


def apply_to_profile(
    profile: dict[str, Any],
    event_type: EventType,
    event: dict[str, Any],
    at: float,
    event_id: str,
    warnings: list[str] | None = None,
) -> list[str]:
    """Do to ``profile``, in place, what the type says; the paths that changed.

    ``event`` has ``properties`` (when ``needs_properties``) and the parts that ``map_event`` made. ``at`` is the
    event's time in seconds since the epoch: with ``event_id`` it is kept in ``metadata.fields`` for each change.
    """
    changed: list[str] = []
    for op in event_type.ops:
        target, name = op.to, op.name
        if op.key is not None:
            key = short_text(get(event, op.key))
            if key is MISSING or not key:
                continue
            container = get(profile, op.to)
            if type(container) is dict and key not in container and len(container) >= KEYS_MAX:
                _warn(warnings, f"{name} is full; {op.op} of one more key was passed over")
                continue
            target, name = (*op.to, key), f"{op.name}.{key}"
        value = _operand(op, event, warnings)
        if (value is not MISSING or op.op == "delete") and _ACTS[op.op](profile, target, value):
            changed.append(name)
    if changed:
        _note(profile, changed, at, event_id)
    return changed


def unfit_operands(event_type: EventType, event: dict[str, Any], warnings: list[str]) -> None:
    """Say what of the event does not fit the profile's fields: what ``apply_to_profile`` will leave out."""
    for op in event_type.ops:
        _operand(op, event, warnings)


def _operand(op: Op, event: dict[str, Any], warnings: list[str] | None) -> Any:
    value = MISSING if op.source is None else get(event, op.source)
    if value is MISSING or value is None:
        value = op.value
        if value is MISSING:
            return MISSING
    fitted = op.fit(value)
    if fitted is MISSING:
        _warn(warnings, f"{join(op.source or ())} does not fit {op.op} of {op.name}")
    return fitted


def _warn(warnings: list[str] | None, text: str) -> None:
    if warnings is not None:
        warnings.append(text)


def _note(profile: dict[str, Any], changed: list[str], at: float, event_id: str) -> None:
    metadata = profile.get("metadata")
    if type(metadata) is not dict:
        metadata = profile["metadata"] = {}
    fields = metadata.get("fields")
    if type(fields) is not dict:
        fields = metadata["fields"] = {}
    for name in changed:
        fields[name] = [at, event_id]


def _equal(profile: dict[str, Any], path: Path, value: Any) -> bool:
    return get(profile, path) != value and put(profile, path, value)


def _equals_if_not_exists(profile: dict[str, Any], path: Path, value: Any) -> bool:
    current = get(profile, path)
    return (current is MISSING or current is None or current == "") and put(profile, path, value)


def _append(profile: dict[str, Any], path: Path, value: Any) -> bool:
    current = get(profile, path)
    if current is MISSING or current is None:
        items: list[Any] = []
    else:
        items = list(current) if type(current) is list else [current]
    more = [item for item in (value if type(value) is list else [value]) if item not in items]
    more = more[: max(0, LIST_MAX - len(items))]
    return bool(more) and put(profile, path, items + more)


def _delete(profile: dict[str, Any], path: Path, value: Any) -> bool:
    return remove(profile, path)


def _add(profile: dict[str, Any], path: Path, value: Any, sign: int = 1) -> bool:
    current = get(profile, path)
    # What is there and no number gives way: a counter that was once spoilt counts again from 0.
    base = number(current)
    total = number((0 if base is MISSING else base) + sign * value)
    return total is not MISSING and total != current and put(profile, path, total)


def _subtract(profile: dict[str, Any], path: Path, value: Any) -> bool:
    return _add(profile, path, value, -1)


_ACTS: dict[str, Callable[[dict[str, Any], Path, Any], bool]] = {
    "equal": _equal,
    "equals_if_not_exists": _equals_if_not_exists,
    "append": _append,
    "delete": _delete,
    "+": _add,
    "-": _subtract,
    "increment": _add,
    "decrement": _subtract,
}
