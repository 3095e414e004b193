"""Judges what a run left behind: every obligation kept, once, unchanged, in the right profile, and the books balanced.

It reads through the store's and queue's ports, opened beside the running program on the same data, so the same oracle
judges any backend. Violations are collected and reported together: one lost event is a number, twenty are a pattern.
"""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tests.acceptance.load import Event, Load
from tests.acceptance.program import QUICK, Failed, until
from tracardi_lite import settings as settings_
from tracardi_lite import wiring
from tracardi_lite.ports.queue import Queue, Totals
from tracardi_lite.ports.store import Kind, Query, Store
from tracardi_lite.protocol.documents import decode_document

PAGE = 1000
SHOWN = 12
DRAIN_S = 60.0


class Oracle:
    """An open view on an installation's data, beside whatever processes run on it."""

    def __init__(self, data_dir: Path, settings: settings_.Settings | None = None) -> None:
        """``settings`` if its data are elsewhere than in the data directory."""
        self.settings = settings or settings_.load({"data_dir": str(data_dir)}, QUICK).settings

    async def __aenter__(self) -> Oracle:
        self.store: Store = await wiring.open_store(self.settings).__aenter__()
        self.queue: Queue = await wiring.open_queue(self.settings).__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.queue.__aexit__(None, None, None)
        await self.store.__aexit__(None, None, None)

    async def drained(self, within_s: float = DRAIN_S, context: Callable[[], str] = str) -> Totals:
        """Waits until nothing is pending; a backlog that does not shrink is a failure of liveness."""
        seen: list[Totals] = []

        async def empty() -> bool:
            seen[:] = [await self.queue.totals()]
            return seen[0].pending == 0

        try:
            await until("the backlog is empty", empty, within_s, context)
        except Failed as failure:
            raise Failed(f"{failure}\n{seen}") from None
        return seen[0]

    async def records(self, kind: Kind) -> list[dict[str, Any]]:
        await self.store.refresh()
        found: list[dict[str, Any]] = []
        while True:
            page = await self.store.search(kind, Query(start=len(found), limit=PAGE))
            found += [decode_document(document) for document in page.result]
            if len(page.result) < PAGE:
                return found

    async def judge(self, *loads: Load, dead_letters: int = 0, beginnings: bool = True) -> Judgement:
        """Everything that must hold once the backlog is empty. Raises ``Failed`` with all violations.

        ``beginnings=False`` where a page of stored events was destroyed: a replay brings back what clients sent, not
        what the server added when it saw it first.
        """
        totals = await self.queue.totals()
        judgement = Judgement(
            events=await self.records("event"),
            profiles=await self.records("profile"),
            sessions=await self.records("session"),
            totals=totals,
        )
        violations = list(judgement.violations(loads, beginnings=beginnings))
        if totals.dead_lettered != dead_letters:
            violations.append(f"{totals.dead_lettered} events in the dead letters, expected {dead_letters}")
        if violations:
            count = len(violations)
            shown = "\n".join(f"- {violation}" for violation in violations[:SHOWN])
            raise Failed(f"{count} violations, of {judgement} after {loads}\n{shown}")
        return judgement


