"""Creating events: create-only, and a word about those that are there already.

A create that meets an id (409) asks in real time which message brought it: this one, before a crash (SAME), or another
(EXISTS). An id of a client's is looked for in the partition before, too, so that a retry over midnight stays one event;
two such calls in the same moment may both find nothing there, which takes a client that sends one event twice at once,
at the turn of a partition.

Events with one id within a call are judged here, without asking: the first is written, the others learn of it.
"""

from __future__ import annotations

from collections.abc import Sequence

from tracardi_lite import partitioning
from tracardi_lite.backends.store.elasticsearch.bulk import Op, Result
from tracardi_lite.backends.store.elasticsearch.mappings import ID_BYTES_MAX
from tracardi_lite.backends.store.elasticsearch.names import Names
from tracardi_lite.backends.store.elasticsearch.reading import Reader
from tracardi_lite.backends.store.elasticsearch.writing import Item, Writer
from tracardi_lite.ports.store import EXISTS, SAME, STORED, EventWrite, Outcome, Verdict


class Events:
    def __init__(self, writer: Writer, reader: Reader, names: Names) -> None:
        self._writer = writer
        self._reader = reader
        self._names = names

    async def create(self, events: Sequence[EventWrite]) -> list[Verdict]:
        verdicts: dict[int, Verdict] = {}
        holders: dict[int, str] = {}
        """By place: which message's event the store holds now."""
        open_places = list(range(len(events)))
        while open_places:
            firsts, followers = _firsts(events, open_places)
            await self._create(events, firsts, verdicts, holders)
            open_places = []
            for at, first in followers.items():
                if verdicts[first].outcome is Outcome.NEVER:
                    open_places.append(at)  # the first is out of the way, and this one may be better
                elif first in holders:
                    verdicts[at] = SAME if holders[first] == events[at].message else EXISTS
                else:
                    verdicts[at] = verdicts[first]
        return [verdicts[at] for at in range(len(events))]

    async def _create(
        self, events: Sequence[EventWrite], places: Sequence[int], verdicts: dict[int, Verdict], holders: dict[int, str]
    ) -> None:
        """Judge events of different ids."""
        unusable = {partition for partition in {e.partition for e in events} if not partitioning.is_name(partition)}
        for at in places:
            event = events[at]
            if event.partition in unusable:
                verdicts[at] = Verdict(Outcome.NEVER, f"not a partition's name: {event.partition!r}")
            elif reason := unusable_id(event.id):
                verdicts[at] = Verdict(Outcome.NEVER, reason)
        places = [at for at in places if at not in verdicts]
        foreign = [at for at in places if events[at].foreign_id]
        await self._judge_present(
            events, foreign, [partitioning.previous(events[at].partition) for at in foreign], verdicts, holders
        )
        places = [at for at in places if at not in verdicts]
        if not places:
            return
        results = await self._writer.write(self._items([events[at] for at in places]), versions=False)
        taken: list[int] = []
        for at, result in zip(places, results, strict=True):
            if result.is_done:
                verdicts[at] = STORED
                holders[at] = events[at].message
            elif result.status == 409:
                taken.append(at)
            else:
                verdicts[at] = failed(result)
        await self._judge_present(events, taken, [events[at].partition for at in taken], verdicts, holders)
        for at in taken:
            if at not in verdicts:
                verdicts[at] = Verdict(Outcome.RETRY, "it was there, and was gone when looked at")

    async def _judge_present(
        self,
        events: Sequence[EventWrite],
        places: Sequence[int],
        partitions: Sequence[str],
        verdicts: dict[int, Verdict],
        holders: dict[int, str],
    ) -> None:
        """Judge those that are in the partitions that are given with them."""
        keys = [
            (self._names.index("event", partition), events[at].id)
            for at, partition in zip(places, partitions, strict=True)
        ]
        if not keys:
            return
        for at, message in zip(places, await self._reader.messages(keys), strict=True):
            if message is not None:
                verdicts[at] = SAME if message == events[at].message else EXISTS
                holders[at] = message

    def _items(self, events: Sequence[EventWrite]) -> list[Item]:
        indices = {partition: self._names.index("event", partition) for partition in {e.partition for e in events}}
        return [
            Item("event", event.partition, Op(indices[event.partition], event.id, "create", event.doc))
            for event in events
        ]


def failed(result: Result) -> Verdict:
    """The verdict of a write that was neither done nor a conflict."""
    return Verdict(Outcome.RETRY if result.is_passing or result.lacks_index else Outcome.NEVER, result.reason)


def unusable_id(id: str) -> str:
    """Why Elasticsearch can't hold the id; "" if it can. One such id would have a whole bulk refused."""
    if 0 < 4 * len(id) <= ID_BYTES_MAX:
        return ""  # whatever its characters are
    size = len(id.encode("utf-8", "surrogatepass"))
    return "" if 0 < size <= ID_BYTES_MAX else f"an id has 1 to {ID_BYTES_MAX} bytes, this one {size}"


def _firsts(events: Sequence[EventWrite], places: Sequence[int]) -> tuple[list[int], dict[int, int]]:
    """Of each id the first place, and for every other place the first one of its id."""
    seen: dict[tuple[str, str], int] = {}
    firsts: list[int] = []
    followers: dict[int, int] = {}
    for at in places:
        event = events[at]
        first = seen.get((event.partition, event.id))
        if first is None and event.foreign_id and partitioning.is_name(event.partition):
            first = seen.get((partitioning.previous(event.partition), event.id))
        if first is None:
            firsts.append(at)
            seen[event.partition, event.id] = at
        else:
            followers[at] = first
    return firsts, followers
