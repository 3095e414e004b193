"""What one group commit writes: many messages in one compressed frame. Pure.

A frame is zstd with a checksum over ``<length of columns> <columns> <head> <body> <head> <body> …``; the columns are a
msgpack array of arrays. The checksum finds flipped bits that SQLite, which has none of its own, would hand out.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import msgspec
from msgspec import Struct

from tracardi_lite.backends.queue.routing import partition_of
from tracardi_lite.backends.queue.sqlite.database import Damaged
from tracardi_lite.ports.queue import Publication

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

LEVEL = 1
"""For what compresses well. Web events: 16 : 1 at 620 MB/s, which is cheaper than writing them as they are; level 3
takes twice as long for 2 % less."""
LEVEL_QUICK = -5
"""For what doesn't. Made-up words and numbers: 2 : 1 at 245 MB/s, where level 1 makes 3 : 1 at 143 MB/s, and takes most
of a post's CPU."""
WELL = 4.0
"""What compressing well is, at either level. One bound for both does not flap: where one level makes 3 : 1 the other
makes 2 : 1, and where one makes 16 : 1 the other makes 8 : 1."""


class Counts(Struct, array_like=True):
    """Running counts of the log since the beginning of the queue, after some batch. Appended, never updated."""

    messages: list[int]
    """By partition, like ``events``."""
    events: list[int]
    replayed: int = 0
    """Of the events, those that were received before."""
    size: int = 0
    """Bytes of frames."""

    @classmethod
    def zero(cls, partitions: int) -> Counts:
        return cls([0] * partitions, [0] * partitions)

    def plus(self, other: Counts) -> Counts:
        return Counts(
            [a + b for a, b in zip(self.messages, other.messages, strict=True)],
            [a + b for a, b in zip(self.events, other.events, strict=True)],
            self.replayed + other.replayed,
            self.size + other.size,
        )

    def at_least(self, other: Counts) -> Counts:
        return Counts(
            [max(a, b) for a, b in zip(self.messages, other.messages, strict=True)],
            [max(a, b) for a, b in zip(self.events, other.events, strict=True)],
            max(self.replayed, other.replayed),
            max(self.size, other.size),
        )


class Frame(Struct):
    """A group on its way to the log."""

    count: int
    size: int
    """Bytes before compression."""
    counts: Counts
    """Its own, not running."""
    data: bytes


class Record(Struct):
    """A message as it stands in the log."""

    offset: int
    partition: int
    key: str
    head: bytes
    body: bytes
    events: int
    published_ms: int

    @property
    def size(self) -> int:
        return len(self.head) + len(self.body)


class _Columns(Struct, array_like=True):
    keys: list[str]
    partitions: list[int]
    events: list[int]
    heads: list[int]
    bodies: list[int]


_encode = msgspec.msgpack.Encoder().encode
_decode_columns = msgspec.msgpack.Decoder(_Columns).decode
_decode_counts = msgspec.msgpack.Decoder(Counts).decode


def _compressor(level: int) -> zstd.ZstdCompressor:
    parameter = zstd.CompressionParameter
    return zstd.ZstdCompressor(options={parameter.compression_level: level, parameter.checksum_flag: 1})


class Packer:
    """Packs groups for one thread; keeps the compressors' memory between them. How hard it tries with a group is
    decided by how the one before went."""

    def __init__(self, partitions: int) -> None:
        self._partitions = partitions
        self._thorough = _compressor(LEVEL)
        self._quick = _compressor(LEVEL_QUICK)
        self._compresses_well = True

    def pack(self, group: Sequence[Publication]) -> Frame:
        counts = Counts.zero(self._partitions)
        messages, events = counts.messages, counts.events
        columns = _Columns([], [], [], [], [])
        pieces: list[bytes] = [b"", b""]
        for publication in group:
            partition = partition_of(publication.key, self._partitions)
            messages[partition] += 1
            events[partition] += publication.events
            if publication.replay:
                counts.replayed += publication.events
            columns.keys.append(publication.key)
            columns.partitions.append(partition)
            columns.events.append(publication.events)
            columns.heads.append(len(publication.head))
            columns.bodies.append(len(publication.body))
            pieces.append(publication.head)
            pieces.append(publication.body)
        pieces[1] = _encode(columns)
        pieces[0] = len(pieces[1]).to_bytes(4, "little")
        raw = b"".join(pieces)
        compressor = self._thorough if self._compresses_well else self._quick
        data = compressor.compress(raw, zstd.ZstdCompressor.FLUSH_FRAME)
        self._compresses_well = len(raw) >= WELL * len(data)
        counts.size = len(data)
        return Frame(len(group), len(raw), counts, data)


def unpack(base: int, published_ms: int, size: int, data: bytes) -> list[Record]:
    """The messages of a batch whose first one has the offset ``base``. Raises ``Damaged``."""
    try:
        decompressor = zstd.ZstdDecompressor()
        raw = memoryview(decompressor.decompress(data, max_length=size + 1))
        if len(raw) != size or not decompressor.eof:
            raise Damaged("a batch has not its length")
        at = 4 + int.from_bytes(raw[:4], "little")
        columns = _decode_columns(raw[4:at])
        records = []
        for place, (key, partition, events, head, body) in enumerate(
            zip(columns.keys, columns.partitions, columns.events, columns.heads, columns.bodies, strict=True)
        ):
            middle, end = at + head, at + head + body
            records.append(
                Record(
                    base + place, partition, key, bytes(raw[at:middle]), bytes(raw[middle:end]), events, published_ms
                )
            )
            at = end
    except (zstd.ZstdError, EOFError, msgspec.DecodeError, ValueError) as error:
        raise Damaged("a batch can't be decoded") from error
    if at != size:
        raise Damaged("a batch's columns don't add up")
    return records


def encode_counts(counts: Counts) -> bytes:
    return _encode(counts)


def decode_counts(data: bytes) -> Counts:
    """Raises ``Damaged``."""
    try:
        return _decode_counts(data)
    except (msgspec.DecodeError, TypeError) as error:
        raise Damaged("counts can't be decoded") from error
