"""Commands: what the two sides of a connection say to each other, apart from messages themselves.

A command stands in a frame: size of all that follows u32, size of the command u32, command (``BaseCommand``: its kind,
and its own fields under the kind's number). Big-endian. A message's frame goes on after it, see ``messages``.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from enum import IntEnum

from msgspec import Struct

from tracardi_lite import __version__
from tracardi_lite.backends.queue.pulsar.wire import protobuf

PROTOCOL = 19
"""``v19``, of Pulsar 2.10: the newest that we need nothing of."""
FRAME_BYTES_MAX = 1 << 20
"""Nothing that a producer is told is that long."""
_SIZES = struct.Struct(">II")
_CLIENT = f"tracardi-lite-{__version__}"


class Kind(IntEnum):
    CONNECT = 2
    CONNECTED = 3
    PRODUCER = 5
    SEND = 6
    SEND_RECEIPT = 7
    SEND_ERROR = 8
    SUCCESS = 13
    ERROR = 14
    CLOSE_PRODUCER = 15
    PRODUCER_SUCCESS = 17
    PING = 18
    PONG = 19
    LOOKUP = 23
    LOOKUP_RESPONSE = 24
    AUTH_CHALLENGE = 36
    AUTH_RESPONSE = 37


SEND_RECEIPT = int(Kind.SEND_RECEIPT)
"""By itself, since it is compared for each message, and an enum's member is slow to find."""
_RECEIPT = bytes((1 << 3, SEND_RECEIPT, SEND_RECEIPT << 3 | 2))
"""How a receipt begins: its type, and the tag of its message."""
_RECEIPT_HEAD = len(_RECEIPT) + 1
"""With the message's length, which is a byte's."""


class Fault(IntEnum):
    """The broker's ``ServerError`` codes that mean something to us."""

    AUTHENTICATION = 3
    AUTHORIZATION = 4
    CHECKSUM = 9
    TOPIC_NOT_FOUND = 11
    TOPIC_TERMINATED = 15
    NOT_ALLOWED = 22


class Said(Struct, frozen=True):
    """A command of the other side's."""

    kind: int
    fields: dict[int, protobuf.Value]


def frame(kind: Kind, fields: Mapping[int, int | bytes | str | None]) -> bytes:
    command = protobuf.encode({1: kind, kind: protobuf.encode(fields)})
    return _SIZES.pack(len(command) + 4, len(command)) + command


def connect(token: str, proxy_to: str) -> bytes:
    """``proxy_to``: the broker's host and port that a proxy shall pass this connection on to, or empty."""
    supports_auth_refresh = protobuf.encode({1: True})
    return frame(
        Kind.CONNECT,
        {
            1: _CLIENT,
            3: token or None,
            4: PROTOCOL,
            5: "token" if token else None,
            6: proxy_to or None,
            10: supports_auth_refresh,
        },
    )


def auth_response(token: str) -> bytes:
    return frame(Kind.AUTH_RESPONSE, {1: _CLIENT, 2: protobuf.encode({1: "token", 2: token}), 3: PROTOCOL})


def lookup(request: int, topic: str, *, authoritative: bool) -> bytes:
    return frame(Kind.LOOKUP, {1: topic, 2: request, 3: authoritative})


def producer(request: int, topic: str, id: int, name: str, epoch: int) -> bytes:
    """``name`` is empty the first time, and what the broker called it when it is opened again, with a higher epoch."""
    return frame(Kind.PRODUCER, {1: topic, 2: id, 3: request, 4: name or None, 8: epoch, 9: False})


def close_producer(request: int, id: int) -> bytes:
    return frame(Kind.CLOSE_PRODUCER, {1: id, 2: request})


def ping() -> bytes:
    return frame(Kind.PING, {})


def pong() -> bytes:
    return frame(Kind.PONG, {})


class Splitter:
    """Bytes as they come, to commands. ``ValueError`` for what is no frame."""

    def __init__(self) -> None:
        self._rest = b""

    def feed(self, data: bytes) -> Iterator[Said]:
        data = self._rest + data if self._rest else data
        self._rest = b""
        place, end = 0, len(data)
        while end - place >= _SIZES.size:
            size, command_size = _SIZES.unpack_from(data, place)
            if not 4 + command_size <= size <= FRAME_BYTES_MAX:
                raise ValueError(f"no frame: {size} and {command_size} bytes")
            start, stop = place + _SIZES.size, place + 4 + size
            if stop > end:
                break
            place = stop
            yield _said(data[start : start + command_size])
        self._rest = data[place:]


def _said(command: bytes) -> Said:
    """A ``BaseCommand``: its type, and the message of that type in the field of the type's number."""
    rest = len(command) - _RECEIPT_HEAD
    if 0 <= rest < 0x80 and command.startswith(_RECEIPT) and command[_RECEIPT_HEAD - 1] == rest:
        # Nearly all that a producer is told.
        return Said(SEND_RECEIPT, protobuf.decode(command[_RECEIPT_HEAD:]))
    base = protobuf.decode(command)
    kind = protobuf.number(base, 1)
    return Said(kind, protobuf.decode(protobuf.raw(base, kind)))
