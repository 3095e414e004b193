"""Which messages a record has already taken in: ``metadata.system.aux.applied``.

``{"<routing key>": {"<stream>": [position…]}}``: the furthest position applied, per routing key (after a merge,
messages keyed with the losing id are still on their way) and per stream (positions of different streams don't
compare). Exact because the queue delivers a key's messages in order.

Bounds: the ``STREAMS_MAX`` most recently marked streams of a key and the ``KEYS_MAX`` most recently marked keys are
kept. A stream falls out only after its key has been moved that often (partitions added, queue wiped), a key only when
that many merged ids have been used since. What fell out would be applied again if its messages were ever delivered
again (``seek`` to before the move); their events would still be recognised by their ids.
"""

from __future__ import annotations

from typing import Any

KEYS_MAX = 256
STREAMS_MAX = 8

Marks = dict[str, dict[str, list[int]]]


def applied(record: dict[str, Any], key: str, stream: str, position: tuple[int, ...]) -> bool:
    """Whether the message at ``position``, or a later one of the same key and stream, is in the record already."""
    reached = _marks(record).get(key, {}).get(stream)
    return reached is not None and list(position) <= reached


def mark_applied(record: dict[str, Any], key: str, stream: str, position: tuple[int, ...]) -> None:
    """Note, in place, that the message at ``position`` is in the record. Never goes back."""
    marks = _marks(record)
    # Taken out and put in again: the order of the keys is the order of their last marks.
    streams = marks.pop(key, {})
    reached = streams.pop(stream, None)
    streams[stream] = list(position) if reached is None else max(reached, list(position))
    marks[key] = streams
    _trim(marks)


def unite_applied(into: dict[str, Any], other: dict[str, Any]) -> None:
    """After a merge of two records: what either has taken in, the merged one has. Changes ``into``."""
    marks = _marks(into)
    for key, streams in _marks(other).items():
        united = marks.setdefault(key, {})
        for stream, position in streams.items():
            united[stream] = max(united.get(stream, position), position)
    _trim(marks)


def _marks(record: dict[str, Any]) -> Marks:
    """The record's marks, made if absent."""
    here = record
    for step in ("metadata", "system", "aux", "applied"):
        inner = here.get(step)
        if inner is None:
            inner = here[step] = {}
        here = inner
    return here


def _trim(marks: Marks) -> None:
    for streams in marks.values():
        while len(streams) > STREAMS_MAX:
            del streams[next(iter(streams))]
    while len(marks) > KEYS_MAX:
        del marks[next(iter(marks))]
