"""Figures beside what they should be, as markdown or JSON."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median
from typing import Literal

from msgspec import Struct


class Figure(Struct, frozen=True, kw_only=True):
    """One line of the table. ``least`` and ``aim`` are bounds in the direction that ``better`` says."""

    name: str
    unit: str = ""
    value: float
    runs: list[float]
    """The value of each run; ``value`` is their median, unless the note says otherwise."""
    better: Literal["more", "less"] = "more"
    least: float | None = None
    aim: float | None = None
    note: str = ""

    @property
    def verdict(self) -> str:
        if self.least is None:
            return "–"
        if self.aim is not None and self._reaches(self.aim):
            return "aim"
        return "least" if self._reaches(self.least) else "MISSED"

    def _reaches(self, bound: float) -> bool:
        return self.value >= bound if self.better == "more" else self.value <= bound


def of_runs(runs: Sequence[float]) -> tuple[float, list[float]]:
    return median(runs), list(runs)


def markdown(figures: Sequence[Figure]) -> str:
    lines = ["| | measured | at least | aim | reached | runs | |", "|---|---|---|---|---|---|---|"]
    for figure in figures:
        sign = "≥" if figure.better == "more" else "≤"
        bounds = [f"{sign} {_number(bound)}" if bound is not None else "–" for bound in (figure.least, figure.aim)]
        runs = ", ".join(_number(run) for run in figure.runs)
        value = f"**{_number(figure.value)}** {figure.unit}".strip()
        lines.append(f"| {figure.name} | {value} | {' | '.join(bounds)} | {figure.verdict} | {runs} | {figure.note} |")
    return "\n".join(lines)


def _number(value: float) -> str:
    """Three digits that matter, and no exponent."""
    if value == 0:
        return "0"
    if abs(value) >= 100:
        return f"{value:,.0f}".replace(",", " ")
    return f"{value:.3g}"
