"""Which event sources there are, for the door: a cache in front of the registry that never opens up.

An entry serves for ``source_cache_ttl`` seconds, then is asked again (once, however many requests wait). When the
registry is away, known sources serve on, marked stale, and unknown ones get 503, never a guess. Bounded: the least
recently asked entries go first, so that made-up ids cannot fill the memory.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict

from msgspec import Struct

from tracardi_lite.clock import Clock
from tracardi_lite.errors import BadInput, TryLater
from tracardi_lite.ports.registry import EventSource, Registry

ENTRIES_MAX = 10_000
# A registry that is away is not asked again by every request.
PAUSE_AFTER_FAULT_S = 1.0

OPEN_TYPES = frozenset({"rest", "webhook", "redirect"})


class Gate(Struct, frozen=True):
    """What the door needs to know of a source."""

    id: str
    types: frozenset[str]
    enabled: bool = True
    transitional: bool = False
    channel: str = ""
    static: bool = False
    generate_profile: bool = False
    sticky_session: bool = True
    replace_profile_id: str = ""

    def admit(self, *allowed: str) -> None:
        """Raise BadInput 401 unless the source is enabled and of one of the types."""
        if not self.enabled:
            raise BadInput(401, "Event source disabled.")
        if self.types.isdisjoint(allowed):
            raise BadInput(
                401,
                f"Event source '{self.id}' is of type {', '.join(sorted(self.types)) or 'none'};"
                f" this route takes {' or '.join(allowed)}.",
            )


def _gate(source: EventSource) -> Gate:
    config = source.config or {}
    return Gate(
        id=source.id,
        types=frozenset(source.type),
        enabled=source.enabled,
        transitional=source.transitional,
        channel=source.channel,
        static=config.get("static_profile_id") is True,
        generate_profile=config.get("generate_profile") is True,
        sticky_session=config.get("sticky_session") is not False,
        replace_profile_id=str(config.get("replace_profile_id") or ""),
    )


class Sources:
    """Look-ups by id. ``check=False`` (ENABLE_EVENT_SOURCE_CHECK=no) takes any id as an open source, channel Web."""

    def __init__(self, registry: Registry, clock: Clock, ttl_s: float, *, check: bool = True) -> None:
        self._registry = registry
        self._clock = clock
        self._ttl_s = ttl_s
        self._check = check
        self._entries: OrderedDict[str, tuple[Gate | None, float]] = OrderedDict()
        self._asking: dict[str, asyncio.Task[Gate | None]] = {}
        self.stale = False
        """The registry was away when last asked."""

    def peek(self, id: str) -> Gate | None:
        """The source if it is known and fresh; the hot path, without a task switch."""
        entry = self._entries.get(id)
        if entry is not None and entry[1] > self._clock.monotonic():
            return entry[0]
        return None

    async def get(self, id: str) -> Gate:
        """The source. BadInput 401 when there is none, TryLater when nobody can tell."""
        if id.startswith("@"):
            raise BadInput(401, "Internal event sources are not allowed from outside.")
        if not self._check:
            return Gate(id=id, types=OPEN_TYPES, channel="Web")
        gate = self.peek(id)
        if gate is None:
            entry = self._entries.get(id)
            if entry is None or entry[1] <= self._clock.monotonic():
                gate = await self._ask(id)
        if gate is None:
            raise BadInput(
                401,
                f"Unknown event source '{id[:100]}'. List the sources with `tracardi-lite source list`"
                " or GET /event-sources; a new one may take some seconds to be known.",
            )
        return gate

    def forget(self, id: str) -> None:
        """Ask again at the next call: the source was changed by this very process."""
        self._entries.pop(id, None)

    async def _ask(self, id: str) -> Gate | None:
        task = self._asking.get(id)
        if task is None:
            task = self._asking[id] = asyncio.create_task(self._fetch(id))
            task.add_done_callback(lambda _: self._asking.pop(id, None))
        # Shielded: one client that hangs up must not fail the others that wait for the same answer.
        return await asyncio.shield(task)

    async def _fetch(self, id: str) -> Gate | None:
        try:
            source = await self._registry.source(id)
        except TryLater:
            self.stale = True
            known = self._entries.get(id)
            if known is None:
                raise
            self._put(id, known[0], PAUSE_AFTER_FAULT_S)
            return known[0]
        self.stale = False
        gate = _gate(source) if source is not None else None
        self._put(id, gate, self._ttl_s)
        return gate

    def _put(self, id: str, gate: Gate | None, ttl_s: float) -> None:
        self._entries[id] = (gate, self._clock.monotonic() + ttl_s)
        self._entries.move_to_end(id)
        while len(self._entries) > ENTRIES_MAX:
            self._entries.popitem(last=False)
