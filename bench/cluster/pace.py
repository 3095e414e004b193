"""So many things in so much time, at so much CPU."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

from msgspec import Struct


class Pace(Struct, frozen=True):
    count: int
    wall_s: float
    cpu_s: float

    @property
    def per_s(self) -> float:
        return self.count / self.wall_s

    @property
    def cpu_us(self) -> float:
        """Of each."""
        return self.cpu_s / self.count * 1e6


def together(paces: Sequence[Pace]) -> Pace:
    """One after another."""
    return Pace(
        sum(pace.count for pace in paces), sum(pace.wall_s for pace in paces), sum(pace.cpu_s for pace in paces)
    )


def shares(ours: Sequence[Pace], ceilings: Sequence[Pace]) -> list[float]:
    """Ours as a share of the ceiling that was taken beside it."""
    return [mine.per_s / its.per_s for mine, its in zip(ours, ceilings, strict=True)]


def beside(ours: Sequence[Pace], ceilings: Sequence[Pace], of: str) -> str:
    """A note: both medians, and what they cost."""
    mine, its = median(pace.per_s for pace in ours), median(pace.per_s for pace in ceilings)
    costs = median(pace.cpu_us for pace in ours), median(pace.cpu_us for pace in ceilings)
    return f"{mine:,.0f} of {its:,.0f} {of}/s; {costs[0]:.0f} and {costs[1]:.0f} µs of CPU each"
