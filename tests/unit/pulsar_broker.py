"""A broker in this process that speaks Pulsar's binary protocol and does as it is told: hold receipts, refuse, cut.

It reads and writes with a codec of its own, made from the protocol's page and ``PulsarApi.proto``, so that a mistake of
the producer's is not repeated here. What it can't read, or finds wrong, stands in ``Broker.complaints``, and the
connection is cut; ``running`` raises them at its end.
"""

from __future__ import annotations

import asyncio
import struct
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any, cast

import google_crc32c

CONNECTED, SEND_RECEIPT, SEND_ERROR, SUCCESS, ERROR, CLOSE_PRODUCER, PRODUCER_SUCCESS = 3, 7, 8, 13, 14, 15, 17
PING, PONG, LOOKUP_RESPONSE, AUTH_CHALLENGE = 18, 19, 24, 36
NOBODY = 2**64 - 1
"""The broker's request number, -1, for an error that answers no request."""
PRODUCER_BUSY = 16

Fields = dict[str, Any]
Schema = Mapping[int, tuple[str, type]]

_COMMANDS: Mapping[int, tuple[str, Schema]] = {
    2: (
        "CONNECT",
        {
            1: ("client_version", str),
            3: ("auth_data", bytes),
            4: ("protocol_version", int),
            5: ("auth_method_name", str),
            6: ("proxy_to_broker_url", str),
            10: ("feature_flags", bytes),
        },
    ),
    5: (
        "PRODUCER",
        {
            1: ("topic", str),
            2: ("producer_id", int),
            3: ("request_id", int),
            4: ("producer_name", str),
            8: ("epoch", int),
            9: ("user_provided_producer_name", int),
        },
    ),
    6: (
        "SEND",
        {
            1: ("producer_id", int),
            2: ("sequence_id", int),
            3: ("num_messages", int),
            6: ("highest_sequence_id", int),
        },
    ),
    15: ("CLOSE_PRODUCER", {1: ("producer_id", int), 2: ("request_id", int)}),
    18: ("PING", {}),
    19: ("PONG", {}),
    23: ("LOOKUP", {1: ("topic", str), 2: ("request_id", int), 3: ("authoritative", int)}),
    37: ("AUTH_RESPONSE", {1: ("client_version", str), 2: ("response", bytes), 3: ("protocol_version", int)}),
}
AUTH_DATA: Schema = {1: ("auth_method_name", str), 2: ("auth_data", bytes)}
_METADATA: Schema = {
    1: ("producer_name", str),
    2: ("sequence_id", int),
    3: ("publish_time", int),
    6: ("partition_key", str),
    9: ("uncompressed_size", int),
    11: ("num_messages_in_batch", int),
    24: ("highest_sequence_id", int),
    25: ("null_value", int),
}
_SINGLE: Schema = {2: ("partition_key", str), 3: ("payload_size", int), 9: ("null_value", int)}


class Unreadable(ValueError):
    """What a broker would not take, or would take for something else."""


@dataclass(frozen=True)
class Content:
    key: str
    payload: bytes | None
    sequence: int


@dataclass(frozen=True)
class Sent:
    """A ``SEND`` and what came with it."""

    producer_id: int
    name: str
    publish_time: int
    batched: bool
    contents: tuple[Content, ...]


@dataclass(frozen=True)
class Message:
    topic: str
    key: str
    payload: bytes | None
    sequence: int
    name: str
    epoch: int
    batched: bool


@dataclass(eq=False)
class Opened:
    """A producer that was opened on a connection."""

    link: Link
    id: int
    topic: str
    name: str
    epoch: int


@dataclass(eq=False)
class Entry:
    """What arrived in one ``SEND``."""

    opened: Opened
    messages: tuple[Message, ...]
    place: tuple[int, int] | None = None
    """Ledger and entry, once it is kept."""

    @property
    def sequence(self) -> int:
        return self.messages[0].sequence

    @property
    def payloads(self) -> list[bytes | None]:
        return [message.payload for message in self.messages]


@dataclass
class Route:
    """The answer to a look-up."""

    url: str = ""
    """Of the broker that answers, if empty."""
    verdict: int = 1
    """0: redirect, 1: connect, 2: failed."""
    authoritative: bool = False
    proxied: bool = False
    code: int = 0
    text: str = ""


