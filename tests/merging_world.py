"""A world of workers that merge profiles, stepped by hand: no loop, no clock, one store call at a time.

``explore(seed)`` makes a small story (who sends what), lets two or three workers live through it in an order that the
seed decides, kills and pauses them on the way, and judges what is left. Everything is the program's own pipeline on the
memory store; only time and the queue are the world's. A run is repeated exactly by its seed.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
import random
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Coroutine, Generator, Iterator, Sequence
from typing import Any, TypeVar

import msgspec
import structlog
from msgspec import Struct, field

from tracardi_lite.backends.cache.memory import MemoryCache
from tracardi_lite.backends.store.memory import MemoryStore
from tracardi_lite.errors import TryLater
from tracardi_lite.flush.flusher import Flusher
from tracardi_lite.flush.health import WorkerHealth
from tracardi_lite.flush.retry import Backoff
from tracardi_lite.metrics import Metrics
from tracardi_lite.pipeline import process
from tracardi_lite.pipeline.event_types import EventTypes
from tracardi_lite.pipeline.load import RecordCache
from tracardi_lite.pipeline.merging import marks
from tracardi_lite.pipeline.merging.keys import MERGE_KEYS, key_hash
from tracardi_lite.pipeline.process import Processor
from tracardi_lite.pipeline.type_book import TypeBook
from tracardi_lite.ports.queue import Message
from tracardi_lite.ports.store import Query, Store
from tracardi_lite.protocol.envelope import Head, encode_head
from tracardi_lite.settings import Settings

T = TypeVar("T")
NOW_MS = 1_800_000_000_000
SETTINGS = Settings(system_events=False)
STEPS_MAX = 20_000
"""Far more than any story takes: a run that gets there goes in circles."""

_decode = msgspec.json.Decoder(dict[str, Any]).decode
_EVENT_TYPES = EventTypes()
_STEPPED = frozenset({"create_events", "put", "get", "lookup", "claim", "repoint", "search"})


class Standing:
    """A clock that stands still."""

    def now_ms(self) -> int:
        return NOW_MS

    def monotonic(self) -> float:
        return 0.0

    async def sleep(self, seconds: float) -> None:
        await step()


class _Step:
    def __await__(self) -> Generator[None, None, None]:
        yield


async def step() -> None:
    """Give way to the scheduler."""
    await _Step()


async def no_pause(stop: asyncio.Event, clock: object, seconds: float) -> None:
    """Takes the place of ``process.pause``: the scheduler decides how long."""
    await step()


class SteppedStore:
    """Gives way before each call. What the caller does between two calls nobody else can see, so that this is every
    interleaving that matters; a crash "after the call" is one before the next."""

    def __init__(self, store: Store) -> None:
        self._store = store

    def __getattr__(self, name: str) -> Any:
        act = getattr(self._store, name)
        if name not in _STEPPED:
            return act

        async def stepped(*args: Any) -> Any:
            await step()
            return await act(*args)

        # Found by the attribute itself from now on.
        setattr(self, name, stepped)
        return stepped


# --- the story ---


class Call(Struct):
    """One message of the story."""

    number: int
    profile: str
    session: str
    issued: bool
    events: list[dict[str, Any]]
    passed: str | None = None
    world: str = ""
    """Begins all ids of the story."""

    def message(self, stream: str, position: int) -> Message:
        at_ms = NOW_MS + self.number * 1000
        head = Head(
            id=f"{self.world}m{self.number}",
            received_ms=at_ms,
            source="default",
            session=self.session,
            profile=self.profile,
            issued=self.issued,
            passed=self.passed,
        )
        body = json.dumps({"source": {"id": "default"}, "events": self.events}).encode()
        return Message(self.profile, encode_head(head), body, len(self.events), stream, (position,), at_ms)


EMAILS = ("main", "private", "business")


def story(draw: random.Random, world: str) -> list[Call]:
    """Two to four people of few e-mail addresses, so that they turn out to be fewer."""
    people = [f"{world}p{n}" for n in range(draw.randint(2, 4))]
    values = [f"{world}v{n}@x" for n in range(draw.randint(1, 3))]
    calls = []
    for number in range(draw.randint(3, 8)):
        person = draw.choice(people)
        issued = draw.random() < 0.2
        events = [_event(draw, values) for _ in range(draw.randint(1, 2))]
        calls.append(
            Call(
                number,
                f"{world}i{number}" if issued else person,
                f"s-{person}",
                issued,
                events,
                draw.choice(people) if draw.random() < 0.1 else None,
                world,
            )
        )
    return calls


def _event(draw: random.Random, values: Sequence[str]) -> dict[str, Any]:
    kind = draw.random()
    if kind < 0.6:
        return {"type": "sign-up", "properties": {"email": {draw.choice(EMAILS[:2]): draw.choice(values)}}}
    if kind < 0.8:
        return {"type": "increase-interest", "properties": {"interest": "tea", "value": 1}}
    return {"type": "page-view"}


# --- the world ---


class Crew(Struct, eq=False):
    """A worker: the streams that it holds, and what it does now."""

    name: str
    streams: list[str]
    process: Processor
    cache: RecordCache = field(default_factory=RecordCache)
    running: Coroutine[Any, Any, None] | None = None
    batch: list[Message] = field(default_factory=list)


class _Zombie(Struct, eq=False):
    """A worker that has lost its streams while it was paused, and goes on."""

    name: str
    running: Coroutine[Any, Any, None]


class World:
    """``store``: one that never waits. Several worlds may share one, if each has a ``name`` of its own."""

    def __init__(self, seed: int, store: Store | None = None, name: str = "") -> None:
        self.draw = random.Random(seed)
        self.calls = story(self.draw, name)
        self.store = store or MemoryStore()
        self._name = name
        self.trace: list[str] = []
        """Every choice of the scheduler: two runs with the same are the same."""
        self._stepped = SteppedStore(self.store)
        self._clock = Standing()
        self._metrics = Metrics()
        self._logs: dict[str, list[Message]] = defaultdict(list)
        for call in self.calls:
            # A stream of its own for each routing key: everything may happen at once.
            log = self._logs[call.profile]
            log.append(call.message(f"t/{call.profile}", len(log)))
        self._cursors = dict.fromkeys(self._logs, 0)
        count = self.draw.randint(2, 3)
        self._crews = [Crew(f"w{n}", [], self._processor()) for n in range(count)]
        for key in self._logs:
            self.draw.choice(self._crews).streams.append(key)
        self._zombies: list[_Zombie] = []
        # How long one goes on while the others stand: from fair turns to sleeps of whole merges.
        self._sticky = self.draw.choice((0.0, 0.5, 0.9, 0.97))
        self.crashes = self.pauses = 0
        self._faults_left = self.draw.choice((0, 0, 1, 2, 4))

    def _processor(self) -> Processor:
        stop = asyncio.Event()
        flusher = Flusher(
            self._stepped,
            self._clock,
            _BACKOFF,
            WorkerHealth(),
            self._metrics,
            stop,
            events=500,
            bytes=1 << 20,
        )
        cache = MemoryCache(10, self._clock)
        return Processor(
            self._stepped, cache, flusher, SETTINGS, self._clock, TypeBook(_EVENT_TYPES), self._metrics, stop
        )

    def run(self) -> None:
        """Until everything is acknowledged and nobody does anything."""
        last: Crew | _Zombie | None = None
        for _ in range(STEPS_MAX):
            able: list[Crew | _Zombie] = [c for c in self._crews if c.running is not None or self._has_work(c)]
            able += self._zombies
            if not able:
                return
            if last not in able or self.draw.random() >= self._sticky:
                last = self.draw.choice(able)
            assert last is not None
            if isinstance(last, Crew):
                self._step(last)
            else:
                self._step_zombie(last)
        raise AssertionError("the workers go in circles")

    def _has_work(self, crew: Crew) -> bool:
        return any(self._cursors[key] < len(self._logs[key]) for key in crew.streams)

    def _step(self, crew: Crew) -> None:
        if crew.running is None:
            self._take(crew)
        elif self._faults_left and self.draw.random() < 0.06:
            self._faults_left -= 1
            if self.draw.random() < 0.6:
                self.trace.append(f"{crew.name}!")
                self.crashes += 1
                crew.running.close()
            else:
                # Its leases have gone to a new one, and it does not know.
                self.trace.append(f"{crew.name}~")
                self.pauses += 1
                self._zombies.append(_Zombie(f"{crew.name}z{self.pauses}", crew.running))
            crew.running, crew.cache, crew.process = None, RecordCache(), self._processor()
            return
        assert crew.running is not None
        self.trace.append(crew.name)
        if _advance(crew.running):
            return
        for message in crew.batch:
            self._cursors[message.key] = message.position[0] + 1
        crew.running = None

    def _take(self, crew: Crew) -> None:
        batch: list[Message] = []
        keys = [key for key in crew.streams if self._cursors[key] < len(self._logs[key])]
        self.draw.shuffle(keys)
        for key in keys[: self.draw.randint(1, len(keys))]:
            start = self._cursors[key]
            batch += self._logs[key][start : start + self.draw.randint(1, 3)]
        crew.batch = batch
        crew.running = _work(crew.process, batch, crew.cache)

    def _step_zombie(self, zombie: _Zombie) -> None:
        self.trace.append(zombie.name)
        if not _advance(zombie.running):
            # Its acknowledgement comes too late to count.
            self._zombies.remove(zombie)

    # --- the judgement ---

    def judge(self) -> None:
        problems = list(Verdict(self.calls, _now(_everything(self.store, self._name)), self.entry).problems())
        assert not problems, "\n".join(problems)

    @property
    def merged(self) -> int:
        """How many merges were begun and came to an end."""
        return self._metrics.profiles_merged.value

    def entry(self, key: str) -> Any:
        return _now(self.store.lookup([key]))[0]


class Everything(Struct):
    events: list[dict[str, Any]]
    profiles: dict[str, dict[str, Any]]


async def _everything(store: Store, world: str) -> Everything:
    await store.refresh()
    events = [_decode(doc) for doc in (await store.search("event", Query(limit=1000))).result]
    profiles = [_decode(doc) for doc in (await store.search("profile", Query(limit=1000))).result]
    return Everything(
        [event for event in events if event["metadata"]["aux"]["message"].startswith(world)],
        {profile["id"]: profile for profile in profiles if profile["id"].startswith(world)},
    )


class Verdict:
    """What must hold of a world in which everything has come to an end."""

    def __init__(self, calls: Sequence[Call], all: Everything, entry: Callable[[str], Any]) -> None:
        self._calls = calls
        self._all = all
        self._entry = entry
        self.living = {id: doc for id, doc in all.profiles.items() if marks.into(doc) is None}

    def problems(self) -> Iterator[str]:
        yield from self._records()
        yield from self._counts()
        yield from self._ids()
        yield from self._people()
        yield from self._keys()

    def resolve(self, id: str) -> str:
        for _ in range(8):
            entry = self._entry(f"p:{id}")
            if entry is None or entry.target == id:
                return id
            id = entry.target
        raise AssertionError(f"{id} leads nowhere")

    def _records(self) -> Iterator[str]:
        for id, doc in self._all.profiles.items():
            into = marks.into(doc)
            if into is None:
                if self.resolve(id) != id:
                    yield f"{id} has a living record and is an alias of {self.resolve(id)}"
            elif not into.stub:
                yield f"{id} was left in the middle of its merging"
            elif self.resolve(id) not in self.living:
                yield f"{id} was merged into {self.resolve(id)}, which is not there"

    def _counts(self) -> Iterator[str]:
        events = Counter(self.resolve(event["profile"]["id"]) for event in self._all.events)
        total = sum(len(call.events) for call in self._calls)
        if len(self._all.events) != total:
            yield f"{total} events were sent, {len(self._all.events)} are stored"
        views = Counter(self.resolve(e["profile"]["id"]) for e in self._all.events if e["type"] == "page-view")
        teas = Counter(self.resolve(e["profile"]["id"]) for e in self._all.events if e["type"] == "increase-interest")
        visits: dict[str, set[str]] = defaultdict(set)
        for event in self._all.events:
            id = event["profile"]["id"]
            visits[self.resolve(id)].add(event["session"]["id"])
            if (doc := self.living.get(self.resolve(id))) is not None and id not in doc["ids"]:
                yield f"{doc['id']} has an event of {id}, and does not list it"
        for id in set(events) | set(self.living):
            doc = self.living.get(id)
            if doc is None:
                yield f"{events[id]} events belong to {id}, which is no living profile"
                continue
            says = doc["stats"]["counters"]["events"], doc["stats"]["views"], doc["interests"].get("tea", 0)
            if says != (events[id], views[id], teas[id]):
                yield f"{id} says {says} and has {events[id], views[id], teas[id]}"
            if doc["metadata"]["time"]["visit"]["count"] != len(visits[id]):
                yield f"{id} counts {doc['metadata']['time']['visit']} and has the sessions {sorted(visits[id])}"

    def _ids(self) -> Iterator[str]:
        for call in self._calls:
            survivor = self.resolve(call.profile)
            if call.issued and survivor not in self.living:
                yield f"{call.profile} was issued and means {survivor}, which is no living profile"

    def _people(self) -> Iterator[str]:
        """Who shares a session or an address is one, and nobody else is (but those that another domain handed over)."""
        owners: dict[int, str] = {}
        for event in self._all.events:
            number = int(event["metadata"]["aux"]["message"].rpartition("m")[2])
            owners.setdefault(number, self.resolve(event["profile"]["id"]))
            if owners[number] != self.resolve(event["profile"]["id"]):
                yield f"m{number} belongs to two"
        must, may = _Parts(), _Parts()
        for call in self._calls:
            for parts in (must, may):
                for link in (call.session, *_addresses(call)):
                    parts.join(call.number, link)
            if call.passed is not None:
                may.join(call.number, f"s-{call.passed}")
        for one, other in itertools.combinations(sorted(owners), 2):
            same = owners[one] == owners[other]
            if must.are_one(one, other) and not same:
                yield f"m{one} and m{other} are of one person: {owners[one]}, {owners[other]}"
            if same and not may.are_one(one, other):
                yield f"m{one} and m{other} are of two people, both {owners[one]}"

    def _keys(self) -> Iterator[str]:
        for call in self._calls:
            for address in _addresses(call):
                prefix, value = address.split(":", 1)
                key = key_hash(SETTINGS.auto_profile_merging, prefix, value)
                entry = self._entry(f"k:{key}")
                if entry is None:
                    yield f"nobody has {address}"
                    continue
                doc = self.living.get(self.resolve(entry.target))
                if doc is None or key not in doc["ids"]:
                    yield f"{address} is {entry.target}'s, who does not know it"


class _Parts:
    """Union-find."""

    def __init__(self) -> None:
        self._above: dict[object, object] = {}

    def _top(self, node: object) -> object:
        while (above := self._above.get(node, node)) != node:
            node = above
        return node

    def join(self, one: object, other: object) -> None:
        self._above[self._top(one)] = self._top(other)

    def are_one(self, one: object, other: object) -> bool:
        return self._top(one) == self._top(other)


def _addresses(call: Call) -> list[str]:
    prefixes = {path[-1]: prefix for prefix, path in MERGE_KEYS.items() if path[2] == "email"}
    return [
        f"{prefixes[place]}:{value}"
        for event in call.events
        for place, value in event.get("properties", {}).get("email", {}).items()
    ]


# --- running without a loop ---


async def _work(processor: Processor, batch: Sequence[Message], cache: RecordCache) -> None:
    """As a lane does: what others keep from being settled is tried again."""
    while True:
        try:
            result = await processor.process(batch, cache)
        except TryLater:
            await step()
            continue
        assert not result.letters, [letter.reason for letter in result.letters]
        # The acknowledgement.
        await step()
        return


def _advance(running: Coroutine[Any, Any, None]) -> bool:
    """To its next call of the store; whether it goes on."""
    try:
        running.send(None)
    except StopIteration:
        return False
    return True


def _now(act: Awaitable[T]) -> T:
    """The result of what never waits."""
    running = act.__await__()
    try:
        next(running)
    except StopIteration as end:
        result: T = end.value
        return result
    raise AssertionError("it waits")


_BACKOFF = Backoff(0.0, 0.0)


class Bridge:
    """A store that waits, for callers that have no loop: each call runs the store's own to its end."""

    def __init__(self, store: Store, loop: asyncio.AbstractEventLoop) -> None:
        self._store = store
        self._loop = loop

    def __getattr__(self, name: str) -> Any:
        act = getattr(self._store, name)

        async def bridged(*args: Any) -> Any:
            return self._loop.run_until_complete(act(*args))

        return bridged


def explore(seed: int, store: Store | None = None, name: str = "") -> World:
    """One story, one order of events; raises AssertionError with the seed when anything is not as it must be."""
    world = World(seed, store, name)
    try:
        world.run()
        world.judge()
    except BaseException as error:
        error.add_note(f"explore({seed}): {len(world.trace)} steps, {world.crashes} crashes, {world.pauses} pauses")
        raise
    return world


def explore_many(first: int, count: int) -> tuple[int, int, int]:
    """In a process of its own. (merges, crashes, pauses)"""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    process.pause = no_pause  # type: ignore[assignment]
    merged = crashes = pauses = 0
    for seed in range(first, first + count):
        world = explore(seed)
        merged += world.merged
        crashes += world.crashes
        pauses += world.pauses
    return merged, crashes, pauses
