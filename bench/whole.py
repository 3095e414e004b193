"""The whole program: role all, from the post to the stored row; then idle; and memory over a long run."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

from bench import feed, process, raw, servers
from bench.table import Figure, of_runs

WARM_UP_EVENTS = 20_000
IDLE_S = 20.0
IDLE_LEAST_PERCENT = 0.5
SHARE = (0.25, 0.5)
SOAK_SAMPLES = 60
SOAK_WARM_UP = 0.25
"""The part of a soak that is left out of the slope: caches fill, the allocator settles."""
SLOWEST_RATE = 500.0
"""Events per second below which a run is given up."""


async def measure(rounds: int, seconds: float) -> list[Figure]:
    """Events stored end to end as a share of raw ``executemany``, their CPU, memory; then CPU when idle."""
    shares, rates, raws, cpus, peaks = [], [], [], [], []
    async with servers.ours("all") as program:
        for number in range(rounds):
            async with feed.feed(program, number) as feeding:
                await feeding.stored(WARM_UP_EVENTS, WARM_UP_EVENTS / SLOWEST_RATE)
                before, cpu = await feed.progress(program), process.cpu_seconds(program.pid)
                with process.Peak(program.pid) as peak:
                    await asyncio.sleep(seconds)
                after = await feed.progress(program)
                cpu = process.cpu_seconds(program.pid) - cpu
            await feed.drain(program)
            stored = after.stored - before.stored
            rates.append(stored / (after.at_s - before.at_s))
            cpus.append(cpu / stored * 1e6)
            peaks.append(peak.bytes / 2**20)
            raws.append(await asyncio.to_thread(_raw, program.data_dir, number))
            shares.append(rates[-1] / raws[-1])
        idle = await _idle_percent(program.pid)
    share, rate, ceiling = of_runs(shares), of_runs(rates), of_runs(raws)
    note = f"{rate[0]:,.0f} of {ceiling[0]:,.0f} rows/s"
    return [
        _figure("stored end to end as a share of raw executemany, 100 per post", share, "", SHARE, "more", note),
        _figure("CPU per million events, role all, 100 per post", of_runs(cpus), "s"),
        _figure("memory (PSS) under that load, role all, peak", of_runs(peaks), "MiB"),
        _figure(f"CPU when idle, role all, over {IDLE_S:g} s", (idle, [idle]), "%", (IDLE_LEAST_PERCENT, None)),
    ]


async def soak(events: int) -> list[Figure]:
    """The slope of memory over that many events, after a warm-up, by least squares."""
    points: list[tuple[float, float]] = []
    async with servers.ours("all") as program, feed.feed(program, 0) as feeding:
        begun = time.monotonic()
        for _ in range(SOAK_SAMPLES):
            step = events / SOAK_SAMPLES
            now = await feeding.stored(step, step / SLOWEST_RATE + 30)
            points.append((now.stored / 1e6, process.pss_bytes(program.pid) / 2**20))
        seconds = time.monotonic() - begun
    settled = points[int(len(points) * SOAK_WARM_UP) :]
    first, last = settled[0][1], settled[-1][1]
    note = f"from {first:.0f} to {last:.0f} MiB; {events / 1e6:g} million events in {seconds:.0f} s"
    value = _slope(settled)
    return [_figure("slope of memory, role all", (value, [value]), "MiB per million events", note=note)]


def _figure(
    name: str,
    measured: tuple[float, list[float]],
    unit: str,
    bounds: tuple[float | None, float | None] = (None, None),
    better: str = "less",
    note: str = "",
) -> Figure:
    return Figure(
        name=name,
        unit=unit,
        value=measured[0],
        runs=measured[1],
        least=bounds[0],
        aim=bounds[1],
        better="more" if better == "more" else "less",
        note=note,
    )


def _raw(data_dir: Path, number: int) -> float:
    partition = max(raw.partition_files(data_dir), key=lambda file: file.stat().st_size)
    into = data_dir.parent / f"raw-{number}.sqlite"
    return raw.rows_per_second(partition, into)


async def _idle_percent(pid: int) -> float:
    """CPU of one core that is used with nothing to do, in percent."""
    before = process.cpu_seconds(pid)
    await asyncio.sleep(IDLE_S)
    return (process.cpu_seconds(pid) - before) / IDLE_S * 100


def _slope(points: list[tuple[float, float]]) -> float:
    mean_x = sum(x for x, _ in points) / len(points)
    mean_y = sum(y for _, y in points) / len(points)
    spread = sum((x - mean_x) ** 2 for x, _ in points)
    return sum((x - mean_x) * (y - mean_y) for x, y in points) / spread
