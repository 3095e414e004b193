"""``python -m bench.cluster``: starts Pulsar and Elasticsearch, measures the program on them, prints a table."""

from __future__ import annotations

import argparse
import asyncio
import sys

from bench import report, wrk
from bench.cluster import door, drain, fresh, hotspots, ports, rig, scale
from bench.table import Figure

PARTS = ("api", "worker", "scale", "fresh", "backlog", "queue", "store")


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.cluster", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one short round of each: a look, not a result")
    parser.add_argument("--only", choices=PARTS, action="append", help="this part alone (can be given again)")
    parser.add_argument("--backlog", type=int, metavar="EVENTS", help="how large the backlog is that is drained")
    parser.add_argument("--json", action="store_true", help="print JSON, for programs")
    parser.add_argument("--profile", choices=hotspots.PARTS, help="where the time goes, instead of how much it is")
    options = parser.parse_args()
    wrk.check()
    before = report.machine()
    with rig.servers() as servers:
        if options.profile:
            print(asyncio.run(hotspots.measure(servers, options.profile)))
            return
        figures = asyncio.run(_run(servers, options.only or PARTS, quick=options.quick, backlog=options.backlog))
    report.show(before, figures, json=options.json)


async def _run(servers: rig.Servers, parts: list[str] | tuple[str, ...], *, quick: bool, backlog: int) -> list[Figure]:
    rounds, seconds = (1, 5) if quick else (3, 8)
    figures: list[Figure] = []
    for part in parts:
        print(f"measuring {part} …", file=sys.stderr)
        match part:
            case "api":
                figures += await door.measure(servers, rounds, seconds)
            case "worker":
                figures += await drain.measure(servers, rounds, 30_000 if quick else 150_000)
            case "scale":
                figures += await scale.measure(servers, rounds, 30_000 if quick else 50_000)
            case "fresh":
                figures += await fresh.measure(servers)
            case "backlog":
                figures += await drain.backlog(servers, backlog or (100_000 if quick else 1_000_000))
            case "queue":
                figures += await ports.queue(servers, rounds, seconds)
            case "store":
                figures += await ports.store(servers, rounds, 20_000)
    return figures


if __name__ == "__main__":
    main()
