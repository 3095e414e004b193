"""Look-ups that are gathered: few requests, and nobody gets another's answer or an older one."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from tracardi_lite.backends.store.elasticsearch.gathering import IN_FLIGHT, KEYS_MAX, Gathering
from tracardi_lite.errors import Unavailable
from tracardi_lite.testing.clock import eventually


class Server:
    """Answers each request when it is told to."""

    def __init__(self) -> None:
        self.requests: list[tuple[list[str], asyncio.Future[None]]] = []
        self.gathering = Gathering(self._ask)

    async def _ask(self, keys: Sequence[str]) -> list[str]:
        answered: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.requests.append((list(keys), answered))
        await answered
        return [key.upper() for key in keys]

    def ask(self, *keys: str) -> asyncio.Task[list[str]]:
        return asyncio.create_task(self.gathering(keys))

    async def received(self, count: int) -> None:
        await eventually(lambda: len(self.requests) == count)

    def answer(self, number: int, error: Exception | None = None) -> None:
        if error is None:
            self.requests[number][1].set_result(None)
        else:
            self.requests[number][1].set_exception(error)

    async def busy(self) -> list[asyncio.Task[list[str]]]:
        """As many requests under way as may be: who asks now is gathered."""
        tasks = [self.ask(f"first{number}") for number in range(IN_FLIGHT)]
        await self.received(IN_FLIGHT)
        return tasks


async def test_the_first_wait_for_nobody_and_those_who_come_meanwhile_share_the_next_request() -> None:
    server = Server()
    firsts = await server.busy()
    later = [server.ask("b", "a"), server.ask("a", "c"), server.ask()]
    assert await later[2] == []
    assert len(server.requests) == IN_FLIGHT
    server.answer(0)
    await server.received(IN_FLIGHT + 1)
    assert server.requests[-1][0] == ["b", "a", "c"]
    for number in range(1, IN_FLIGHT + 1):
        server.answer(number)
    assert await asyncio.gather(*firsts) == [[f"FIRST{number}"] for number in range(IN_FLIGHT)]
    assert await asyncio.gather(*later) == [["B", "A"], ["A", "C"], []]


async def test_a_request_that_fails_fails_those_who_asked_and_nobody_after_them() -> None:
    server = Server()
    firsts = await server.busy()
    fails = [server.ask("a"), server.ask("b")]
    server.answer(0)
    await server.received(IN_FLIGHT + 1)
    goes_on = server.ask("c")
    server.answer(IN_FLIGHT, Unavailable("store", "is away"))
    for caller in fails:
        with pytest.raises(Unavailable):
            await caller
    await server.received(IN_FLIGHT + 2)
    for number in range(1, IN_FLIGHT):
        server.answer(number)
    server.answer(IN_FLIGHT + 1)
    assert await goes_on == ["C"]
    await asyncio.gather(*firsts)


async def test_a_caller_who_is_cancelled_leaves_the_answer_to_the_others() -> None:
    server = Server()
    await server.busy()
    gone, stays = server.ask("a"), server.ask("a", "b")
    server.answer(0)
    await server.received(IN_FLIGHT + 1)
    gone.cancel()
    with pytest.raises(asyncio.CancelledError):
        await gone
    server.answer(IN_FLIGHT)
    assert await stays == ["A", "B"]


async def test_a_request_holds_no_more_than_it_may_but_all_of_one_caller() -> None:
    server = Server()
    await server.busy()
    many = [f"k{number}" for number in range(KEYS_MAX - 1)]
    waiting = [server.ask(*many), server.ask("x", "y"), server.ask(*many, "z1", "z2")]
    for number in range(IN_FLIGHT + len(waiting)):
        await server.received(min(number + IN_FLIGHT, IN_FLIGHT + len(waiting)))
        server.answer(number)
    assert [len(answer) for answer in await asyncio.gather(*waiting)] == [KEYS_MAX - 1, 2, KEYS_MAX + 1]
    assert [len(keys) for keys, _ in server.requests[IN_FLIGHT:]] == [KEYS_MAX - 1, 2, KEYS_MAX + 1]
