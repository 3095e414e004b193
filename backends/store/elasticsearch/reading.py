"""Reading by key, in real time: mget sees what was written, refreshed or not."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec
from msgspec import Raw, Struct

from tracardi_lite.backends.store.elasticsearch.bulk import Version
from tracardi_lite.backends.store.elasticsearch.connection import Cause, Connection
from tracardi_lite.errors import Unavailable

_KEYS_MAX = 500
"""In one request: answers hold whole documents, of up to some hundred KiB each."""

_GONE = ("index_not_found_exception", "index_closed_exception")

MESSAGE_ONLY = "_source_includes=metadata.aux.message&filter_path=docs.found,docs._source,docs.error.type"
"""Query of an mget that only asks which message brought an event."""


class Doc(Struct):
    found: bool = False
    source: Raw = msgspec.field(name="_source", default_factory=Raw)
    seq_no: int = msgspec.field(name="_seq_no", default=-1)
    primary_term: int = msgspec.field(name="_primary_term", default=-1)
    error: Cause | None = None

    @property
    def version(self) -> Version:
        return self.seq_no, self.primary_term


class _Docs(Struct):
    docs: list[Doc]


class _Aux(Struct):
    message: str = ""


class _Metadata(Struct):
    aux: _Aux = msgspec.field(default_factory=_Aux)


class _Event(Struct):
    metadata: _Metadata = msgspec.field(default_factory=_Metadata)


class Reader:
    def __init__(self, connection: Connection) -> None:
        self._connection = connection

    async def get(self, keys: Sequence[tuple[str, str]], query: str = "") -> list[Doc | None]:
        """Documents by (index, id), in order; None for what is not there, or whose index is not."""
        found: list[Doc | None] = []
        for start in range(0, len(keys), _KEYS_MAX):
            found += await self._get(keys[start : start + _KEYS_MAX], query)
        return found

    async def _get(self, keys: Sequence[tuple[str, str]], query: str) -> list[Doc | None]:
        body = {"docs": [{"_index": index, "_id": id} for index, id in keys]}
        docs = (await self._connection.ask(_Docs, "POST", f"/_mget?{query}", body)).docs
        if len(docs) != len(keys):
            raise Unavailable("store", f"Elasticsearch answered {len(docs)} of {len(keys)} keys")
        for doc in docs:
            if doc.error is not None and doc.error.type not in _GONE:
                raise Unavailable("store", f"Elasticsearch can't read: {doc.error}")
        return [doc if doc.found else None for doc in docs]

    async def messages(self, keys: Sequence[tuple[str, str]]) -> list[str | None]:
        """Which message brought each event, by (index, id): None without the event, "" if it does not say."""
        return [None if doc is None else message_of(doc.source) for doc in await self.get(keys, MESSAGE_ONLY)]


def message_of(doc: bytes | Raw) -> str:
    """An event's ``metadata.aux.message``; "" for records of other programs, which may not have it."""
    try:
        return msgspec.json.decode(doc, type=_Event).metadata.aux.message
    except msgspec.DecodeError:
        return ""
