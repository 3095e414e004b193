"""Load with a memory: what was answered is an obligation, what was not is a perhaps.

Every event carries a nonce, so that the oracle can tell each of them apart whatever ids the server gives. A post whose
events have ids made here may be sent again when no answer came: whatever became of the first try, each of its events
must then be stored exactly once. A post whose events get their ids from the server is sent once; without an answer its
events may be stored once or not at all, and nothing more is asked of them.

Everything goes through our own client, attempt by attempt: what is tried again, and where, is decided here.
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

from tracardi_lite import client
from tracardi_lite.client import AsyncClient, AttemptFailed, Receipt, Refused

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
    refusals: list[tuple[int, float | None, float]] = field(default_factory=list)
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
        self._clients: dict[str, AsyncClient] = {}

    async def __aenter__(self) -> Load:
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
            clients, self._clients = self._clients, {}
            await asyncio.gather(*(client.close() for client in clients.values()))

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
        profile = self._profile(session, returning)
        self.perhaps |= {event.nonce: event for event in events}
        sent = [as_sent(event) for event in events]
        while not await self._settles(sent, session, profile, returning, events):
            # Whatever became of a failed try (a 503 may still have become durable): ids of our own make another one
            # harmless, ids of the server's making would not.
            if not own_ids or self._stop.is_set():
                return
            await asyncio.sleep(PAUSE_S)

    async def _settles(
        self,
        sent: list[client.Event],
        session: str | None,
        profile: str | None,
        returning: str | None,
        events: list[Event],
    ) -> bool:
        """One try; whether there was a final answer."""
        begun = time.monotonic()
        tracardi = await self._client(self._random.choice(list(self.bases())))
        try:
            receipt = await tracardi.attempt(sent, session_id=session, profile_id=profile)
        except Refused as refused:
            self.statuses[refused.status] += 1
            self.unexpected.append(str(refused))
            return True
        except AttemptFailed as failed:
            if failed.status is not None:
                self.statuses[failed.status] += 1
                self.refusals.append((failed.status, failed.retry_after_s, time.monotonic() - begun))
                if failed.status not in (429, 503):
                    self.unexpected.append(str(failed))
            elif isinstance(failed.__cause__, TimeoutError):
                self.unexpected.append(f"no answer within {ANSWER_S:g} s")
            return False
        self._answered(receipt, session, returning, events)
        return True

    def _answered(self, receipt: Receipt, session: str | None, returning: str | None, events: list[Event]) -> None:
        self.statuses[receipt.status] += 1
        if receipt.status != 200 or receipt.errors:
            self.unexpected.append(f"{receipt.status}: {receipt.answer}")
        answered, profile = receipt.session_id, receipt.profile_id
        if answered is None or profile is None:
            self.unexpected.append(f"no session or no profile: {receipt.answer}")
            return
        if session is not None and answered != session:
            self.unexpected.append(f"sent session {session}, answered {answered}")
        if returning is not None and profile != returning:
            self.unexpected.append(f"sent profile {returning}, which was issued, and answered {profile}")
        self.profiles.setdefault(answered, set()).add(profile)
        for event in events:
            event.session, event.profile, event.task = answered, profile, receipt.task or ""
            self.obligations[event.nonce] = event
            del self.perhaps[event.nonce]

    async def _client(self, base: str) -> AsyncClient:
        if base not in self._clients:
            # Kept before it is awaited: others want it meanwhile.
            self._clients[base] = AsyncClient(base, self.source, timeout_s=ANSWER_S)
            await self._clients[base].open()
        return self._clients[base]

    def _returning(self) -> str | None:
        """A profile that was answered before, whose owner comes back with a new session."""
        sessions = [session for session in self._names if session in self.profiles]
        return min(self.profiles[self._random.choice(sessions)]) if sessions else None

    def _profile(self, session: str | None, returning: str | None) -> str | None:
        """The profile to send along: every other time the session's own, if it is known."""
        if session is None or returning is not None:
            return returning
        profile = min(self.profiles.get(session, ()), default=None)
        return profile if self._random.random() < 0.5 else None


def as_sent(event: Event) -> client.Event:
    return client.Event(event.type, event.properties, event.id or "")


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
