"""An entry of a partition's stream."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from msgspec import Struct


class Record(Struct):
    offset: int
    key: str
    head: bytes
    body: bytes
    events: int
    published_ms: int
    events_end: int
    """Events of the partition up to this record, itself included, since the beginning."""
    bytes_end: int

    @property
    def size(self) -> int:
        return len(self.head) + len(self.body)


def entry_id(offset: int) -> str:
    return f"{offset + 1}-0"


def parse(entry: tuple[bytes, Mapping[bytes, bytes]]) -> Record:
    id, fields = entry
    return Record(
        int(id.partition(b"-")[0]) - 1,
        fields[b"k"].decode("utf-8", "surrogatepass"),
        fields[b"h"],
        fields[b"b"],
        int(fields[b"e"]),
        int(fields[b"t"]),
        int(fields[b"ee"]),
        int(fields[b"be"]),
    )


def parse_all(entries: Any) -> list[Record]:
    return [parse(entry) for entry in entries or ()]
