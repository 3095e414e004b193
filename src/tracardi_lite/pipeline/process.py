"""One batch through the pipeline: identify, load, events, fold, write; then what became of each message.

Every step may be done again. Events are create-only, records are compare-and-set and carry watermarks, entries name who
claimed them; so a crash between any two steps, or an exception out of here, is repaired by processing the messages once
more. The order is events, then sessions, then profiles: what the later ones count, the earlier ones have stored. (A
session says which messages began its visits; if profiles came first, two messages of a session that are worked on at
once could both count its first visit, or, when one dies in between, neither.)

A batch makes one look-up, one claim, one read and one write per kind, whatever its size; chunks and repetitions are
the flusher's. Bounds: ``WRITE_TRIES_MAX`` rounds of compare-and-set, ``ROUNDS_MAX`` fresh starts when records vanish
or profiles become one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, NoReturn

import structlog
from msgspec import Struct, field

from tracardi_lite.clock import Clock
from tracardi_lite.errors import BadInput, Unavailable
from tracardi_lite.flush import dead_letters
from tracardi_lite.flush.flusher import Flusher
from tracardi_lite.flush.retry import Backoff, pause
from tracardi_lite.metrics import Metrics
from tracardi_lite.partitioning import partition_of
from tracardi_lite.pipeline import apply, events, profile, system_events
from tracardi_lite.pipeline.apply import Slot
from tracardi_lite.pipeline.decode import decode
from tracardi_lite.pipeline.entries import Announced
from tracardi_lite.pipeline.event_parts import decode_object
from tracardi_lite.pipeline.identify import Partitions, identify
from tracardi_lite.pipeline.load import RecordCache, Records, profile_key, session_key
from tracardi_lite.pipeline.merging import marks
from tracardi_lite.pipeline.merging.identification import merging_of
from tracardi_lite.pipeline.merging.stage import Stage
from tracardi_lite.pipeline.rules.consents import Standing
from tracardi_lite.pipeline.type_book import TypeBook
from tracardi_lite.pipeline.work import Item, Shared, Work
from tracardi_lite.ports.cache import Cache
from tracardi_lite.ports.queue import DeadLetter, Done, Message, Tally
from tracardi_lite.ports.store import Kind, Outcome, Record, Store
from tracardi_lite.settings import Settings

log = structlog.get_logger(__name__)

# Conflicts come from messages of one session keyed by two profiles, or from a lease that moved: rare, and soon over.
WRITE_TRIES_MAX = 10
ROUNDS_MAX = 10
# The first pause after a conflict; the other writer needs one round trip to the store.
CONFLICT_BACKOFF = Backoff(first_s=0.01, longest_s=0.5)


class Unstorable(Exception):
    """A record that the store will never take, in a batch of several messages: one of them spoils it."""


class _Vanished(Exception):
    """A record that the batch worked on has been deleted: decide anew whose it is."""


class _Merged(_Vanished):
    """Profiles that the batch worked on have become one: decide anew, too."""


class Result(Struct):
    """Outcomes, ready for ``Consumer.ack``."""

    done: list[Done] = field(default_factory=list)
    letters: list[DeadLetter] = field(default_factory=list)
    events: int = 0
    dead: int = 0


class Processor:
    """The pipeline with its dependencies; shared by all lanes, each of which has a cache of its own."""

    def __init__(
        self,
        store: Store,
        cache: Cache,
        flusher: Flusher,
        settings: Settings,
        clock: Clock,
        book: TypeBook,
        metrics: Metrics,
        stop: asyncio.Event,
        on_merged: Callable[[str], None] = lambda loser: None,
    ) -> None:
        """``on_merged``: told of each profile that became part of another."""
        self._on_merged = on_merged
        self._store = store
        self._entries = Announced(store, cache)
        self._flusher = flusher
        self._settings = settings
        self._clock = clock
        self._book = book
        self._metrics = metrics
        self._stop = stop
        self._partitions = Partitions(settings.profile_partitioning, settings.session_partitioning)
        self._merging = merging_of(settings)

    async def process(self, messages: Sequence[Message], cache: RecordCache) -> Result:
        """Settle every message. Raises ``Stopped``, ``TryLater`` when others keep changing the same records, and
        whatever a faulty message makes the code raise; then nothing is settled and all of it may be tried again."""
        result = Result()
        works: list[Work] = []
        for message in messages:
            try:
                work = Work(decode(message))
            except BadInput as error:
                self.bury(result, message, str(error.detail))
                continue
            events.look(work, self._book)
            works.append(work)
        for _ in range(ROUNDS_MAX):
            try:
                await self._settle(works, cache)
                break
            except _Vanished:
                continue
        else:
            raise Unavailable("store", "records vanish, or become one, while they are written")
        for work in works:
            self._conclude(result, work)
        return result

    def bury(self, result: Result, message: Message, reason: str) -> None:
        """Give up a whole message."""
        log.error("dead_letter", stream=message.stream, position=message.position, reason=reason)
        result.letters.append(dead_letters.whole(message, reason, self._clock.now_ms()))
        result.done.append(Done(message, Tally(dead=message.events)))
        result.events += message.events
        result.dead += message.events

    async def _settle(self, works: Sequence[Work], cache: RecordCache) -> None:
        await identify(works, self._entries, self._flusher.call, self._partitions)
        records = Records(self._store, self._flusher.call, cache)
        await records.load(works)
        profiles, sessions = _slots(works, records)
        put = partial(self._flusher.put, "profile")
        stage = Stage(self._store, self._entries, self._flusher.call, put, self._merging, self._clock.now_ms())
        if await stage.see_to(profiles.values(), works):
            await self._begin_afresh(stage, cache)
        self._build(works, profiles, sessions)
        await self._create(works)
        fold_session = partial(apply.fold_session, close_after_s=self._settings.close_visit_after)
        await self._put("session", sessions.values(), records, fold_session)
        known = {slot.id: slot.doc for slot in sessions.values() if slot.doc is not None}
        await self._tell_visits(works, known)
        fold_profile = partial(
            apply.fold_profile, book=self._book, session_of=known, identification=self._merging.identification
        )

        async def claim(slots: Sequence[Slot]) -> None:
            if await stage.claim(slots):
                await self._begin_afresh(stage, cache)

        await self._put("profile", profiles.values(), records, fold_profile, claim)

    async def _begin_afresh(self, stage: Stage, cache: RecordCache) -> NoReturn:
        """Profiles have become one: what the lane knows of them is forgotten."""
        self._metrics.profiles_merged.add(count=stage.merged)
        stage.forget(cache)
        for loser in stage.losers:
            self._on_merged(loser)
        raise _Merged

    # events

    def _build(
        self,
        works: Sequence[Work],
        profiles: dict[tuple[str, str], Slot],
        sessions: dict[tuple[str, str], Slot],
    ) -> None:
        """Make the events of each message; those of a batch that starts afresh are there already."""
        visits: dict[str, int] = {}
        standings: dict[str, Standing] = {}
        for work in works:
            owner = profiles[profile_key(work)] if work.profile_entry is not None else None
            stay = sessions[session_key(work)] if work.session_entry is not None else None
            known = owner.doc if owner is not None else None
            owner_doc = apply.open_profile(owner, work) if owner is not None else None
            stay_doc = apply.open_session(stay, work) if stay is not None else None
            if work.shared is not None:
                self._announce(work, work.shared)
                continue
            count = 0
            if owner is not None and owner_doc is not None:
                count = visits.setdefault(owner.id, profile.visit_count(owner_doc))
                if work.opens_session and not (known is not None and owner.knows(work)):
                    count = visits[owner.id] = count + 1
            work.shared = events.share(
                work,
                session=stay_doc,
                primary_id=owner_doc["primary_id"] if owner_doc is not None else None,
                visits=count,
                context=decode_object(work.session_context) if stay_doc is None else None,
                partition=partition_of(self._settings.event_partitioning, work.incoming.head.received_ms),
            )
            standing = None
            if self._book.rules.guards_consents and owner is not None:
                standing = standings.setdefault(owner.id, Standing(owner_doc))
            events.build(work, self._book, work.shared, standing)
            self._announce(work, work.shared)

    def _announce(self, work: Work, shared: Shared) -> None:
        """Add the system events that are certain before the store has spoken."""
        if not (self._settings.system_events and work.saves_events):
            return
        if any(item.type == system_events.VISIT_ENDED for item in work.items):
            return
        if work.opens_profile:
            _add(work, system_events.profile_created(work, self._book, shared))
        if work.opens_session:
            _add(work, system_events.session_opened(work, self._book, shared))
            _add(work, system_events.visit_started(work, 1, self._book, shared))

    async def _create(self, works: Sequence[Work]) -> None:
        """Write all events that have no verdict yet."""
        waiting = [
            (item, item.write)
            for work in works
            for items in (work.items, work.system)
            for item in items
            if item.write is not None and item.verdict is None
        ]
        if not waiting:
            return
        verdicts = await self._flusher.create([write for _, write in waiting])
        for (item, _), verdict in zip(waiting, verdicts, strict=True):
            item.verdict = verdict
            if item.index < 0:
                self._note_system(item)
            elif item.touch is not None and not item.touch.valid and verdict.outcome is Outcome.STORED:
                self._metrics.events_invalid.add()

    def _note_system(self, item: Item) -> None:
        assert item.verdict is not None
        if item.verdict.outcome is Outcome.STORED:
            self._metrics.system_events_stored.add()
        elif item.verdict.outcome is Outcome.NEVER:
            log.error("system_event_lost", type=item.type, id=item.id, reason=item.verdict.reason)

    async def _tell_visits(self, works: Sequence[Work], sessions: Mapping[str, dict[str, Any]]) -> None:
        """Tell of the visits after a session's first: which message begins one is known when the session is stored."""
        if not self._settings.system_events:
            return
        for work in works:
            if work.session_id is None or work.shared is None or not work.saves_events:
                continue
            ordinal = apply.begun_visit(sessions.get(work.session_id), work)
            if ordinal > 1:
                _add(work, system_events.visit_started(work, ordinal, self._book, work.shared))
        await self._create(works)

    # records

    async def _put(
        self,
        kind: Kind,
        slots: Iterable[Slot],
        records: Records,
        fold: Callable[[Slot], None],
        claim: Callable[[Sequence[Slot]], Awaitable[None]] | None = None,
    ) -> None:
        """Fold the messages into their records and write what has changed; what somebody else changed meanwhile is
        read and folded again. ``claim`` comes between the two."""
        waiting = list(slots)
        for attempt in range(WRITE_TRIES_MAX):
            if attempt:
                if kind == "profile":
                    self._metrics.profile_conflicts.add(len(waiting))
                await pause(self._stop, self._clock, CONFLICT_BACKOFF.pause_s(attempt))
                await self._refresh(kind, waiting, records)
            for slot in waiting:
                fold(slot)
            waiting = [slot for slot in waiting if slot.dirty]
            if claim is not None:
                await claim(waiting)
            writes = [slot.write() for slot in waiting]
            verdicts = await self._flusher.put(kind, writes)
            stale = []
            for slot, write, verdict in zip(waiting, writes, verdicts, strict=True):
                if verdict.outcome is Outcome.STORED:
                    slot.record = Record(slot.id, slot.partition, write.doc, verdict.version)
                    slot.dirty = False
                    records.stored(kind, slot.record)
                elif verdict.outcome is Outcome.CONFLICT:
                    stale.append(slot)
                else:
                    _give_up(slot, verdict.reason)
            waiting = stale
            if not waiting:
                return
        raise Unavailable("store", f"a {kind} changes faster than it can be written")

    async def _refresh(self, kind: Kind, stale: Sequence[Slot], records: Records) -> None:
        await records.reload(kind, [(slot.id, slot.partition) for slot in stale])
        known = records.profiles if kind == "profile" else records.sessions
        for slot in stale:
            record = known[slot.id, slot.partition]
            if record is None:
                raise _Vanished
            slot.restart(record)
            if kind == "profile" and slot.doc is not None and marks.into(slot.doc) is not None:
                raise _Merged

    # outcomes

    def _conclude(self, result: Result, work: Work) -> None:
        message = work.incoming.message
        if work.dead:
            self.bury(result, message, work.dead)
            return
        now_ms = self._clock.now_ms()
        deaths = [
            (item.index, item.verdict.reason)
            for item in work.items
            if item.verdict is not None and item.verdict.outcome is Outcome.NEVER
        ]
        if deaths:
            log.error("dead_letter", message=work.incoming.head.id, events=len(deaths), reason=deaths[0][1])
            result.letters += dead_letters.some(message, deaths, now_ms)
        if work.lost:
            # Its events and profile are stored, so that a replay must not count them: the letter holds none.
            log.error("dead_letter", message=work.incoming.head.id, events=0, reason=work.lost)
            result.letters.append(dead_letters.none(message, work.lost, now_ms))
        result.done.append(Done(message, work.tally()))
        result.events += message.events
        result.dead += len(deaths)


