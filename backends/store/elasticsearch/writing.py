"""A write with everything that can come of it: index gone, document that does not fit, refusals. One result per item.

Items whose index has been dropped under us are written again after it was made, once. Items that do not fit the
mapping are written again after each of ``rescue``'s steps. So an item is sent at most ``2 + rescue.STEPS`` times; those
that went well the first time (nearly all) cost nothing of it.
"""

from __future__ import annotations

from collections.abc import Sequence

import structlog
from msgspec import Struct

from tracardi_lite.backends.store.elasticsearch import mappings, rescue
from tracardi_lite.backends.store.elasticsearch.bulk import Bulk, Op, Result
from tracardi_lite.backends.store.elasticsearch.indices import Indices

log = structlog.get_logger(__name__)


class Item(Struct):
    kind: str
    partition: str
    op: Op


class Writer:
    def __init__(self, bulk: Bulk, indices: Indices) -> None:
        self._bulk = bulk
        self._indices = indices

    async def write(self, items: Sequence[Item], *, versions: bool = True) -> list[Result]:
        """In order. A result that lacks its index is of an update: there is nothing that it could update.

        Without ``versions`` those of what was written may be missing.
        """
        await self._ensure(items)
        results = await self._bulk.send([item.op for item in items], versions=versions)
        await self._after_drop(items, results)
        for step in range(1, rescue.STEPS + 1):
            if not await self._rescue(items, results, step):
                break
        return results

    async def _ensure(self, items: Sequence[Item]) -> None:
        for kind, partition, makes in dict.fromkeys(
            (item.kind, item.partition, item.op.version is None) for item in items
        ):
            if makes:
                await self._indices.ensure(kind, partition)
            else:
                # An update of what is not there shall find that out, and not make an index by the way.
                await self._indices.guard(kind)

    async def _after_drop(self, items: Sequence[Item], results: list[Result]) -> None:
        lacking = [at for at, result in enumerate(results) if result.lacks_index]
        for index in {items[at].op.index for at in lacking}:
            self._indices.forget(index)
        again = [at for at in lacking if items[at].op.version is None]
        if again:
            await self._ensure([items[at] for at in again])
            await self._replace(items, results, again)

    async def _rescue(self, items: Sequence[Item], results: list[Result], step: int) -> bool:
        again = []
        for at, result in enumerate(results):
            if result.status != 400:
                continue
            op = items[at].op
            doc = rescue.rescued(op.doc, str(result.cause), step, mappings.fields(items[at].kind))
            if doc is not None:
                op.doc = doc
                again.append(at)
        if again:
            first = again[0]
            log.warning(
                "records do not fit the index; moved to their trash what does not",
                records=len(again),
                kind=items[first].kind,
                first_id=items[first].op.id,
                first_reason=str(results[first].cause),
            )
            await self._replace(items, results, again)
        return bool(again)

    async def _replace(self, items: Sequence[Item], results: list[Result], again: Sequence[int]) -> None:
        fresh = await self._bulk.send([items[at].op for at in again])
        for at, result in zip(again, fresh, strict=True):
            results[at] = result
