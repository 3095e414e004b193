"""Which profile and session a message belongs to: the worker's half of "one customer, one profile".

The directory decides. Keys that it does not know are claimed, and the winner of a claim is whom the message applies to:

* A known session's profile wins over what the head says, unless the source is static: then the session moves.
* A session whose profile is gone (deleted, or never had one) moves to the profile that the door answered with.
* An id that the door had issued for this call, and that lost, becomes an alias of the winner. The profile that the
  client had sent wins over it, too: a door that can't ask the directory issues an id for one that it doesn't know.

Invariants: within a claim ``p:`` keys come before ``s:`` keys, so that a session never points at a profile that was not
claimed (and a missing one means a deleted one); every decision can be taken again after a crash and comes out the same,
because entries name the message that claimed them. Bounds: two look-ups and one claim for nearly every batch; chains of
aliases of at most ``HOPS_MAX``; ``ROUNDS_MAX`` rounds while others change the same keys, then ``TryLater``.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Protocol, TypeVar

from msgspec import Struct

from tracardi_lite.errors import Unavailable
from tracardi_lite.partitioning import partition_of
from tracardi_lite.pipeline.entries import Entries
from tracardi_lite.pipeline.work import Work
from tracardi_lite.ports.store import Claim, Entry
from tracardi_lite.protocol.envelope import Head

# Chains are shortened when they are made; longer ones, and circles, are damage.
HOPS_MAX = 16
ROUNDS_MAX = 5

T = TypeVar("T")


class Repeat(Protocol):
    """Calls the store until it answers, see ``Flusher.call``."""

    async def __call__(self, act: Callable[[], Awaitable[T]]) -> T: ...


class Partitions:
    """Names of the partitions that new profiles and sessions are born into."""

    def __init__(self, profile_period: str, session_period: str) -> None:
        self._profile_period = profile_period
        self._session_period = session_period

    def of_profile(self, at_ms: int) -> str:
        return partition_of(self._profile_period, at_ms)

    def of_session(self, at_ms: int) -> str:
        return partition_of(self._session_period, at_ms)


class Directory:
    """The entries that one batch has seen, and what it means to claim."""

    def __init__(self, entries: Entries, repeat: Repeat) -> None:
        self._stored = entries
        self._repeat = repeat
        self._entries: dict[str, Entry | None] = {}
        self._wanted: dict[str, Entry] = {}

    async def know(self, keys: Iterable[str]) -> None:
        """Look up what is not known yet, and the profiles that it leads to."""
        missing = [key for key in dict.fromkeys(keys) if key not in self._entries]
        for _ in range(HOPS_MAX):
            if not missing:
                return
            found = await self._repeat(lambda: self._stored.lookup(missing))  # noqa: B023  (awaited at once)
            self._entries.update(zip(missing, found, strict=True))
            targets = dict.fromkeys(f"p:{entry.target}" for entry in found if entry is not None and entry.target)
            missing = [key for key in targets if key not in self._entries]
        if missing:
            raise ValueError(f"a chain of aliases is longer than {HOPS_MAX}")

    def see(self, key: str) -> Entry | None:
        """What holds, or will hold if this batch's claims are won."""
        return self._entries.get(key) or self._wanted.get(key)

    def survivor(self, profile: str) -> str:
        """The profile that an id means: itself unless it is an alias."""
        for _ in range(HOPS_MAX):
            entry = self.see(f"p:{profile}")
            if entry is None or entry.target == profile:
                return profile
            profile = entry.target
        raise ValueError("aliases form a circle")

    def want(self, key: str, entry: Entry) -> None:
        self._wanted.setdefault(key, entry)

    async def claim(self) -> None:
        """Claim what is wanted, profiles first; afterwards ``see`` tells who won."""
        if not self._wanted:
            return
        claims = [Claim(key, entry) for key, entry in sorted(self._wanted.items(), key=lambda item: item[0][0])]
        won = await self._repeat(lambda: self._stored.claim(claims))
        self._wanted.clear()
        self._entries.update((claim.key, entry) for claim, entry in zip(claims, won, strict=True))
        await self.know(f"p:{entry.target}" for entry in won if entry.target)

    async def repoint(self, key: str, expected: Entry, entry: Entry) -> None:
        """Change an entry that nobody else has changed meanwhile; either way the new truth is known afterwards."""
        if await self._repeat(lambda: self._stored.repoint(key, expected, entry)):
            self._entries[key] = entry
        else:
            del self._entries[key]
        await self.know([key, f"p:{entry.target}"])