def read(data: bytes, schema: Schema) -> Fields:
    """A Protocol Buffers message whose fields must all be known, of the right type and there once."""
    stream = BytesIO(data)
    found: Fields = {}
    while stream.tell() < len(data):
        number, wire = divmod(_read_varint(stream), 8)
        if number not in schema:
            raise Unreadable(f"no field {number} expected")
        name, kind = schema[number]
        if name in found:
            raise Unreadable(f"{name} stands there twice")
        if wire != (0 if kind is int else 2):
            raise Unreadable(f"{name} has the wire type {wire}")
        value: Any = _read_varint(stream)
        if kind is not int:
            value = _exactly(stream, value)
        found[name] = value.decode() if kind is str else value
    return found


def read_frame(data: bytes) -> tuple[str, Fields, bytes]:
    """Of one whole frame: the command's kind, its fields, and what comes after it."""
    stream = BytesIO(data)
    size, command_size = struct.unpack(">II", _exactly(stream, 8))
    if size != len(data) - 4:
        raise Unreadable(f"a frame of {len(data)} bytes says {size}")
    command = BytesIO(_exactly(stream, command_size))
    if _read_varint(command) != 1 << 3:
        raise Unreadable("a command begins with its type")
    kind = _read_varint(command)
    if kind not in _COMMANDS:
        raise Unreadable(f"no command {kind} expected")
    name, schema = _COMMANDS[kind]
    if _read_varint(command) != kind << 3 | 2:
        raise Unreadable(f"{name} has not its own fields")
    own = _exactly(command, _read_varint(command))
    if command.read():
        raise Unreadable(f"something comes after {name}")
    return name, read(own, schema), stream.read()


def read_sent(send: Fields, rest: bytes) -> Sent:
    """What comes after ``SEND``, checked against it and in itself."""
    stream = BytesIO(rest)
    if _exactly(stream, 2) != b"\x0e\x01":
        raise Unreadable("no checksum")
    (checksum,) = struct.unpack(">I", _exactly(stream, 4))
    if checksum != google_crc32c.value(rest[6:]):
        raise Unreadable("the checksum is wrong")
    metadata = read(_sized(stream), _METADATA)
    payload = stream.read()
    first = metadata["sequence_id"]
    _same("sequence", send["sequence_id"], first)
    if "num_messages_in_batch" in metadata:
        contents = _read_batch(metadata, payload)
        count = metadata["num_messages_in_batch"]
        _same("count", count, len(contents))
        _same("count", count, send["num_messages"])
        _same("size", metadata["uncompressed_size"], len(payload))
        _same("last sequence", metadata["highest_sequence_id"], first + count - 1)
        _same("last sequence", send["highest_sequence_id"], first + count - 1)
    else:
        _same("count", send.get("num_messages", 1), 1)
        contents = (Content(metadata["partition_key"], _payload(metadata, payload), first),)
    batched = "num_messages_in_batch" in metadata
    return Sent(send["producer_id"], metadata["producer_name"], metadata["publish_time"], batched, contents)


def say(kind: int, *fields: tuple[int, int | str | bytes]) -> bytes:
    """A frame of the broker's; negative numbers are written as 64 bits' two's complement."""
    command = b"\x08" + _varint(kind) + _field(kind, b"".join(_field(*each) for each in fields))
    return struct.pack(">II", len(command) + 4, len(command)) + command


def receipt_of(producer_id: int, sequence: int, ledger: int, entry: int) -> bytes:
    place = _field(1, ledger) + _field(2, entry)
    return say(SEND_RECEIPT, (1, producer_id), (2, sequence), (3, place))


