"""Role api on Pulsar: posts of one event, each of which is one message, beside the bare producer."""

from __future__ import annotations

import asyncio
from statistics import median

from bench import process, wrk
from bench.cluster import pace, producer
from bench.cluster.drain import reach
from bench.cluster.fill import fill
from bench.cluster.pace import Pace
from bench.cluster.rig import Installation, Servers, installation
from bench.table import Figure
from tests.acceptance.program import Program

SHARE = (0.35, 0.6)
WARM_UP_S = 15
EVENTS_PER_POST = 1


async def measure(servers: Servers, rounds: int, seconds: int) -> list[Figure]:
    """With the directory in Elasticsearch, as in a cluster, and with it on the disk, so that Pulsar is all there is."""
    cluster = await _measure(servers, rounds, seconds, "Pulsar and Elasticsearch")
    return await _measure(servers, rounds, seconds, "Pulsar", STORE_URL="sqlite:") + cluster


async def _measure(servers: Servers, rounds: int, seconds: int, on: str, **env: str) -> list[Figure]:
    ours: list[Pace] = []
    reports: list[wrk.Report] = []
    bares: list[Pace] = []
    async with installation(servers, **env) as made, made.program("api") as program:
        topic, partitions = made.topic, made.settings.queue_partitions

        async def bare(seconds: float) -> Pace:
            return await asyncio.to_thread(producer.produce, servers.pulsar, topic, partitions, seconds)

        await _known(made, program)
        await bare(WARM_UP_S)
        await asyncio.to_thread(wrk.run, program.base, EVENTS_PER_POST, WARM_UP_S, 0)
        for number in range(1, rounds + 1):
            bares.append(await bare(seconds))
            report, mine = await asyncio.to_thread(_post, program, seconds, number)
            reports.append(report)
            ours.append(mine)
    least, aim = SHARE
    shares = pace.shares(ours, bares)
    p99 = [report.p99_ms for report in reports]
    return [
        Figure(
            name=f"role api on {on}, messages/s as a share of a bare send_async producer",
            value=median(shares),
            runs=shares,
            least=least,
            aim=aim,
            note=pace.beside(ours, bares, "messages"),
        ),
        Figure(
            name=f"role api on {on}, latency p99, {wrk.CONNECTIONS} connections",
            unit="ms",
            value=median(p99),
            runs=p99,
            better="less",
            note=f"p50 {median(report.p50_ms for report in reports):.1f} ms",
        ),
    ]


async def _known(made: Installation, api: Program) -> None:
    """Let the store have what every store has but an empty one: a directory, which the door looks into."""
    async with made.program("worker"):
        await fill(api, 1000, 0)
        await reach(api, lambda now: not now.pending, 60)


def _post(program: Program, seconds: int, seed: int) -> tuple[wrk.Report, Pace]:
    before = process.cpu_seconds(program.pid)
    report = wrk.run(program.base, EVENTS_PER_POST, seconds, seed)
    return report, Pace(report.requests, report.seconds, process.cpu_seconds(program.pid) - before)
