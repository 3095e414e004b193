"""Messages as they go to the broker: one by itself, or several of one key as a batch, which is one entry of the log.

After the command ``SEND``: 0x0e01, CRC-32C u32 of the rest, size of the metadata u32, metadata, payload. A batch's
payload is, for each message: size u32 of its own metadata, that, its payload.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

import google_crc32c

from tracardi_lite.backends.queue.pulsar.wire import protobuf
from tracardi_lite.backends.queue.pulsar.wire.commands import Kind
from tracardi_lite.backends.queue.pulsar.wire.protobuf import varint

_U32 = struct.Struct(">I")
_HEAD = struct.Struct(">II")
_MAGIC = b"\x0e\x01"
_CHECKSUM_BYTES = 6


# Tags of fields, number << 3 | wire type: of CommandSend, MessageMetadata and SingleMessageMetadata. Messages are put
# together from them, since this is the hot path: ``protobuf.encode`` takes four times as long.
_SEND_SEQUENCE, _SEND_COUNT, _SEND_LAST = b"\x10", b"\x18", b"\x30"
_SEQUENCE, _TIME, _KEY, _SIZE, _COUNT = b"\x10", b"\x18", b"\x32", b"\x48", b"\x58"
_LAST, _NULL = b"\xc0\x01", b"\xc8\x01\x01"
_OWN_KEY, _OWN_SIZE, _OWN_NULL = b"\x12", b"\x18", b"\x48\x01"
_TYPE = protobuf.encode({1: Kind.SEND})
_SEND = b"\x32"


class Writer:
    """Of one producer's messages: what they have in common is encoded once."""

    def __init__(self, producer_id: int, name: str) -> None:
        self._command = protobuf.encode({1: producer_id})
        self._metadata = protobuf.encode({1: name})

    def single(self, sequence: int, key: str, payload: bytes | None, now_ms: int) -> bytes:
        """A frame with one message; a payload of None is a tombstone, which compaction removes the key for."""
        number = varint(sequence)
        null = _NULL if payload is None else b""
        metadata = b"".join((self._metadata, _SEQUENCE, number, _TIME, varint(now_ms), _KEY, _sized(key), null))
        return self._frame(b"".join((self._command, _SEND_SEQUENCE, number)), metadata, payload or b"")

    def batch(self, sequence: int, key: str, payloads: Sequence[bytes | None], now_ms: int) -> bytes:
        """A frame with these messages, whose sequence numbers begin at ``sequence``."""
        parts: list[bytes] = []
        named = _sized(key)
        for payload in payloads:
            null = _OWN_NULL if payload is None else b""
            own = b"".join((_OWN_KEY, named, _OWN_SIZE, varint(len(payload or b"")), null))
            parts += (_U32.pack(len(own)), own, payload or b"")
        body = b"".join(parts)
        number, count, last = varint(sequence), varint(len(payloads)), varint(sequence + len(payloads) - 1)
        metadata = (
            *(self._metadata, _SEQUENCE, number, _TIME, varint(now_ms), _KEY, named),
            *(_SIZE, varint(len(body)), _COUNT, count, _LAST, last),
        )
        send = (self._command, _SEND_SEQUENCE, number, _SEND_COUNT, count, _SEND_LAST, last)
        return self._frame(b"".join(send), b"".join(metadata), body)

    def _frame(self, send: bytes, metadata: bytes, payload: bytes) -> bytes:
        command = b"".join((_TYPE, _SEND, varint(len(send)), send))
        head = _U32.pack(len(metadata)) + metadata
        checksum = google_crc32c.extend(google_crc32c.value(head), payload)
        size = 4 + len(command) + _CHECKSUM_BYTES + len(head) + len(payload)
        return b"".join((_HEAD.pack(size, len(command)), command, _MAGIC, _U32.pack(checksum), head, payload))


def _sized(text: str) -> bytes:
    raw = text.encode()
    return varint(len(raw)) + raw
