"""Bulks in flight: bounded, halved by refusals, grown by rounds that go well, and no place is ever lost."""

from __future__ import annotations

import asyncio
import random

import pytest

from tracardi_lite.backends.store.elasticsearch.flight import Flight


async def test_never_more_are_in_flight_than_there_are_places() -> None:
    flight, now, most = Flight(3), 0, 0

    async def one() -> None:
        nonlocal now, most
        async with flight.place():
            now += 1
            most = max(most, now)
            await asyncio.sleep(0)
            now -= 1

    await asyncio.gather(*(one() for _ in range(50)))
    assert (most, now) == (3, 0)


async def test_refusals_of_requests_under_way_together_count_once() -> None:
    flight = Flight(8)
    start = flight.places

    async def refused() -> None:
        async with flight.place() as place:
            await asyncio.sleep(0)
            place.refused = True

    await asyncio.gather(*(refused() for _ in range(start)))
    assert flight.places == start // 2
    for _ in range(10):
        await refused()
    assert flight.places == 1


async def test_it_grows_only_when_all_places_are_taken_and_not_beyond_the_bound() -> None:
    flight = Flight(6)

    async def well() -> None:
        async with flight.place():
            await asyncio.sleep(0)

    for _ in range(100):
        await well()
    assert flight.places == 4
    for _ in range(100):
        await asyncio.gather(*(well() for _ in range(10)))
    assert flight.places == 6


async def test_a_failing_request_gives_its_place_back() -> None:
    flight = Flight(1)
    for _ in range(3):
        with pytest.raises(RuntimeError):
            async with flight.place():
                raise RuntimeError
    async with asyncio.timeout(5), flight.place():
        pass


async def test_cancelled_waiters_lose_no_place(seed: int) -> None:
    random_ = random.Random(seed)
    flight = Flight(2)

    async def one() -> None:
        async with flight.place():
            for _ in range(random_.randrange(3)):
                await asyncio.sleep(0)

    for _ in range(50):
        tasks = [asyncio.create_task(one()) for _ in range(10)]
        for _ in range(random_.randrange(5)):
            await asyncio.sleep(0)
        for task in random_.sample(tasks, 4):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    async with asyncio.timeout(5), flight.place(), flight.place():
        pass