def _slots(works: Sequence[Work], records: Records) -> tuple[dict[tuple[str, str], Slot], dict[tuple[str, str], Slot]]:
    """The records to work on, each with its messages in order."""
    profiles: dict[tuple[str, str], Slot] = {}
    sessions: dict[tuple[str, str], Slot] = {}
    for work in works:
        work.opens_profile = work.opens_session = False
        if work.profile_entry is not None:
            key = profile_key(work)
            if key not in profiles:
                profiles[key] = Slot.of("profile", key, records.profiles[key])
            profiles[key].works.append(work)
        if work.session_entry is not None:
            key = session_key(work)
            if key not in sessions:
                sessions[key] = Slot.of("session", key, records.sessions[key])
            sessions[key].works.append(work)
    return profiles, sessions


def _add(work: Work, event: Item) -> None:
    """Add a system event, unless the message has it from before a fresh start."""
    if all(known.id != event.id for known in work.system):
        work.system.append(event)


def _give_up(slot: Slot, reason: str) -> None:
    """A record that can't be stored with these messages in it. One message is at fault; alone, it dies."""
    stored = Slot.of(slot.kind, (slot.id, slot.partition), slot.record)
    guilty = [work for work in slot.works if not stored.knows(work)]
    if len(guilty) > 1:
        raise Unstorable(f"{slot.kind} {slot.id}: {reason}")
    for work in guilty:
        if slot.kind == "profile":
            work.dead = f"profile: {reason}"
        else:
            work.lost = f"session: {reason}"
    slot.dirty = False
