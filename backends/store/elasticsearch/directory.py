"""The directory: one index of small documents, read by key in real time, claimed by create, moved by compare-and-set.

A key longer than an ``_id`` may be (512 bytes) stands under its hash.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import msgspec
from msgspec import Struct

from tracardi_lite.backends.store.elasticsearch.bulk import Op
from tracardi_lite.backends.store.elasticsearch.connection import encode
from tracardi_lite.backends.store.elasticsearch.gathering import Gathering
from tracardi_lite.backends.store.elasticsearch.mappings import ID_BYTES_MAX
from tracardi_lite.backends.store.elasticsearch.names import DIRECTORY, Names
from tracardi_lite.backends.store.elasticsearch.reading import Doc, Reader
from tracardi_lite.backends.store.elasticsearch.writing import Item, Writer
from tracardi_lite.errors import Unavailable
from tracardi_lite.ports.store import Claim, Entry

_TRIES_MAX = 5
"""A claim or a compare-and-set is only repeated when somebody changed the very key meanwhile."""


class _Entry(Struct):
    target: str = ""
    partition: str = ""
    message: str = ""


class Directory:
    def __init__(self, writer: Writer, reader: Reader, names: Names) -> None:
        self._writer = writer
        self._reader = reader
        self._index = names.directory
        self._gathering = Gathering(self._entries)

    async def lookup(self, keys: Sequence[str]) -> list[Entry | None]:
        return await self._gathering(keys)

    async def claim(self, claims: Sequence[Claim]) -> list[Entry]:
        wanted = {claim.key: claim.entry for claim in reversed(claims)}  # of a key's claims the first counts
        held: dict[str, Entry] = {}
        for _ in range(_TRIES_MAX):
            missing = [key for key in wanted if key not in held]
            if not missing:
                return [held[claim.key] for claim in claims]
            results = await self._writer.write([self._item("create", key, wanted[key]) for key in missing])
            taken = []
            for key, result in zip(missing, results, strict=True):
                if result.is_done:
                    held[key] = wanted[key]
                elif result.status == 409:
                    taken.append(key)
                else:
                    raise Unavailable("store", f"can't claim a key: {result.reason}")
            held |= {
                key: entry for key, entry in zip(taken, await self.lookup(taken), strict=True) if entry is not None
            }
        if len(held) == len(wanted):
            return [held[claim.key] for claim in claims]
        raise Unavailable("store", "a key is claimed and let go all the time")

    async def repoint(self, key: str, expected: Entry, entry: Entry | None) -> bool:
        for _ in range(_TRIES_MAX):
            [doc] = await self._docs([key])
            if doc is None or _entry(doc) != expected:
                return False
            item = self._item("delete" if entry is None else "index", key, entry)
            item.op.version = doc.version
            [result] = await self._writer.write([item])
            if result.is_done:
                return True
            if result.status not in (404, 409):
                raise Unavailable("store", f"can't change a key: {result.reason}")
        raise Unavailable("store", "a key changes all the time")

    async def forget(self, key: str) -> bool:
        """Remove the entry of a key that has a record of its own; an alias stays, since it must resolve for ever."""
        for _ in range(_TRIES_MAX):
            [entry] = await self.lookup([key])
            if entry is None or not entry.partition:
                return False
            if await self.repoint(key, entry, None):
                return True
        raise Unavailable("store", "a key changes all the time")

    async def _entries(self, keys: Sequence[str]) -> list[Entry | None]:
        return [None if doc is None else _entry(doc) for doc in await self._docs(keys)]

    async def _docs(self, keys: Sequence[str]) -> list[Doc | None]:
        # The same key twice in a request is fine.
        return await self._reader.get([(self._index, _id(key)) for key in keys])

    def _item(self, action: str, key: str, entry: Entry | None) -> Item:
        doc = b"" if entry is None else encode(_Entry(entry.target, entry.partition, entry.message))
        return Item(DIRECTORY, "", Op(self._index, _id(key), action, doc))


def _id(key: str) -> str:
    data = key.encode()
    return key if len(data) <= ID_BYTES_MAX else "#" + hashlib.sha256(data).hexdigest()


def _entry(doc: Doc) -> Entry:
    entry = msgspec.json.decode(doc.source, type=_Entry)
    return Entry(entry.target, entry.partition, entry.message)
