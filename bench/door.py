"""The door: role api, durable answers; ours and the bare server in turn, so that a noisy minute hits both."""

from __future__ import annotations

import asyncio
from statistics import median
from typing import Literal

from msgspec import Struct

from bench import process, servers, wrk
from bench.table import Figure, of_runs

# Per number of events in a post: the bounds of the ratio to bare (at least, aim).
RATIOS = {1: (0.50, 0.70), 100: (0.12, 0.25)}
WARM_UP_S = 2


class Run(Struct, frozen=True):
    """One run against our server."""

    report: wrk.Report
    events: int
    cpu_s: float
    pss_bytes: int

    @property
    def cpu_s_per_million(self) -> float:
        return self.cpu_s / self.events * 1e6


async def measure(events_per_post: int, rounds: int, seconds: int) -> list[Figure]:
    """Throughput as a share of bare, CPU, latency and memory, at that many events per post."""
    async with servers.ours("api") as program:
        with servers.bare() as bare:
            for base in (bare.base, program.base):
                await asyncio.to_thread(wrk.run, base, events_per_post, WARM_UP_S, 0)
            ours: list[Run] = []
            bares: list[wrk.Report] = []
            for number in range(1, rounds + 1):
                bares.append(await asyncio.to_thread(wrk.run, bare.base, events_per_post, seconds, number))
                ours.append(await asyncio.to_thread(_run, program.base, program.pid, events_per_post, seconds, number))
    return _figures(events_per_post, ours, bares)


def _run(base: str, pid: int, events_per_post: int, seconds: int, seed: int) -> Run:
    before = process.cpu_seconds(pid)
    with process.Peak(pid) as peak:
        report = wrk.run(base, events_per_post, seconds, seed)
    return Run(report, report.requests * events_per_post, process.cpu_seconds(pid) - before, peak.bytes)


def _figures(events_per_post: int, ours: list[Run], bares: list[wrk.Report]) -> list[Figure]:
    per = f"{events_per_post} per post"
    least, aim = RATIOS[events_per_post]
    ratios = [run.report.rate / bare.rate for run, bare in zip(ours, bares, strict=True)]
    bulk = events_per_post > 1
    rate, bare_rate = (
        median(run.report.rate for run in ours) * events_per_post,
        median(bare.rate for bare in bares) * events_per_post,
    )

    def figure(
        name: str,
        runs: list[float],
        unit: str,
        bounds: tuple[float, float] | None,
        better: Literal["more", "less"] = "less",
        note: str = "",
    ) -> Figure:
        value, kept = of_runs(runs)
        low, high = bounds or (None, None)
        return Figure(
            name=f"{name}, {per}", unit=unit, value=value, runs=kept, better=better, least=low, aim=high, note=note
        )

    return [
        figure(
            "events/s as a share of bare", ratios, "", (least, aim), "more", f"{rate:,.0f} of {bare_rate:,.0f} events/s"
        ),
        figure("CPU per million events", [run.cpu_s_per_million for run in ours], "s", (15, 8) if bulk else None),
        figure(
            "latency p99",
            [run.report.p99_ms for run in ours],
            "ms",
            (150, 80) if bulk else None,
            note=f"p50 {median(run.report.p50_ms for run in ours):.1f} ms, "
            f"bare {median(bare.p50_ms for bare in bares):.1f}/{median(bare.p99_ms for bare in bares):.1f}",
        ),
        figure("memory (PSS), peak", [run.pss_bytes / 2**20 for run in ours], "MiB", (90, 60) if bulk else None),
    ]
