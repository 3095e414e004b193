"""Health that tells the truth: live is "the loop turns", ready is "the parts that this role needs work now".

A part is a probe that raises when the part would most likely fail; probes run at once, each within ``PROBE_S``, and
their answers serve for ``SERVE_S``, so that a fleet of checkers costs no more than one.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from tracardi_lite.clock import Clock
from tracardi_lite.errors import TryLater

PROBE_S = 2.0
SERVE_S = 0.5

Probe = Callable[[], Awaitable[None]]


class Health:
    """``state`` is ``starting``, ``serving`` or ``stopping``; only a serving program can be ready."""

    def __init__(self, clock: Clock) -> None:
        self.state = "starting"
        self._clock = clock
        self._probes: dict[str, Probe] = {}
        self._optional: set[str] = set()
        self._last: tuple[float, dict[str, str]] | None = None

    def add(self, part: str, probe: Probe, *, needed: bool = True) -> None:
        """``needed``: without it the program is not ready. Other parts are reported, and done without."""
        self._probes[part] = probe
        if not needed:
            self._optional.add(part)

    async def check(self) -> tuple[bool, dict[str, object]]:
        """(ready, report): the report names each part with ``ok`` or what is wrong with it."""
        parts = await self._parts()
        failing = sorted(part for part, state in parts.items() if state != "ok" and part not in self._optional)
        ready = self.state == "serving" and not failing
        report: dict[str, object] = {"status": "ready" if ready else "not ready", "state": self.state, "parts": parts}
        if failing:
            report["failing"] = failing
        return ready, report

    async def _parts(self) -> dict[str, str]:
        now = self._clock.monotonic()
        if self._last is not None and now - self._last[0] < SERVE_S:
            return self._last[1]
        states = await asyncio.gather(*(self._probe(probe) for probe in self._probes.values()))
        parts = dict(zip(self._probes, states, strict=True))
        self._last = (now, parts)
        return parts

    @staticmethod
    async def _probe(probe: Probe) -> str:
        try:
            async with asyncio.timeout(PROBE_S):
                await probe()
        except TimeoutError:
            return f"no answer within {PROBE_S:g} s"
        except TryLater as error:
            return error.reason
        except Exception as error:
            return f"{type(error).__name__}: {error}"
        return "ok"
