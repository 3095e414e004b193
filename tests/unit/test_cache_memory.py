"""What the conformance suite can't ask of every cache: the bound, and who goes first."""

from __future__ import annotations

from collections import OrderedDict

from hypothesis import given
from hypothesis import strategies as st

from tracardi_lite.backends.cache.memory import MemoryCache, open_cache
from tracardi_lite.backends.cache.words import HEARD_MAX
from tracardi_lite.ports.cache import HOLD_S
from tracardi_lite.settings import Settings
from tracardi_lite.testing.clock import FakeClock


async def test_the_least_recently_used_goes_first() -> None:
    cache = MemoryCache(2, FakeClock())
    await cache.add({"a": b"1", "b": b"2"}, 60)
    await cache.get(["a"])
    await cache.add({"c": b"3"}, 60)
    assert await cache.get(["a", "b", "c"]) == [b"1", None, b"3"]


async def test_one_call_with_more_than_fits_keeps_the_last_ones() -> None:
    cache = MemoryCache(3, FakeClock())
    await cache.add({str(number): b"x" for number in range(10)}, 60)
    assert len(cache) == 3
    assert await cache.get(["9", "0"]) == [b"x", None]


async def test_its_size_is_the_setting_and_leaving_empties_it() -> None:
    async with open_cache("memory:", Settings(directory_cache_size=100)) as cache:
        await cache.add({str(number): b"x" for number in range(150)}, 60)
        assert len(cache) == 100
    assert len(cache) == 0


async def test_a_listener_that_is_far_behind_is_told_so_and_listens_on() -> None:
    cache = MemoryCache(3, FakeClock())
    moves = cache.moves()
    await cache.announce([str(number) for number in range(HEARD_MAX)])
    assert len(moves.heard() or ()) == HEARD_MAX
    await cache.announce([str(number) for number in range(HEARD_MAX + 1)])
    assert moves.heard() is None
    await cache.announce(["a"])
    assert moves.heard() == ["a"]


@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("add"), st.sampled_from("abcdef"), st.floats(0, 10)),
            st.tuples(st.just("get"), st.sampled_from("abcdef"), st.just(0.0)),
            st.tuples(st.just("announce"), st.sampled_from("abcdef"), st.just(0.0)),
            st.tuples(st.just("wait"), st.just(""), st.floats(0, 5)),
        ),
        max_size=40,
    )
)
async def test_it_behaves_like_the_obvious_model(steps: list[tuple[str, str, float]]) -> None:
    clock = FakeClock(monotonic=0.0)
    cache = MemoryCache(3, clock)
    model: OrderedDict[str, tuple[float, bytes | None]] = OrderedDict()

    def keep(key: str, until: float, value: bytes | None) -> None:
        model.pop(key, None)
        model[key] = (until, value)
        while len(model) > 3:
            model.popitem(last=False)

    for number, (act, key, seconds) in enumerate(steps):
        if act == "wait":
            clock.advance(seconds)
        elif act == "announce":
            await cache.announce([key])
            keep(key, clock.monotonic() + HOLD_S, None)
        elif act == "get":
            expires, value = model.get(key, (0.0, None))
            if key in model and expires <= clock.monotonic():
                del model[key]
            expected = value if key in model else None
            if key in model:
                model.move_to_end(key)
            assert await cache.get([key]) == [expected]
        else:
            await cache.add({key: str(number).encode()}, seconds)
            if seconds > 0 and model.get(key, (0.0, None))[0] <= clock.monotonic():
                keep(key, clock.monotonic() + seconds, str(number).encode())
        assert len(cache) <= 3
