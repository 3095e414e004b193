"""Profiles and sessions: whole documents, compared and set by sequence number, always in the partition of their birth.

Finding one by id alone asks every partition in real time, in one request or a few: for people, and independent of
refresh and directory.
"""

from __future__ import annotations

from collections.abc import Sequence
from urllib.parse import quote

from tracardi_lite import partitioning
from tracardi_lite.backends.store.elasticsearch.bulk import Op, Result
from tracardi_lite.backends.store.elasticsearch.connection import Connection
from tracardi_lite.backends.store.elasticsearch.events import failed, unusable_id
from tracardi_lite.backends.store.elasticsearch.indices import Indices
from tracardi_lite.backends.store.elasticsearch.names import Names
from tracardi_lite.backends.store.elasticsearch.reading import Doc, Reader
from tracardi_lite.backends.store.elasticsearch.writing import Item, Writer
from tracardi_lite.ports.store import CONFLICT, Kind, Outcome, Record, RecordWrite, Verdict


class Records:
    def __init__(self, connection: Connection, writer: Writer, reader: Reader, indices: Indices, names: Names) -> None:
        self._connection = connection
        self._writer = writer
        self._reader = reader
        self._indices = indices
        self._names = names

    async def put(self, writes: Sequence[RecordWrite]) -> list[Verdict]:
        verdicts: dict[int, Verdict] = {}
        for at, write in enumerate(writes):
            if reason := _unusable(write):
                verdicts[at] = Verdict(Outcome.NEVER, reason)
        places = [at for at in range(len(writes)) if at not in verdicts]
        if places:
            results = await self._writer.write([self._item(writes[at]) for at in places])
            verdicts |= {at: _verdict(result) for at, result in zip(places, results, strict=True)}
        return [verdicts[at] for at in range(len(writes))]

    def _item(self, write: RecordWrite) -> Item:
        index = self._names.index(write.kind, write.partition)
        action = "create" if write.version is None else "index"
        return Item(write.kind, write.partition, Op(index, write.id, action, write.doc, write.version))

    async def get(self, kind: Kind, keys: Sequence[tuple[str, str]]) -> list[Record | None]:
        places = [at for at, (id, partition) in enumerate(keys) if partitioning.is_name(partition) and id]
        docs = await self._reader.get([(self._names.index(kind, keys[at][1]), keys[at][0]) for at in places])
        found = {at: _record(*keys[at], doc) for at, doc in zip(places, docs, strict=True) if doc is not None}
        return [found.get(at) for at in range(len(keys))]

    async def find(self, kind: Kind, id: str) -> Record | None:
        """From the newest partition that has it."""
        if unusable_id(id):
            return None
        indices = await self._indices.names(kind)
        for index, doc in zip(indices, await self._reader.get([(index, id) for index in indices]), strict=True):
            if doc is not None:
                return _record(id, self._names.partition(kind, index) or "", doc)
        return None

    async def delete(self, kind: Kind, id: str) -> bool:
        """False when no partition has it. True may also be told to two who delete at once."""
        record = await self.find(kind, id)
        if record is None:
            return False
        target = f"/{quote(self._names.index(kind, record.partition))}/_doc/{quote(id, safe='')}"
        await self._connection.do("DELETE", target, fine=(404,))
        return True


def _unusable(write: RecordWrite) -> str:
    if not partitioning.is_name(write.partition):
        return f"not a partition's name: {write.partition!r}"
    return unusable_id(write.id)


def _verdict(result: Result) -> Verdict:
    if result.is_done:
        return Verdict(Outcome.STORED, version=result.version)
    # An update whose partition is gone has nothing to update: whoever reads again finds that out.
    return CONFLICT if result.status == 409 or result.lacks_index else failed(result)


def _record(id: str, partition: str, doc: Doc) -> Record:
    return Record(id, partition, bytes(doc.source), doc.version)