async def identify(works: Sequence[Work], entries: Entries, repeat: Repeat, partitions: Partitions) -> None:
    """Set each work's profile and session, with their directory entries; claims what is new."""
    concerned = [work for work in works if work.incoming.head.profile is not None]
    for _ in range(ROUNDS_MAX):
        # A new look each round: the others have changed what was known.
        directory = Directory(entries, repeat)
        await directory.know(key for work in concerned for key in _keys(work))
        moves = [move for work in concerned if (move := _plan(work, directory, partitions)) is not None]
        await directory.claim()
        for move in moves:
            entry = directory.see(move.key)
            # Of several messages that find a session without a profile the first decides; a static one always does.
            if entry is not None and entry.target != move.target and (move.static or entry == move.expected):
                after = Entry(target=move.target, partition=entry.partition, message=entry.message)
                await directory.repoint(move.key, entry, after)
        for work in concerned:
            await _alias(work, directory)
        unsettled = [work for work in concerned if not _settle(work, directory)]
        if not unsettled:
            return
    raise Unavailable("store", "the directory changes faster than it can be read")


def _keys(work: Work) -> list[str]:
    head = work.incoming.head
    keys = [f"p:{head.profile}"]
    if head.session is not None:
        keys.append(f"s:{head.session}")
    if head.issued and head.sent_profile:
        keys.append(f"p:{head.sent_profile}")
    return keys


def _bound(work: Work, directory: Directory) -> str | None:
    """The living profile that the message's session is bound to; None when it is free to choose."""
    head = work.incoming.head
    if head.static or head.session is None:
        return None
    entry = directory.see(f"s:{head.session}")
    if entry is None or not entry.target:
        return None
    profile = directory.survivor(entry.target)
    return profile if directory.see(f"p:{profile}") is not None else None


def _chosen(head: Head, directory: Directory) -> str:
    """Whom a message without a bound session is for."""
    assert head.profile is not None
    own, sent = directory.see(f"p:{head.profile}"), head.sent_profile
    # An issued id that somebody has claimed already may have a record: that one is not left behind.
    if own is None and head.issued and sent and directory.see(f"p:{sent}") is not None:
        return directory.survivor(sent)
    return directory.survivor(head.profile)


class _Move(Struct):
    """A known session that must be bound to another profile."""

    key: str
    expected: Entry
    target: str
    static: bool


def _plan(work: Work, directory: Directory, partitions: Partitions) -> _Move | None:
    """Want the keys that the message needs and nobody has; the move of its session, if it must move."""
    head = work.incoming.head
    assert head.profile is not None
    bound = _bound(work, directory)
    target = bound or ""
    if bound is None and work.saves_profile:
        target = _chosen(head, directory)
        if directory.see(f"p:{target}") is None:
            born = partitions.of_profile(head.received_ms)
            directory.want(f"p:{target}", Entry(target=target, partition=born, message=head.id))
    if not work.saves_session:
        return None
    key = f"s:{head.session}"
    entry = directory.see(key)
    if entry is None:
        born = partitions.of_session(head.received_ms)
        directory.want(key, Entry(target=target, partition=born, message=head.id))
    elif target and bound is None and entry.target != target:
        return _Move(key, entry, target, head.static)
    return None


async def _alias(work: Work, directory: Directory) -> None:
    """If the door's own id for this call was not the one, let it mean the one for ever."""
    head = work.incoming.head
    winner = _bound(work, directory) or _chosen(head, directory)
    if not head.issued or not work.saves_profile:
        return
    assert head.profile is not None
    key = f"p:{head.profile}"
    if directory.survivor(head.profile) == winner:
        return
    alias = Entry(target=winner, partition="", message=head.id)
    entry = directory.see(key)
    if entry is None:
        directory.want(key, alias)
        await directory.claim()
    elif entry.message == head.id:
        # Claimed by this very message, before it turned out that the session was somebody's.
        await directory.repoint(key, entry, alias)


def _settle(work: Work, directory: Directory) -> bool:
    """Write down what was found. False when something is missing and another round must find it."""
    head = work.incoming.head
    assert head.profile is not None
    work.session_id = head.session if work.saves_session else None
    work.session_entry = directory.see(f"s:{head.session}") if work.saves_session else None
    if work.saves_profile:
        work.profile_id = _bound(work, directory) or _chosen(head, directory)
        work.profile_entry = directory.see(f"p:{work.profile_id}")
        if work.profile_entry is None:
            return False
    return work.session_id is None or work.session_entry is not None
