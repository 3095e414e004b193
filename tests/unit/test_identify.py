"""Whom a message belongs to: the table of ARCHITECTURE.md, its races, and its repairs."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Any, TypeVar

import pytest

from tracardi_lite.backends.cache.memory import MemoryCache
from tracardi_lite.backends.store.memory import MemoryStore
from tracardi_lite.errors import TryLater
from tracardi_lite.pipeline.decode import Incoming
from tracardi_lite.pipeline.entries import Announced
from tracardi_lite.pipeline.identify import ROUNDS_MAX, Partitions, identify
from tracardi_lite.pipeline.work import Work
from tracardi_lite.ports.queue import Message
from tracardi_lite.ports.store import Claim, Entry
from tracardi_lite.protocol.envelope import SAVE_ALL, SAVE_PROFILE, SAVE_SESSION, Head
from tracardi_lite.protocol.payload import Payload, Ref
from tracardi_lite.testing.clock import FakeClock

T = TypeVar("T")
NOV = 1_795_000_000_000  # 2026-11-18
PARTITIONS = Partitions("quarter", "month")


async def at_once(act: Callable[[], Awaitable[T]]) -> T:
    return await act()


def work(id: str, profile: str | None, session: str | None, **head: Any) -> Work:
    made = Head(id=id, received_ms=NOV, source="s", profile=profile, session=session, **head)
    message = Message(profile or id, b"", b"", 1, "s/0", (0,), NOV)
    return Work(Incoming(message, made, Payload(source=Ref("s")), [0]))


async def decide(store: MemoryStore, *works: Work) -> list[str | None]:
    await identify(works, store, at_once, PARTITIONS)
    return [work.profile_id for work in works]


async def entry(store: MemoryStore, key: str) -> Entry | None:
    (found,) = await store.lookup([key])
    return found


async def test_new_keys_are_claimed_with_their_partitions_of_birth() -> None:
    store = MemoryStore()
    assert await decide(store, work("m", "p", "s")) == ["p"]
    assert await entry(store, "p:p") == Entry("p", "2026-q4", "m")
    assert await entry(store, "s:s") == Entry("p", "2026-11", "m")


async def test_a_known_sessions_profile_wins_over_what_was_sent() -> None:
    store = MemoryStore()
    await decide(store, work("m1", "p", "s"))
    assert await decide(store, work("m2", "other", "s")) == ["p"]
    assert await entry(store, "p:other") is None, "it was not issued for this call, and claims nothing"


async def test_an_issued_id_that_lost_means_the_winner_for_ever() -> None:
    store = MemoryStore()
    await decide(store, work("m1", "p", "s"))
    assert await decide(store, work("m2", "q", "s", issued=True)) == ["p"]
    assert await entry(store, "p:q") == Entry("p", "", "m2")
    assert await decide(store, work("m3", "q", "s2")) == ["p"]


async def test_of_two_first_hits_in_one_batch_the_first_decides() -> None:
    store = MemoryStore()
    both = work("m1", "p", "s", issued=True), work("m2", "q", "s", issued=True)
    assert await decide(store, *both) == ["p", "p"]
    assert await entry(store, "p:q") == Entry("p", "", "m2")
    assert [work.session_entry for work in both] == [Entry("p", "2026-11", "m1")] * 2


async def test_a_claim_lost_to_another_worker_is_accepted() -> None:
    store = MemoryStore()
    claim = store.claim

    async def late(claims: Sequence[Claim]) -> list[Entry]:
        # Another worker was quicker by a hair, and has its profile in place.
        await claim([Claim("p:x", Entry("x", "2026-q4", "other")), Claim("s:s", Entry("x", "2026-11", "other"))])
        return await claim(claims)

    store.claim = late  # type: ignore[method-assign]
    mine = work("m", "p", "s", issued=True)
    assert await decide(store, mine) == ["x"]
    assert await entry(store, "p:p") == Entry("x", "", "m"), "claimed in vain, and made an alias"

    # A crash before the alias was made: the redelivered message makes it.
    await store.repoint("p:p", Entry("x", "", "m"), Entry("p", "2026-q4", "m"))
    assert await decide(store, work("m", "p", "s", issued=True)) == ["x"]
    assert await entry(store, "p:p") == Entry("x", "", "m")


async def test_aliases_are_followed_to_the_survivor() -> None:
    store = MemoryStore()
    await store.claim(
        [
            Claim("p:a", Entry("b", "")),
            Claim("p:b", Entry("c", "")),
            Claim("p:c", Entry("c", "2026-q4")),
            Claim("s:s", Entry("a", "2026-11")),
        ]
    )
    both = work("m1", "a", "s"), work("m2", "b", None)
    assert await decide(store, *both) == ["c", "c"]
    assert both[0].profile_entry == Entry("c", "2026-q4")


async def test_a_circle_of_aliases_is_an_error_and_no_endless_loop() -> None:
    store = MemoryStore()
    await store.claim([Claim("p:a", Entry("b", "")), Claim("p:b", Entry("a", ""))])
    with pytest.raises(ValueError, match="circle"):
        await decide(store, work("m", "a", None))


async def test_a_deleted_profile_is_made_anew_under_the_id_that_was_answered() -> None:
    store = MemoryStore()
    await decide(store, work("m1", "p", "s"))
    await store.repoint("p:p", Entry("p", "2026-q4", "m1"), None)

    assert await decide(store, work("m2", "p", "s")) == ["p"]
    assert await entry(store, "p:p") == Entry("p", "2026-q4", "m2")

    await store.repoint("p:p", Entry("p", "2026-q4", "m2"), None)
    assert await decide(store, work("m3", "q", "s", issued=True)) == ["q"]
    assert await entry(store, "s:s") == Entry("q", "2026-11", "m1"), "the session has moved"


async def test_a_static_source_keeps_its_ids_and_moves_the_session() -> None:
    store = MemoryStore()
    await decide(store, work("m1", "p", "s"))
    assert await decide(store, work("m2", "mine", "s", static=True)) == ["mine"]
    assert await entry(store, "s:s") == Entry("mine", "2026-11", "m1")
    assert await decide(store, work("m3", "p", "s", static=True)) == ["p"]
    assert await entry(store, "s:s") == Entry("p", "2026-11", "m1")


async def test_a_session_without_a_profile_takes_the_first_that_comes() -> None:
    store = MemoryStore()
    assert await decide(store, work("m1", "p", "s", save=SAVE_ALL & ~SAVE_PROFILE)) == [None]
    assert await entry(store, "s:s") == Entry("", "2026-11", "m1")
    assert await entry(store, "p:p") is None
    assert await decide(store, work("m2", "p", "s")) == ["p"]
    assert await entry(store, "s:s") == Entry("p", "2026-11", "m1")


async def test_a_session_that_is_not_saved_is_not_claimed_but_obeyed_when_known() -> None:
    store = MemoryStore()
    unsaved = work("m1", "p", "s", save=SAVE_ALL & ~SAVE_SESSION)
    assert await decide(store, unsaved) == ["p"]
    assert unsaved.session_id is None
    assert await entry(store, "s:s") is None
    await decide(store, work("m2", "x", "s"))
    assert await decide(store, work("m3", "p", "s", save=SAVE_ALL & ~SAVE_SESSION)) == ["x"]


async def test_a_call_without_a_profile_touches_no_key() -> None:
    store = MemoryStore()
    bare = work("m", None, "s")
    assert await decide(store, bare) == [None]
    assert bare.session_id is None
    assert await entry(store, "s:s") is None


async def test_decisions_taken_again_come_out_the_same() -> None:
    store = MemoryStore()
    batch = [("m1", "p", "s"), ("m2", "q", "s"), ("m3", "q", "t"), ("m4", "r", "t")]
    first = await decide(store, *(work(*each, issued=True) for each in batch))
    again = await decide(store, *(work(*each, issued=True) for each in batch))
    assert first == again


async def test_keys_that_never_settle_are_given_up_for_now() -> None:
    store = MemoryStore()
    rounds = 0

    async def nothing(keys: Sequence[str]) -> list[Entry | None]:
        return [None] * len(keys)

    async def elsewhere(claims: Sequence[Claim]) -> list[Entry]:
        nonlocal rounds
        rounds += 1
        return [Entry(f"gone{rounds}", "", "other") for _ in claims]

    store.lookup, store.claim = nothing, elsewhere  # type: ignore[method-assign]
    with pytest.raises(TryLater):
        await decide(store, work("m", "p", "s"))
    assert rounds == ROUNDS_MAX


async def test_an_id_that_a_door_has_answered_with_and_that_becomes_an_alias_is_announced() -> None:
    store, cache = MemoryStore(), MemoryCache(100, FakeClock())
    moves = cache.moves()
    entries = Announced(store, cache)
    await identify([work("m1", "p", "s")], entries, at_once, PARTITIONS)
    assert moves.heard() == (), "what is new to everybody is nothing to tell"
    await identify([work("m2", "q", "s", issued=True)], entries, at_once, PARTITIONS)
    assert await entry(store, "p:q") == Entry("p", "", "m2")
    assert moves.heard() == ["p:q", "p:q"]
    await entries.claim([Claim("k:key", Entry("p", ""))])
    assert await entries.repoint("k:key", Entry("p", ""), Entry("q", ""))
    assert moves.heard() == (), "nobody remembers merge keys"
