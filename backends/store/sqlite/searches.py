"""A search over all files of a kind: asks each, newest first, and puts the answers together. Runs in a search thread.

Bounds: ``search.SEARCH_S`` for the whole; a page lies within the first ``DEPTH_MAX`` results, whose keys are held.
"""

from __future__ import annotations

import sqlite3
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from functools import partial
from typing import TypeVar

from tracardi_lite.backends.store.sqlite import schema, search, where
from tracardi_lite.backends.store.sqlite.connections import Connections
from tracardi_lite.errors import BadInput
from tracardi_lite.ports.store import Bar, Kind, Page, Query
from tracardi_lite.query.histogram import UNGROUPED, fill, steps, top_names

T = TypeVar("T")

DEPTH_MAX = 100_000


class Searches:
    """One query's questions to the files of one kind (names, newest first)."""

    def __init__(
        self, connections: Connections, kind: Kind, files: list[str], query: Query, closing: Callable[[], bool]
    ) -> None:
        self._connections = connections
        self._layout = schema.LAYOUTS[kind]
        self._files = files
        self._query = query
        self._deadline = search.Deadline(closing)
        self._plain = search.condition(query, self._layout)

    def total(self) -> int:
        return sum(number for _, number in self._ask(search.count))

    def page(self) -> Page:
        start, limit = self._query.start, self._query.limit
        total = self.total()
        if limit == 0 or start >= total:
            return Page(total=total, result=[])
        found: list[tuple[search.Key, str]] = []
        for file, keys in self._ask(lambda connection, wanted: search.newest(connection, wanted, start + limit)):
            found = sorted([*found, *((key, file) for key in keys)], reverse=True)[: start + limit]
        page = [(file, seq) for (_, seq), file in found[start:]]
        docs = self._documents(page)
        return Page(total=total, result=[docs[key] for key in page if key in docs])

    def _documents(self, page: list[tuple[str, int]]) -> dict[tuple[str, int], bytes]:
        seqs: dict[str, list[int]] = defaultdict(list)
        for file, seq in page:
            seqs[file].append(seq)
        docs: dict[tuple[str, int], bytes] = {}
        for file, numbers in seqs.items():
            found = self._connections.read(file, partial(search.documents, seqs=numbers))
            docs |= {(file, seq): doc for seq, doc in (found or {}).items()}
        return docs

    def histogram(self, step_ms: int, group_by: str | None, top: int) -> list[Bar]:
        first, count = steps(self._query.from_ms, self._query.to_ms, step_ms)
        if group_by is None:
            names, counts = [UNGROUPED], self._steps(first, step_ms)
        else:
            names, counts = self._grouped_steps(first, step_ms, group_by, top)
        return [Bar(at_ms, counted) for at_ms, counted in fill(first, step_ms, count, counts, names)]

    def _steps(self, first: int, step_ms: int) -> Counter[tuple[int, str]]:
        counts: Counter[tuple[int, str]] = Counter()
        for _, found in self._ask(lambda connection, wanted: search.steps(connection, wanted, first, step_ms)):
            counts.update({(step, UNGROUPED): number for step, number in found.items()})
        return counts

    def _grouped_steps(
        self, first: int, step_ms: int, field: str, top: int
    ) -> tuple[list[str], Counter[tuple[int, str]]]:
        """Twice over the files: which names are the biggest, then their steps."""
        totals: Counter[str] = Counter()
        groups: dict[str, set[search.Group]] = defaultdict(set)
        for _, found in self._ask(lambda connection, wanted: search.groups(connection, wanted, field, self._layout)):
            for group, number in found.items():
                if (name := search.group_name(group)) is not None:
                    totals[name] += number
                    groups[name].add(group)
        names = top_names(totals, top)
        among = [group for name in names for group in groups[name]]
        counts: Counter[tuple[int, str]] = Counter()
        if not among:
            return names, counts
        for _, by_step in self._ask(
            lambda connection, wanted: search.grouped_steps(
                connection, wanted, first, step_ms, field, among, self._layout
            )
        ):
            for (step, group), number in by_step.items():
                counts[step, search.group_name(group) or ""] += number
        return names, counts

    def _ask(self, question: Callable[[sqlite3.Connection, search.Condition], T]) -> Iterator[tuple[str, T]]:
        """Each file's answer; a file that was dropped meanwhile gives none."""

        def work(connection: sqlite3.Connection) -> T:
            with self._deadline.watch(connection):
                try:
                    return question(connection, self._plain)
                except sqlite3.OperationalError as error:
                    if not search.is_malformed(error):
                        raise
                return question(connection, search.condition(self._query, self._layout, where.VALID_DOC))

        for file in self._files:
            answer = self._connections.read(file, work)
            if answer is not None:
                yield file, answer


def check_depth(query: Query) -> None:
    """``BadInput`` 422 for a page that lies too deep."""
    if query.start + query.limit > DEPTH_MAX:
        raise BadInput(422, f"a page ends within the first {DEPTH_MAX} results: narrow the time or the fields")