class Judgement:
    """What is stored, and the rules it must obey."""

    def __init__(
        self,
        *,
        events: list[dict[str, Any]],
        profiles: list[dict[str, Any]],
        sessions: list[dict[str, Any]],
        totals: Totals,
    ) -> None:
        self.events = [event for event in events if not event["source"]["id"].startswith("@")]
        self.system = [event for event in events if event["source"]["id"].startswith("@")]
        self.profiles = {profile["id"]: profile for profile in profiles}
        self.sessions = {session["id"]: session for session in sessions}
        self.totals = totals
        self._profile_rows, self._session_rows, self._all = len(profiles), len(sessions), events

    def __repr__(self) -> str:
        stored = f"{len(self.events)} events + {len(self.system)} of the system"
        return f"{stored}, {len(self.profiles)} profiles, {len(self.sessions)} sessions, {self.totals}"

    def violations(self, loads: tuple[Load, ...], *, beginnings: bool = True) -> Iterator[str]:
        obligations = {nonce: event for load in loads for nonce, event in load.obligations.items()}
        perhaps = {nonce: event for load in loads for nonce, event in load.perhaps.items()}
        yield from (f"unexpected answer: {text}" for load in loads for text in load.unexpected)
        yield from self._exactly_once(obligations, perhaps)
        yield from self._ids_are_unique()
        yield from self._one_profile_per_session(loads)
        yield from self._counters_are_exact()
        if beginnings:
            yield from self._beginnings_are_told_once()
        yield from self._ledger_adds_up()

    def _exactly_once(self, obligations: dict[str, Event], perhaps: dict[str, Event]) -> Iterator[str]:
        stored: defaultdict[str, list[dict[str, Any]]] = defaultdict(list)
        for document in self.events:
            stored[document["properties"]["nonce"]].append(document)
        for nonce, event in obligations.items():
            copies = stored.get(nonce, [])
            if len(copies) != 1:
                yield f"{'lost' if not copies else f'stored {len(copies)} times'}: {event}"
            else:
                yield from _differences(event, copies[0])
        for nonce, copies in stored.items():
            if nonce not in obligations and nonce not in perhaps:
                yield f"never sent: {copies[0]}"
            elif len(copies) > 1 and nonce in perhaps:
                yield f"stored {len(copies)} times: {perhaps[nonce]}"

    def _ids_are_unique(self) -> Iterator[str]:
        ids = Counter(document["id"] for document in self._all)
        yield from (f"event id {id} is stored {count} times" for id, count in ids.items() if count > 1)
        if len(self.profiles) != self._profile_rows:
            yield f"{self._profile_rows} profile records for {len(self.profiles)} ids"
        if len(self.sessions) != self._session_rows:
            yield f"{self._session_rows} session records for {len(self.sessions)} ids"

    def _one_profile_per_session(self, loads: tuple[Load, ...]) -> Iterator[str]:
        of: defaultdict[str, set[str]] = defaultdict(set)
        for document in self._all:
            if document.get("session") and document.get("profile"):
                of[document["session"]["id"]].add(document["profile"]["id"])
        for id, session in self.sessions.items():
            of[id].add(session["profile"]["id"])
        for load in loads:
            for id, answered in load.profiles.items():
                of[id] |= answered
        for id, profiles in of.items():
            if len(profiles) > 1:
                yield f"session {id} has the profiles {sorted(profiles)}"
            missing = profiles - self.profiles.keys()
            if missing:
                yield f"session {id} names the profile {missing}, which is not stored"
            if id not in self.sessions:
                yield f"session {id} is not stored"

    def _counters_are_exact(self) -> Iterator[str]:
        counted = Counter(document["profile"]["id"] for document in self.events if document.get("profile"))
        for id, profile in self.profiles.items():
            counter = profile["stats"]["counters"].get("events", 0)
            if counter != counted[id]:
                yield f"profile {id} counts {counter} events and has {counted[id]}"

    def _beginnings_are_told_once(self) -> Iterator[str]:
        """The events that the server adds: one for each profile and session, and one for each visit counted."""
        told = Counter((event["type"], event["profile"]["id"], event["session"]["id"]) for event in self.system)
        created, opened, visits = Counter[str](), Counter[str](), Counter[str]()
        for (type, profile, session), count in told.items():
            created[profile] += count * (type == "profile-created")
            opened[session] += count * (type == "session-opened")
            visits[profile] += count * (type == "visit-started")
        for id, profile in self.profiles.items():
            if created[id] != 1:
                yield f"profile {id} was created {created[id]} times"
            counted = profile["metadata"]["time"]["visit"]["count"]
            if counted != visits[id]:
                yield f"profile {id} counts {counted} visits, and {visits[id]} were started"
        for id in self.sessions:
            if opened[id] != 1:
                yield f"session {id} was opened {opened[id]} times"

    def _ledger_adds_up(self) -> Iterator[str]:
        totals = self.totals
        came = totals.received + totals.replayed
        went = totals.stored + totals.duplicate + totals.rejected + totals.dead_lettered + totals.pending
        if came != went:
            yield f"the ledger does not add up: {came} came, {went} went: {totals}"
        # A replay counts again what it finds stored.
        if totals.stored != len(self.events) and not totals.replayed:
            yield f"the ledger says {totals.stored} stored, the store has {len(self.events)}"


def _differences(event: Event, document: dict[str, Any]) -> Iterator[str]:
    """Where the stored record is not what was sent and answered."""
    if document["properties"] != event.properties:
        yield f"properties differ: sent {event.properties}, stored {document['properties']}"
    if event.id is not None and document["id"] != event.id:
        yield f"sent with id {event.id}, stored with {document['id']}"
    if document["type"] != event.type:
        yield f"sent as {event.type}, stored as {document['type']}"
    if document["session"]["id"] != event.session or document["profile"]["id"] != event.profile:
        yield (
            f"answered session {event.session} and profile {event.profile}, "
            f"stored {document['session']['id']} and {document['profile']['id']}"
        )


async def settled(oracle: Oracle, *loads: Load, since: float | None = None, **expected: int) -> Judgement:
    """Drains, then judges; prints what a reader of a green run wants to know."""
    begun = time.monotonic() if since is None else since
    await oracle.drained()
    judgement = await oracle.judge(*loads, **expected)
    kept = sum(len(load.obligations) for load in loads)
    print(f"{kept} obligations kept; drained {time.monotonic() - begun:.1f} s after; {judgement}")
    return judgement