class Broker:
    """Takes all that comes unless it is told otherwise, before or in between, by its attributes."""

    def __init__(self) -> None:
        self.port = 0
        self.token = ""
        """Without which nobody is let in."""
        self.message_bytes_max = 5 << 20
        self.routes: list[Route] = []
        """Answers to the next look-ups."""
        self.route = Route()
        """The answer when there is no other."""
        self.producer_errors: list[tuple[int, str]] = []
        """Answers to the next that want to open a producer."""
        self.producer_answers: list[bytes] = []
        """What stands in place of the name's field in the next answers to them."""
        self.silent: set[str] = set()
        """Commands that are heard and not answered."""
        self.hangs_up_after_greeting = False
        self.deduplicating = False
        self.on_entry: Callable[[Entry], None] = self.receipt
        """What to do with an entry that has arrived; nothing of this sort is done by itself."""
        self.entries: list[Entry] = []
        """All that arrived, in order, also what was not kept."""
        self.log: dict[str, list[Entry]] = {}
        """What was kept, by topic."""
        self.links: list[Link] = []
        """Open connections."""
        self.opened: list[Opened] = []
        """Open producers."""
        self.complaints: list[str] = []
        self._heard: list[tuple[str, Fields]] = []
        self._epochs: dict[str, int] = {}
        self._last: dict[str, int] = {}
        self._server: asyncio.Server | None = None

    @property
    def url(self) -> str:
        return f"pulsar://127.0.0.1:{self.port}"

    @property
    def messages(self) -> list[Message]:
        return [message for entry in self.entries for message in entry.messages]

    def heard(self, kind: str) -> list[Fields]:
        return [fields for name, fields in self._heard if name == kind]

    async def start(self) -> None:
        """On the same port as before, when it was stopped."""
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(lambda: Link(self), "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        if self._server is None:
            return
        self._server.close()
        self.cut()
        await self._server.wait_closed()
        self._server = None

    def cut(self) -> None:
        """All connections, without a word."""
        for link in list(self.links):
            link.cut()

    def write(self, data: bytes) -> None:
        """To all connections."""
        for link in self.links:
            link.write(data)

    def keep(self, entry: Entry) -> None:
        """In the log, which who has sent it is not told. A deduplicating broker keeps a sequence number once."""
        if self.deduplicating and entry.sequence <= self._last.get(entry.opened.name, -1):
            return
        self._last[entry.opened.name] = entry.messages[-1].sequence
        log = self.log.setdefault(entry.opened.topic, [])
        entry.place = 7, len(log)
        log.append(entry)

    def receipt(self, entry: Entry) -> None:
        """Keep it, unless it is kept, and say so, with the place -1:-1 where it is a duplicate."""
        if entry.place is None:
            self.keep(entry)
        ledger, number = entry.place or (-1, -1)
        entry.opened.link.write(receipt_of(entry.opened.id, entry.sequence, ledger, number))

    def refuse(self, entry: Entry, code: int, text: str = "refused\n\tat server.stack") -> None:
        entry.opened.link.write(say(SEND_ERROR, (1, entry.opened.id), (2, entry.sequence), (3, code), (4, text)))

    def close_producers(self) -> None:
        """As when topics are moved to another broker."""
        for opened in self.opened:
            opened.link.write(say(CLOSE_PRODUCER, (1, opened.id), (2, NOBODY)))
        self.opened.clear()

    def hear(self, link: Link, kind: str, fields: Fields, rest: bytes) -> None:
        if kind == "SEND":
            self._take(link, read_sent(fields, rest))
            return
        if rest:
            raise Unreadable(f"{kind} comes with a payload")
        self._heard.append((kind, fields))
        if kind in self.silent:
            return
        match kind:
            case "CONNECT":
                self._greet(link, fields)
            case "LOOKUP":
                self._look_up(link, fields)
            case "PRODUCER":
                self._open(link, fields)
            case "CLOSE_PRODUCER":
                self.opened = [each for each in self.opened if (each.link, each.id) != (link, fields["producer_id"])]
                link.write(say(SUCCESS, (1, fields["request_id"])))
            case "PING":
                link.write(say(PONG))

    def _greet(self, link: Link, fields: Fields) -> None:
        if fields.get("auth_data", b"") != self.token.encode():
            link.write(say(ERROR, (1, NOBODY), (2, 3), (3, "Unable to authenticate\n\tat server.stack")))
            return
        link.write(say(CONNECTED, (1, "stand-in"), (2, 19), (3, self.message_bytes_max)))
        if self.hangs_up_after_greeting:
            link.hang_up()

    def _look_up(self, link: Link, fields: Fields) -> None:
        route = self.routes.pop(0) if self.routes else self.route
        answer: list[tuple[int, int | str | bytes]] = [(3, route.verdict), (4, fields["request_id"])]
        if route.verdict == 2:
            answer += [(6, route.code), (7, route.text)]
        else:
            answer += [(1, route.url or self.url), (5, route.authoritative), (8, route.proxied)]
        link.write(say(LOOKUP_RESPONSE, *answer))

    def _open(self, link: Link, fields: Fields) -> None:
        request = fields["request_id"]
        if self.producer_errors:
            code, text = self.producer_errors.pop(0)
            link.write(say(ERROR, (1, request), (2, code), (3, text)))
            return
        name = fields.get("producer_name") or f"standin-{len(self._epochs)}"
        if fields["epoch"] <= self._epochs.get(name, -1):
            link.write(say(ERROR, (1, request), (2, PRODUCER_BUSY), (3, f"{name} is open, with a later epoch")))
            return
        self._epochs[name] = fields["epoch"]
        self.opened = [each for each in self.opened if each.name != name]
        self.opened.append(Opened(link, fields["producer_id"], fields["topic"], name, fields["epoch"]))
        if self.producer_answers:
            answer = _field(1, request) + self.producer_answers.pop(0)
            command = b"\x08\x11" + _field(PRODUCER_SUCCESS, answer)
            link.write(struct.pack(">II", len(command) + 4, len(command)) + command)
            return
        link.write(say(PRODUCER_SUCCESS, (1, request), (2, name), (3, -1)))

    def _take(self, link: Link, sent: Sent) -> None:
        for opened in self.opened:
            if (opened.link, opened.id) == (link, sent.producer_id):
                break
        else:
            return  # it was closed, and its producer will hear of it
        _same("name", sent.name, opened.name)
        messages = tuple(
            Message(
                opened.topic, each.key, each.payload, each.sequence, opened.name, opened.epoch, batched=sent.batched
            )
            for each in sent.contents
        )
        entry = Entry(opened, messages)
        self.entries.append(entry)
        self.on_entry(entry)


@dataclass(eq=False)
class Link(asyncio.Protocol):
    """A connection, as the broker has it."""

    broker: Broker
    _buffer: bytearray = field(default_factory=bytearray)
    _transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's does not inherit from it
        self.broker.links.append(self)

    def connection_lost(self, error: Exception | None) -> None:
        self.cut()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        try:
            while self._transport is not None and len(self._buffer) >= 4:
                end = 4 + int.from_bytes(self._buffer[:4])
                if len(self._buffer) < end:
                    break
                frame = bytes(self._buffer[:end])
                del self._buffer[:end]
                self.broker.hear(self, *read_frame(frame))
        except Exception as error:  # also a test's own, in on_entry
            self.broker.complaints.append(repr(error))
            self.cut()

    def write(self, data: bytes) -> None:
        if self._transport is not None:
            self._transport.write(data)

    def hang_up(self) -> None:
        """After what was written has gone out."""
        if self._transport is not None:
            self._transport.close()

    def cut(self) -> None:
        """At once: nothing more is heard of it, not even what has arrived."""
        if self._transport is None:
            return
        self._transport.abort()
        self._transport = None
        self.broker.links.remove(self)
        self.broker.opened = [opened for opened in self.broker.opened if opened.link is not self]


@asynccontextmanager
async def running(broker: Broker | None = None) -> AsyncIterator[Broker]:
    broker = broker or Broker()
    await broker.start()
    try:
        yield broker
    finally:
        await broker.stop()
    assert not broker.complaints, broker.complaints


def _read_batch(metadata: Fields, payload: bytes) -> tuple[Content, ...]:
    stream = BytesIO(payload)
    found: list[Content] = []
    while stream.tell() < len(payload):
        own = read(_sized(stream), _SINGLE)
        _same("key", own["partition_key"], metadata["partition_key"])
        body = _exactly(stream, own["payload_size"])
        found.append(Content(own["partition_key"], _payload(own, body), metadata["sequence_id"] + len(found)))
    return tuple(found)


def _payload(metadata: Fields, body: bytes) -> bytes | None:
    if not metadata.get("null_value"):
        return body
    if body:
        raise Unreadable("a tombstone with a payload")
    return None


def _same(what: str, one: object, other: object) -> None:
    if one != other:
        raise Unreadable(f"the {what} is {one} here and {other} there")


def _exactly(stream: BytesIO, size: int) -> bytes:
    found = stream.read(size)
    if len(found) != size:
        raise Unreadable(f"{len(found)} bytes of {size}")
    return found


def _sized(stream: BytesIO) -> bytes:
    (size,) = struct.unpack(">I", _exactly(stream, 4))
    return _exactly(stream, size)


def _read_varint(stream: BytesIO) -> int:
    value, base = 0, 1
    for _ in range(10):
        (byte,) = _exactly(stream, 1)
        value += byte % 128 * base
        base *= 128
        if byte < 128:
            return value
    raise Unreadable("a number of more than ten bytes")


def _varint(value: int) -> bytes:
    value %= 2**64
    found: list[int] = []
    while True:
        value, low = divmod(value, 128)
        if not value:
            return bytes([*found, low])
        found.append(low + 128)


def _field(number: int, value: int | str | bytes) -> bytes:
    if isinstance(value, int):
        return _varint(number * 8) + _varint(value)
    raw = value.encode() if isinstance(value, str) else value
    return _varint(number * 8 + 2) + _varint(len(raw)) + raw
