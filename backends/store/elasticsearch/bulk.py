"""The bulk request: lines glued from bytes that are ready, one result per item, whatever happens to the request.

A document's bytes are taken as they are. They are JSON, in which a line break is white space, and a bulk's lines must
not be broken: that alone is changed. Requests hold at most ``_BYTES_MAX`` bytes. One that is too large (413), or that
is refused as a whole because one of its items is invalid, is halved until the item to blame is alone.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec
from msgspec import Struct

from tracardi_lite.backends.store.elasticsearch.connection import NDJSON, Answer, Cause, Connection, encode, fail
from tracardi_lite.backends.store.elasticsearch.flight import Flight
from tracardi_lite.errors import Unavailable

_BYTES_MAX = 10 << 20
"""A tenth of what Elasticsearch takes by default; larger bulks are not faster."""

Version = tuple[int, int]
"""(sequence number, primary term): what compare-and-set compares."""


class Op(Struct):
    index: str
    id: str
    action: str
    """``create``, ``index`` or ``delete``."""
    doc: bytes = b""
    version: Version | None = None
    """Only if the document still has it."""


class Result(Struct):
    status: int
    cause: Cause | None = None
    version: Version | None = None

    @property
    def is_done(self) -> bool:
        return self.status < 300

    @property
    def is_passing(self) -> bool:
        """It is not the document's fault: the same may be taken later. A block (403) is an operator's to lift."""
        return (
            self.status == 429
            or self.status >= 500
            or (self.cause is not None and self.cause.type == "cluster_block_exception")
        )

    @property
    def lacks_index(self) -> bool:
        return self.status == 404 and self.cause is not None and self.cause.type == "index_not_found_exception"

    @property
    def reason(self) -> str:
        return f"Elasticsearch answers {self.status}: {self.cause}"


class _Item(Struct):
    status: int
    seq_no: int | None = msgspec.field(name="_seq_no", default=None)
    primary_term: int | None = msgspec.field(name="_primary_term", default=None)
    error: Cause | None = None


class _Items(Struct):
    items: list[dict[str, _Item]]


_ALL_WELL, _HEAD_BYTES = b'"errors":false', 80
"""An answer says it before its first item."""
_DONE = Result(201)

_decode = msgspec.json.Decoder(_Items).decode


class Bulk:
    def __init__(self, connection: Connection, flight: Flight) -> None:
        self._connection = connection
        self._flight = flight
        # Less than the request's own time, so that a shard that is away is its items' trouble and not the call's.
        self._target = f"/_bulk?timeout={max(500, int(connection.timeout_s * 500))}ms"

    async def send(self, ops: Sequence[Op], *, versions: bool = True) -> list[Result]:
        """One result per item, in order; items of one id are done in order. ``Unavailable`` for no answer at all.

        Without ``versions``, those of items that went well may be missing, which spares the reading of most answers.
        """
        results: list[Result] = []
        for lines in _requests(ops):
            results += await self._send(lines, versions)
        return results

    async def _send(self, lines: list[bytes], versions: bool) -> list[Result]:
        async with self._flight.place() as place:
            answer = await self._connection.call("POST", self._target, b"".join(lines), kind=NDJSON)
            results = _results(answer, len(lines), versions)
            place.refused = results is not None and any(result.status == 429 for result in results)
        if results is not None:
            return results
        if len(lines) == 1:
            return [Result(answer.status, answer.cause)]
        middle = len(lines) // 2
        return [*await self._send(lines[:middle], versions), *await self._send(lines[middle:], versions)]


def _results(answer: Answer, count: int, versions: bool) -> list[Result] | None:
    """None: the request must be taken apart."""
    if answer.status == 429:
        return [Result(429, answer.cause)] * count
    if answer.status in (400, 413):
        return None
    if answer.status >= 300:
        fail(answer)
    if not versions and _ALL_WELL in answer.body[:_HEAD_BYTES]:
        return [_DONE] * count
    try:
        items = [item for each in _decode(answer.body).items for item in each.values()]
    except msgspec.DecodeError as error:
        raise Unavailable("store", f"not an answer of Elasticsearch: {error}") from error
    if len(items) != count:
        raise Unavailable("store", f"Elasticsearch answered {len(items)} of {count} items")
    return [
        Result(
            item.status,
            item.error,
            None if item.seq_no is None or item.primary_term is None else (item.seq_no, item.primary_term),
        )
        for item in items
    ]


def _requests(ops: Sequence[Op]) -> Iterator[list[bytes]]:
    """Each item's lines, in groups that fit a request."""
    lines: list[bytes] = []
    size = 0
    openings: dict[tuple[str, str], bytes] = {}
    for op in ops:
        opening = openings.get((op.action, op.index))
        if opening is None:
            opening = b'{"%b":{"_index":%b,"_id":' % (op.action.encode(), encode(op.index))
            openings[op.action, op.index] = opening
        line = _line(opening, op)
        if lines and size + len(line) > _BYTES_MAX:
            yield lines
            lines, size = [], 0
        lines.append(line)
        size += len(line)
    if lines:
        yield lines


def _line(opening: bytes, op: Op) -> bytes:
    closing = b"}}\n" if op.version is None else b',"if_seq_no":%d,"if_primary_term":%d}}\n' % op.version
    if op.action == "delete":
        return b"".join((opening, encode(op.id), closing))
    return b"".join((opening, encode(op.id), closing, one_line(op.doc), b"\n"))


def one_line(doc: bytes) -> bytes:
    """A JSON document without line breaks: in strings they are escaped, elsewhere they are white space."""
    return doc.replace(b"\n", b" ").replace(b"\r", b" ")
