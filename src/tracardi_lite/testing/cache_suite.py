"""What every cache backend owes. A backend's tests subclass ``CacheSuite`` and give the two fixtures."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from tracardi_lite.ports.cache import Cache


class CacheSuite:
    @pytest.fixture
    def cache(self) -> Cache:
        """An open, empty cache with room for at least 1000 entries."""
        raise NotImplementedError

    @pytest.fixture
    def pass_time(self) -> Callable[[float], Awaitable[None]]:
        """Let so many seconds go by for the cache: a fake clock moved, or, for a served cache, really waited."""
        raise NotImplementedError

    async def test_what_was_set_is_found_in_the_order_of_the_keys(self, cache: Cache) -> None:
        await cache.set({"a": b"1", "b": b"2"}, 60)
        assert await cache.get(["b", "missing", "a", "b"]) == [b"2", None, b"1", b"2"]

    async def test_no_keys_give_no_values_and_setting_nothing_is_fine(self, cache: Cache) -> None:
        await cache.set({}, 60)
        await cache.delete([])
        assert await cache.get([]) == []

    async def test_setting_again_replaces_value_and_lifetime(
        self, cache: Cache, pass_time: Callable[[float], Awaitable[None]]
    ) -> None:
        await cache.set({"a": b"short"}, 1)
        await cache.set({"a": b"long"}, 60)
        await pass_time(1.5)
        assert await cache.get(["a"]) == [b"long"]

    async def test_an_entry_is_gone_after_its_ttl_and_others_stay(
        self, cache: Cache, pass_time: Callable[[float], Awaitable[None]]
    ) -> None:
        await cache.set({"short": b"1"}, 1)
        await cache.set({"long": b"2"}, 60)
        await pass_time(1.5)
        assert await cache.get(["short", "long"]) == [None, b"2"]

    async def test_reading_does_not_prolong_a_life(
        self, cache: Cache, pass_time: Callable[[float], Awaitable[None]]
    ) -> None:
        await cache.set({"a": b"1"}, 2)
        await pass_time(1)
        assert await cache.get(["a"]) == [b"1"]
        await pass_time(1.5)
        assert await cache.get(["a"]) == [None]

    async def test_a_ttl_of_zero_keeps_nothing(self, cache: Cache) -> None:
        await cache.set({"a": b"1"}, 60)
        await cache.set({"a": b"2"}, 0)
        assert await cache.get(["a"]) == [None]

    async def test_deleted_is_gone_and_deleting_twice_is_fine(self, cache: Cache) -> None:
        await cache.set({"a": b"1", "b": b"2"}, 60)
        await cache.delete(["a", "missing"])
        await cache.delete(["a"])
        assert await cache.get(["a", "b"]) == [None, b"2"]

    async def test_values_are_bytes_of_any_kind_and_keys_any_text(self, cache: Cache) -> None:
        values = {"": b"", "ż:ó/ł w": bytes(range(256)), "s:" + "x" * 500: b"\0"}
        await cache.set(values, 60)
        assert await cache.get(list(values)) == list(values.values())

    async def test_many_at_once_do_not_mix_up(self, cache: Cache) -> None:
        async def one(number: int) -> None:
            await cache.set({f"k{number}": str(number).encode()}, 60)
            assert await cache.get([f"k{number}"]) == [str(number).encode()]

        await asyncio.gather(*(one(number) for number in range(200)))

    async def test_it_answers_pings(self, cache: Cache) -> None:
        await cache.ping()
