"""From a key to its partition, the same in every embedded backend and for ever: changing it would split keys."""

from __future__ import annotations

import zlib

from tracardi_lite.ports.queue import TOPIC


def partition_of(key: str, partitions: int) -> int:
    return zlib.crc32(key.encode("utf-8", "surrogatepass")) % partitions


def partition_name(partition: int) -> str:
    return f"{TOPIC}-partition-{partition}"


def fair_shares(partitions: int, members: int) -> list[int]:
    """How many partitions each of the members gets, in the order in which they joined."""
    least, more = divmod(partitions, members)
    return [least + (place < more) for place in range(members)]
