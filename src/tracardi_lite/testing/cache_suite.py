"""What every cache backend owes. A backend's tests subclass ``CacheSuite`` and give the fixtures."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from tracardi_lite.ports.cache import HOLD_S, Cache, Moves
from tracardi_lite.testing.clock import eventually

PassTime = Callable[[float], Awaitable[None]]


async def hears(moves: Moves, wanted: set[str]) -> None:
    """Waits until all that is wanted was heard, and nothing else."""
    heard: set[str] = set()

    def all_heard() -> bool:
        news = moves.heard()
        assert news is not None, "some were missed"
        heard.update(news)
        return wanted <= heard

    await eventually(all_heard, what=f"{wanted} are heard of")
    assert heard == wanted


async def listens(moves: Moves, cache: Cache) -> None:
    """Waits until what is announced is heard: a served cache needs a moment to connect."""
    async with asyncio.timeout(10):
        while "ready" not in (moves.heard() or ()):
            await cache.announce(["ready"])
            await asyncio.sleep(0)
    # What was announced meanwhile and has not arrived yet.
    await cache.announce(["go"])
    await eventually(lambda: "go" in (moves.heard() or ()), what="the listener has caught up")


class CacheSuite:
    @pytest.fixture
    def cache(self) -> Cache:
        """An open, empty cache with room for at least 1000 entries."""
        raise NotImplementedError

    @pytest.fixture
    def other(self, cache: Cache) -> Cache:
        """Another process's view of it, open; the same one where a cache belongs to one process."""
        raise NotImplementedError

    @pytest.fixture
    def pass_time(self) -> PassTime:
        """Let so many seconds go by for the cache: a fake clock moved, or, for a served cache, really waited."""
        raise NotImplementedError

    # values

    async def test_what_was_added_is_found_in_the_order_of_the_keys(self, cache: Cache) -> None:
        await cache.add({"a": b"1", "b": b"2"}, 60)
        assert await cache.get(["b", "missing", "a", "b"]) == [b"2", None, b"1", b"2"]

    async def test_no_keys_give_no_values_and_adding_nothing_is_fine(self, cache: Cache) -> None:
        await cache.add({}, 60)
        await cache.announce([])
        assert await cache.get([]) == []

    async def test_what_is_there_stays_with_its_lifetime(self, cache: Cache, pass_time: PassTime) -> None:
        await cache.add({"a": b"first"}, 1)
        await cache.add({"a": b"second", "b": b"other"}, 60)
        assert await cache.get(["a", "b"]) == [b"first", b"other"]
        await pass_time(1.5)
        assert await cache.get(["a"]) == [None]
        await cache.add({"a": b"third"}, 60)
        assert await cache.get(["a"]) == [b"third"]

    async def test_an_entry_is_gone_after_its_ttl_and_others_stay(self, cache: Cache, pass_time: PassTime) -> None:
        await cache.add({"short": b"1"}, 1)
        await cache.add({"long": b"2"}, 60)
        await pass_time(1.5)
        assert await cache.get(["short", "long"]) == [None, b"2"]

    async def test_reading_does_not_prolong_a_life(self, cache: Cache, pass_time: PassTime) -> None:
        await cache.add({"a": b"1"}, 2)
        await pass_time(1)
        assert await cache.get(["a"]) == [b"1"]
        await pass_time(1.5)
        assert await cache.get(["a"]) == [None]

    async def test_a_ttl_of_zero_keeps_nothing(self, cache: Cache) -> None:
        await cache.add({"a": b"1"}, 0)
        assert await cache.get(["a"]) == [None]

    async def test_values_are_bytes_of_any_kind_and_keys_any_text(self, cache: Cache) -> None:
        values = {"": b"", "ż:ó/ł w": bytes(range(256)), "s:" + "x" * 500: b"\0"}
        await cache.add(values, 60)
        assert await cache.get(list(values)) == list(values.values())

    async def test_many_at_once_do_not_mix_up(self, cache: Cache) -> None:
        async def one(number: int) -> None:
            await cache.add({f"k{number}": str(number).encode()}, 60)
            assert await cache.get([f"k{number}"]) == [str(number).encode()]

        await asyncio.gather(*(one(number) for number in range(200)))

    # moves

    async def test_a_key_that_was_announced_is_a_miss_at_once_and_others_stay(self, cache: Cache, other: Cache) -> None:
        await cache.add({"a": b"1", "b": b"2"}, 60)
        await other.announce(["a", "missing"])
        assert await other.get(["a"]) == [None]
        assert await cache.get(["a", "b"]) == [None, b"2"]

    async def test_what_was_asked_before_a_move_does_not_come_to_stay(self, cache: Cache, pass_time: PassTime) -> None:
        await cache.announce(["a"])
        await cache.add({"a": b"from before", "b": b"2"}, 60)
        assert await cache.get(["a", "b"]) == [None, b"2"]
        await pass_time(HOLD_S + 0.5)
        await cache.add({"a": b"from after"}, 60)
        assert await cache.get(["a"]) == [b"from after"]

    async def test_each_announcement_holds_a_key_anew(self, cache: Cache, pass_time: PassTime) -> None:
        await cache.announce(["a"])
        await pass_time(HOLD_S / 2 + 0.5)
        await cache.announce(["a"])
        await pass_time(HOLD_S / 2 + 0.5)
        await cache.add({"a": b"from before"}, 60)
        assert await cache.get(["a"]) == [None]

    async def test_every_listener_hears_every_announcement_of_any_process(self, cache: Cache, other: Cache) -> None:
        ears = [cache.moves(), cache.moves(), other.moves()]
        for ear in ears:
            await listens(ear, cache)
        for ear in ears:
            # What the others listened for has been heard by all.
            await eventually(lambda ear=ear: not ear.heard(), what="it is quiet")  # type: ignore[misc]
        await cache.announce(["p:a", "s:ż " + "x" * 500])
        await other.announce(["p:b"])
        for ear in ears:
            await hears(ear, {"p:a", "s:ż " + "x" * 500, "p:b"})
            assert not ear.heard()

    async def test_who_begins_to_listen_does_not_hear_what_was_before(self, cache: Cache) -> None:
        await cache.announce(["p:old"])
        moves = cache.moves()
        await listens(moves, cache)
        await cache.announce(["p:new"])
        await hears(moves, {"p:new"})

    async def test_many_announcements_are_all_heard_or_said_to_be_missed(self, cache: Cache, other: Cache) -> None:
        moves = cache.moves()
        await listens(moves, other)
        names = [f"p:{number:036}" for number in range(20_000)]
        for start in range(0, len(names), 1000):
            await other.announce(names[start : start + 1000])
        heard: set[str] = set()
        missed = False

        def done() -> bool:
            nonlocal missed
            news = moves.heard()
            missed |= news is None
            heard.update(news or ())
            return missed or heard >= set(names)

        await eventually(done, what="all is heard, or missed")
        await other.announce(["p:after"])
        await eventually(lambda: "p:after" in (moves.heard() or ()), what="and it listens on")

    async def test_it_answers_pings(self, cache: Cache) -> None:
        await cache.ping()
