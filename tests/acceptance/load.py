"""Load with a memory: what was answered is an obligation, what was not is a perhaps.

Every event carries a nonce, so that the oracle can tell each of them apart whatever ids the server gives. A post whose
events have ids made here may be sent again when no answer came: whatever became of the first try, each of its events
must then be stored exactly once. A post whose events get their ids from the server is sent once; without an answer its
events may be stored once or not at all, and nothing more is asked of them.
"""

from __future__ import annotations

import asyncio
import random
import time
import uuid
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import aiohttp

PAUSE_S = 0.02
"""Between a failed try and the next: the server is away or full."""
ANSWER_S = 20.0
"""No answer may take longer; one that does is an error of its own (``Load.unexpected``)."""


RETURNING = 0.15
"""The part of the posts that come from a known profile in a new session."""


@dataclass(slots=True)
class Event:
    """One event that was sent, and what is known of it."""

    nonce: str
    type: str
    properties: dict[str, Any]
    id: str | None
    session: str | None = None
    profile: str | None = None
    """As answered; None while it is not."""
    task: str = ""


@dataclass(repr=False)
class Load:
    """Posts events over ``connections`` connections until stopped; remembers all of them.

    ``bases`` gives the addresses to send to, asked before each post, since a restarted server may have another.
    """

    bases: Callable[[], Sequence[str]]
    seed: int
    connections: int = 12
    sessions: int = 40
    sizes: Sequence[int] = (1, 1, 1, 2, 5, 20)
    pause_s: float = 0.0
    """Between one connection's posts."""
    source: str = "default"
    obligations: dict[str, Event] = field(default_factory=dict)
    perhaps: dict[str, Event] = field(default_factory=dict)
    statuses: Counter[int] = field(default_factory=Counter)
    refusals: list[tuple[int, str | None, float]] = field(default_factory=list)
    """Status, Retry-After and seconds taken of each answer that is no success."""
    unexpected: list[str] = field(default_factory=list)
    profiles: dict[str, set[str]] = field(default_factory=dict)
    """Per session, every profile id that was answered."""

    def __repr__(self) -> str:
        answers = dict(self.statuses)
        return f"Load of {len(self.obligations)} obligations, {len(self.perhaps)} perhaps, answers {answers}"

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)
        self._names = [f"session-{self.seed}-{number}" for number in range(self.sessions)]
        self._visits = 0
        self._stop = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> Load:
        timeout = aiohttp.ClientTimeout(total=ANSWER_S)
        self._http = aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0), timeout=timeout)
        self._stop.clear()
        self._tasks = [asyncio.create_task(self._connection()) for _ in range(self.connections)]
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def stop(self) -> None:
        """Lets posts that are under way finish, or fail, and ends."""
        self._stop.set()
        try:
            await asyncio.gather(*self._tasks)
        finally:
            for task in self._tasks:
                task.cancel()
            await self._http.close()

    async def answered(self, more: int, within_s: float = 30.0) -> None:
        """Waits until that many more events have become obligations."""
        goal = len(self.obligations) + more
        deadline = time.monotonic() + within_s
        while len(self.obligations) < goal:
            for task in self._tasks:
                if task.done():
                    task.result()
            assert time.monotonic() < deadline, f"only {len(self.obligations)} of {goal} events answered: {self}"
            await asyncio.sleep(0.01)

    async def _connection(self) -> None:
        while not self._stop.is_set():
            await self._post_one()
            if self.pause_s:
                await asyncio.sleep(self.pause_s)

    async def _post_one(self) -> None:
        random_ = self._random
        own_ids = random_.random() < 0.5
        # Without a session the server makes one, another with each try: so only what is sent once may come without.
        session = random_.choice(self._names) if own_ids or random_.random() < 0.8 else None
        events = [make_event(random_, own_ids) for _ in range(random_.choice(list(self.sizes)))]
        returning = self._returning() if session is not None and random_.random() < RETURNING else None
        if returning is not None:
            self._visits += 1
            session = f"visit-{self.seed}-{self._visits}"
        body = self._body(session, returning, events)
        self.perhaps |= {event.nonce: event for event in events}
        while True:
            refused = False
            try:
                refused = await self._try(body, session, returning, events)
            except aiohttp.ClientConnectorError:
                refused = True  # nobody took it
            except (aiohttp.ClientError, TimeoutError, OSError) as error:
                if isinstance(error, TimeoutError):
                    self.unexpected.append(f"no answer within {ANSWER_S:g} s")
                if not own_ids:
                    return
                refused = True  # perhaps it was taken; the ids make a second try harmless
            # A 503 may still have become durable, so ids of the server's making are not tried again after it either.
            if not refused or not own_ids or self._stop.is_set():
                return
            await asyncio.sleep(PAUSE_S)

    async def _try(self, body: dict[str, Any], session: str | None, returning: str | None, events: list[Event]) -> bool:
        """Whether it was refused for now."""
        begun = time.monotonic()
        base = self._random.choice(list(self.bases()))
        async with self._http.post(f"{base}/track", json=body) as answer:
            status = answer.status
            self.statuses[status] += 1
            if status in (429, 503):
                self.refusals.append((status, answer.headers.get("Retry-After"), time.monotonic() - begun))
                return True
            if status != 200:
                self.unexpected.append(f"{status}: {await answer.text()}")
                return False
            said = await answer.json()
        if said["errors"]:
            self.unexpected.append(f"errors: {said['errors']}")
        answered_session, profile = said["session"]["id"], said["profile"]["id"]
        if session is not None and answered_session != session:
            self.unexpected.append(f"sent session {session}, answered {answered_session}")
        if returning is not None and profile != returning:
            self.unexpected.append(f"sent profile {returning}, which was issued, and answered {profile}")
        self.profiles.setdefault(answered_session, set()).add(profile)
        for event in events:
            event.session, event.profile, event.task = answered_session, profile, said["task"]
            self.obligations[event.nonce] = event
            del self.perhaps[event.nonce]
        return False

    def _returning(self) -> str | None:
        """A profile that was answered before, whose owner comes back with a new session."""
        sessions = [session for session in self._names if session in self.profiles]
        return min(self.profiles[self._random.choice(sessions)]) if sessions else None

    def _body(self, session: str | None, returning: str | None, events: list[Event]) -> dict[str, Any]:
        body: dict[str, Any] = {"source": {"id": self.source}, "events": [as_sent(event) for event in events]}
        if session is not None:
            body["session"] = {"id": session}
            profile = returning or min(self.profiles.get(session, ()), default=None)
            if profile is not None and (returning or self._random.random() < 0.5):
                body["profile"] = {"id": profile}
        return body


def as_sent(event: Event) -> dict[str, Any]:
    sent: dict[str, Any] = {"type": event.type, "properties": event.properties}
    return sent if event.id is None else {"id": event.id, **sent}


def make_event(random_: random.Random, own_id: bool) -> Event:
    """An event that is hard on an encoder: nested, big numbers, all planes of Unicode, a nonce."""
    nonce = uuid.UUID(int=random_.getrandbits(128), version=4)
    properties: dict[str, Any] = {
        "nonce": str(nonce),
        "text": "".join(random_.choices('aé\u2028\\"\n\t\U0001f4a9ß漢\u0000', k=random_.randrange(40))),
        "number": random_.choice([0, -1, 2**53, 1.5e300, -0.1, random_.random()]),
        "flag": random_.choice([True, False, None]),
        "nested": {"list": [1, [2, {"three": []}]], "blob": random_.randbytes(random_.randrange(200)).hex()},
    }
    own = str(uuid.UUID(int=random_.getrandbits(128), version=4)) if own_id else None
    return Event(str(nonce), random_.choice(["page-view", "thing-done", "purchase"]), properties, own)
