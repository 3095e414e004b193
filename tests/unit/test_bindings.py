"""What the door remembers of sessions and profiles, and when it asks again."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest

from tracardi_lite.backends.cache.local import LocalCache
from tracardi_lite.backends.cache.memory import MemoryCache
from tracardi_lite.backends.cache.words import HEARD_MAX
from tracardi_lite.backends.store.memory import MemoryStore
from tracardi_lite.errors import Unavailable
from tracardi_lite.intake import bindings
from tracardi_lite.intake.bindings import FRESH_S, PAUSE_S, SURE_S, Bindings, Unknown
from tracardi_lite.metrics import Metrics
from tracardi_lite.ports.cache import HOLD_S, Cache
from tracardi_lite.ports.store import Claim, Entry
from tracardi_lite.testing.clock import FakeClock

OLDER = Entry("older", "2026-q4", "m1")
LOSER = Entry("loser", "2026-q4", "m2")
SESSION = Entry("loser", "2026-11", "m2")
ALIAS = Entry("older", "")


class Asked(MemoryStore):
    """A store that notes what is looked up, and may be away."""

    def __init__(self) -> None:
        super().__init__()
        self.keys: list[str] = []
        self.away = False

    async def lookup(self, keys: Sequence[str]) -> list[Entry | None]:
        if self.away:
            raise Unavailable("store", "away")
        self.keys += keys
        return await super().lookup(keys)


@pytest.fixture
def clock() -> FakeClock:
    return FakeClock()


@pytest.fixture
async def store() -> Asked:
    """Two profiles, the session ``s`` with the younger."""
    store = Asked()
    await store.claim([Claim("p:older", OLDER), Claim("p:loser", LOSER), Claim("s:s", SESSION)])
    return store


def door(store: Asked, cache: Cache, clock: FakeClock, size: int = 1000, metrics: Metrics | None = None) -> Bindings:
    return Bindings(store, cache, clock, metrics or Metrics(), size, profile_ttl_s=3600, session_ttl_s=1800)


async def ask(door: Bindings, key: str) -> str | None:
    """As a call does: what is remembered, else what is found."""
    known = door.peek(key)
    if known is None:
        (known,) = await door.resolve([key])
    return known


async def test_what_was_looked_up_serves_for_a_while_without_being_asked_again(store: Asked, clock: FakeClock) -> None:
    bound = door(store, MemoryCache(10, clock), clock)
    assert await ask(bound, "s:s") == "loser"
    asked = len(store.keys)
    clock.advance(FRESH_S - 0.1)
    assert [await ask(bound, "s:s") for _ in range(100)] == ["loser"] * 100
    assert len(store.keys) == asked
    clock.advance(0.2)
    await ask(bound, "s:s")
    assert len(store.keys) > asked


@pytest.mark.parametrize("key", ["s:s", "p:loser"])
async def test_once_a_merge_is_to_be_seen_in_the_store_no_answer_is_from_before_it(
    store: Asked, clock: FakeClock, key: str
) -> None:
    cache = MemoryCache(100, clock)
    bound = door(store, cache, clock)
    assert await ask(bound, key) == "loser"
    await cache.announce(["p:loser"])
    # The word has come, the change has not: what is found now must not be trusted later.
    assert await ask(bound, key) == "loser"
    clock.advance(1)
    assert await ask(bound, key) == "loser"
    await store.repoint("p:loser", LOSER, ALIAS)
    assert await ask(bound, key) == "older"
    await cache.announce(["p:loser"])
    assert await ask(bound, key) == "older"


async def test_a_session_that_moves_is_asked_for_too(store: Asked, clock: FakeClock) -> None:
    cache = MemoryCache(100, clock)
    bound = door(store, cache, clock)
    assert await ask(bound, "s:s") == "loser"
    await cache.announce(["s:s"])
    await store.repoint("s:s", SESSION, Entry("older", "2026-11", "m2"))
    assert await ask(bound, "s:s") == "older"


async def test_after_a_merge_its_sessions_are_remembered_again_and_others_always_were(
    store: Asked, clock: FakeClock
) -> None:
    cache = MemoryCache(100, clock)
    bound = door(store, cache, clock)
    for key in ("s:s", "p:older"):
        await ask(bound, key)
    await cache.announce(["p:loser"])
    await store.repoint("p:loser", LOSER, ALIAS)
    assert bound.peek("p:older") == "older"
    await ask(bound, "s:s")
    asked = len(store.keys)
    assert [await ask(bound, key) for key in ("s:s", "p:older") * 10] == ["older"] * 20
    assert len(store.keys) == asked


async def test_a_key_is_on_the_move_for_a_while_only(store: Asked, clock: FakeClock) -> None:
    cache = MemoryCache(100, clock)
    bound = door(store, cache, clock)
    await cache.announce(["p:loser"])
    assert await ask(bound, "s:s") == "loser"
    clock.advance(HOLD_S)
    await ask(bound, "s:s")
    asked = len(store.keys)
    assert await ask(bound, "s:s") == "loser", "nothing came of it"
    assert len(store.keys) == asked
    assert not bound._moving, "and nothing of it is kept"


async def test_keys_on_the_move_are_bounded(store: Asked, clock: FakeClock, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bindings, "MOVING_MAX", 3)
    cache = MemoryCache(100, clock)
    bound = door(store, cache, clock)
    await cache.announce(["p:a", "p:b", "p:c"])
    bound.peek("s:s")
    clock.advance(HOLD_S / 2)
    await cache.announce(["p:a", "p:d"])
    bound.peek("s:s")
    assert list(bound._moving) == ["p:c", "p:a", "p:d"]
    clock.advance(HOLD_S / 2)
    await cache.announce(["p:e"])
    bound.peek("s:s")
    assert list(bound._moving) == ["p:a", "p:d", "p:e"]


async def test_a_door_that_may_have_missed_something_asks_for_everything(store: Asked, clock: FakeClock) -> None:
    cache = MemoryCache(100, clock)
    bound = door(store, cache, clock)
    assert await ask(bound, "s:s") == "loser"
    await store.repoint("p:loser", LOSER, ALIAS)
    await cache.announce([f"p:{number}" for number in range(HEARD_MAX + 1)])
    assert bound.peek("s:s") is None
    clock.advance(0.001)
    assert await ask(bound, "s:s") == "older"
    asked = len(store.keys)
    assert await ask(bound, "s:s") == "older"
    assert len(store.keys) == asked


async def test_without_any_word_an_answer_lags_for_as_long_as_it_is_fresh(store: Asked, clock: FakeClock) -> None:
    bound = door(store, MemoryCache(100, clock), clock)
    assert await ask(bound, "s:s") == "loser"
    await store.repoint("p:loser", LOSER, ALIAS)
    clock.advance(FRESH_S - 0.1)
    assert await ask(bound, "s:s") == "loser"
    clock.advance(0.2)
    assert await ask(bound, "s:s") == "older"


async def test_what_the_store_has_said_serves_longer_where_no_word_can_be_lost(
    store: Asked, clock: FakeClock, tmp_path: Path
) -> None:
    async with LocalCache(tmp_path / "moved.ring", 100, clock) as cache:
        bound = door(store, cache, clock)
        bound.remember("s:new", "nobody-has-stored-this")
        assert await ask(bound, "s:s") == "loser"
        asked = len(store.keys)
        clock.advance(SURE_S - 0.1)
        assert await ask(bound, "s:s") == "loser"
        assert len(store.keys) == asked
        assert await ask(bound, "s:new") == "nobody-has-stored-this"
        assert len(store.keys) == asked + 1, "what only the door has said is asked for sooner"
        clock.advance(0.2)
        await ask(bound, "s:s")
        assert len(store.keys) > asked + 1


async def test_a_profile_is_asked_for_again_however_busy_it_is_with_new_sessions(
    store: Asked, clock: FakeClock
) -> None:
    bound = door(store, MemoryCache(100, clock), clock)
    for number in range(20):
        await bound.resolve([f"s:new-{number}", "p:loser"])
        clock.advance(FRESH_S / 4)
    assert store.keys.count("p:loser") == 5


async def test_doors_that_share_a_cache_ask_the_store_once(store: Asked, clock: FakeClock) -> None:
    cache = MemoryCache(100, clock, shared=True)
    first = door(store, cache, clock)
    assert await first.resolve(["s:s", "p:loser", "s:new"]) == ["loser", "loser", None]
    assert await cache.get(["s:s", "p:loser"]) != [None, None]
    store.keys.clear()
    metrics = Metrics()
    second = door(store, cache, clock, metrics=metrics)
    assert await second.resolve(["s:s", "p:loser"]) == ["loser", "loser"]
    assert metrics.cache_hits.values[("directory",)] == 3, "the session leads to the profile, which is asked for, too"
    assert store.keys == []
    store.away = True
    assert await door(store, cache, clock).resolve(["s:s"]) == ["loser"], "what the cache has, the store need not say"


async def test_while_the_store_is_away_the_shared_cache_answers_what_it_knows_and_nobody_waits_for_others(
    store: Asked, clock: FakeClock
) -> None:
    cache = MemoryCache(100, clock, shared=True)
    await door(store, cache, clock).resolve(["s:s"])
    store.away = True
    restarted = door(store, cache, clock)
    for _ in range(2):
        # In one turn of the loop, and then while the store is left alone.
        known, new = await asyncio.gather(
            restarted.resolve(["s:s"]), restarted.resolve(["s:new"]), return_exceptions=True
        )
        assert known == ["loser"]
        assert isinstance(new, Unknown)
    clock.advance(PAUSE_S)
    store.away = False
    assert await restarted.resolve(["s:new"]) == [None]


async def test_the_cache_keeps_sessions_and_profiles_for_as_long_as_the_settings_say(
    store: Asked, clock: FakeClock
) -> None:
    cache = MemoryCache(100, clock, shared=True)
    await door(store, cache, clock).resolve(["s:s", "p:loser"])
    clock.advance(1801)
    [session, profile] = await cache.get(["s:s", "p:loser"])
    assert session is None
    assert profile is not None


async def test_a_slow_door_does_not_bring_back_what_has_moved(store: Asked, clock: FakeClock) -> None:
    cache = MemoryCache(100, clock, shared=True)
    deaf = door(store, cache, clock)
    deaf._moves = MemoryCache(1, clock).moves()
    listening = door(store, cache, clock)
    await cache.announce(["p:loser"])
    assert await ask(deaf, "p:loser") == "loser"
    await store.repoint("p:loser", LOSER, ALIAS)
    assert await ask(listening, "p:loser") == "older"


async def test_what_is_no_entry_in_a_shared_cache_is_as_good_as_nothing(store: Asked, clock: FakeClock) -> None:
    cache = MemoryCache(100, clock, shared=True)
    await cache.add({"s:s": b"\xc1 not ours"}, 60)
    assert await door(store, cache, clock).resolve(["s:s"]) == ["loser"]


async def test_while_the_store_is_away_what_was_answered_here_is_answered_again(store: Asked, clock: FakeClock) -> None:
    bound = door(store, MemoryCache(100, clock), clock)
    bound.remember("s:t", "mine")
    clock.advance(FRESH_S + 1)
    store.away = True
    assert await ask(bound, "s:t") == "mine"
    clock.advance(PAUSE_S + 1)
    with pytest.raises(Unknown):
        await bound.resolve(["s:never seen"])
