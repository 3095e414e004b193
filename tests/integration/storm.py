"""A storm: faults at random on a cluster under load, several at a time, each of which ends.

What happens when is planned from a seed beforehand, and printed, so that a storm can come again as far as the kernel's
timing allows. Within a target, one fault waits for the end of the one before.
"""

from __future__ import annotations

import asyncio
import random
import signal
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass

from tests.acceptance.program import Program
from tests.integration.cluster import Cluster
from tests.integration.elastic_proxy import Crowd, Proxy

PAUSE_S = (0.5, 5.0)
"""Between the beginnings of two faults."""

HOLD_S: Mapping[str, tuple[float, float]] = {
    "api-1 killed": (0.0, 3.0),
    "api-2 killed": (0.0, 3.0),
    "worker-1 killed": (0.0, 5.0),
    "worker-2 killed": (0.0, 5.0),
    "worker-1 paused": (0.5, 9.0),
    "worker-2 paused": (0.5, 9.0),
    "pulsar killed": (0.0, 6.0),
    "pulsar stopped": (0.0, 3.0),
    "elasticsearch killed": (0.0, 6.0),
    "elasticsearch stopped": (0.0, 3.0),
    "elasticsearch crowded": (3.0, 9.0),
    "redis killed": (0.0, 8.0),
    "mariadb killed": (0.0, 8.0),
}
"""By fault (a target, and what is done to it): how long before what ends it begins. A server needs some seconds more
until it is back; a paused worker is given up by the broker after six."""


@dataclass(frozen=True)
class Step:
    at_s: float
    fault: str
    hold_s: float

    def __str__(self) -> str:
        return f"{self.at_s:5.1f} s: {self.fault} for {self.hold_s:.1f} s"


def plan(seed: int, seconds: float) -> list[Step]:
    """The faults that begin within the time, in order."""
    random_ = random.Random(seed)
    steps = []
    at_s = 0.0
    while (at_s := at_s + random_.uniform(*PAUSE_S)) < seconds:
        fault = random_.choice(list(HOLD_S))
        steps.append(Step(at_s, fault, random_.uniform(*HOLD_S[fault])))
    return steps


class Storm:
    """Works a plan off. ``proxy`` stands between the cluster's processes and its Elasticsearch."""

    def __init__(self, cluster: Cluster, proxy: Proxy, seed: int) -> None:
        self._cluster = cluster
        self._proxy = proxy
        self._seed = seed
        self._programs = {program.name: program for program in cluster.programs}
        self._busy: dict[str, asyncio.Lock] = {}

    async def blow(self, steps: list[Step]) -> None:
        """Returns when the last fault has ended: all servers are back, and every process runs."""
        for step in steps:
            print(step)
        begun = asyncio.get_running_loop().time()
        async with asyncio.TaskGroup() as group:
            for step in steps:
                group.create_task(self._step(step, begun + step.at_s))

    async def _step(self, step: Step, at: float) -> None:
        await asyncio.sleep(at - asyncio.get_running_loop().time())
        target, what = step.fault.split()
        async with self._busy.setdefault(target, asyncio.Lock()), self._fault(target, what):
            await asyncio.sleep(step.hold_s)

    def _fault(self, target: str, what: str) -> AbstractAsyncContextManager[None]:
        faults: Mapping[str, Callable[[str], AbstractAsyncContextManager[None]]] = {
            "killed": self._killed,
            "stopped": self._stopped,
            "paused": self._paused,
            "crowded": self._crowded,
        }
        return faults[what](target)

    @asynccontextmanager
    async def _killed(self, target: str) -> AsyncIterator[None]:
        program = self._programs.get(target)
        if program is None:
            await self._cluster.stop(target, "--kill")
            yield
            await self._cluster.start(target)
        else:
            self._must_live(program)
            program.kill()
            yield
            program.launch()  # it may have to wait for its servers

    @asynccontextmanager
    async def _stopped(self, target: str) -> AsyncIterator[None]:
        await self._cluster.stop(target)
        yield
        await self._cluster.start(target)

    @asynccontextmanager
    async def _paused(self, target: str) -> AsyncIterator[None]:
        program = self._programs[target]
        self._must_live(program)
        program.send(signal.SIGSTOP)
        yield
        program.send(signal.SIGCONT)

    @asynccontextmanager
    async def _crowded(self, target: str) -> AsyncIterator[None]:
        self._proxy.crowd = Crowd(random.Random(self._seed))
        yield
        self._proxy.crowd = None

    def _must_live(self, program: Program) -> None:
        assert program.alive, f"{program.name} ended by itself\n{program.log()}"
