"""Retention, and finding a time in a partition: offsets grow with time, so both halve the range until it is one."""

from __future__ import annotations

from collections.abc import Callable

from tracardi_lite.backends.queue.redis import scripts
from tracardi_lite.backends.queue.redis.record import Record, entry_id, parse_all
from tracardi_lite.backends.queue.redis.server import Server, mapped


async def first_record(server: Server, partition: int, offset: int = 0) -> Record | None:
    """The first that is kept at ``offset`` or after it."""
    with mapped():
        entries = await server.redis.xrange(server.key("s", partition), entry_id(offset), "+", 1)
    records = parse_all(entries)
    return records[0] if records else None


async def first_where(server: Server, partition: int, end: int, holds: Callable[[Record], bool]) -> Record | None:
    """The first record before ``end`` for which ``holds``, which is false up to some record and true from there on."""
    low = await first_record(server, partition)
    if low is None or low.offset >= end:
        return None
    start, found = low.offset, None
    while start < end:
        middle = (start + end) // 2
        record = await first_record(server, partition, middle)
        if record is None or record.offset >= end or holds(record):
            found = record if record is not None and record.offset < end else found
            end = middle
        else:
            start = record.offset + 1
    return found


async def trim(server: Server, partition: int, cursor: int, horizon_ms: int, bytes_kept: int) -> int:
    """Drop what is before ``cursor`` and older than ``horizon_ms``, or more than ``bytes_kept``. The bytes freed."""
    if cursor <= 0:
        return 0
    last = await first_record(server, partition, cursor - 1)
    if last is None or last.offset != cursor - 1:
        return 0
    keep_from = last.bytes_end - bytes_kept

    def kept(record: Record) -> bool:
        return record.published_ms > horizon_ms and record.bytes_end - record.size >= keep_from

    first = await first_where(server, partition, cursor, kept)
    target, bytes_before = (cursor, last.bytes_end) if first is None else (first.offset, first.bytes_end - first.size)
    return int(await server.run(scripts.TRIM, partition, target, bytes_before))
