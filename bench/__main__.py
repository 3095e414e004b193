"""``python -m bench``: measures, and prints a table of figures beside their bounds."""

from __future__ import annotations

import argparse
import asyncio
import sys

from bench import door, hotspots, report, whole, wrk
from bench.table import Figure

PARTS = ("door-1", "door-100", "all", "soak")
SOAK_EVENTS = 300_000


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="one short round of each: a look, not a result")
    parser.add_argument("--only", choices=PARTS, action="append", help="this part alone (can be given again)")
    parser.add_argument("--soak", type=int, metavar="EVENTS", help=f"events of the soak ({SOAK_EVENTS:,})")
    parser.add_argument("--json", action="store_true", help="print JSON, for programs")
    parser.add_argument("--profile", choices=hotspots.PARTS, help="where the time goes, instead of how much it is")
    options = parser.parse_args()
    wrk.check()
    if options.profile:
        print(asyncio.run(hotspots.measure(options.profile)))
        return
    rounds, seconds = (1, 3) if options.quick else (3, 8)
    soak_events = options.soak or (30_000 if options.quick else SOAK_EVENTS)
    asyncio.run(_run(options.only or PARTS, rounds, seconds, soak_events, options.json))


async def _run(parts: list[str] | tuple[str, ...], rounds: int, seconds: int, soak_events: int, json: bool) -> None:
    before = report.machine()
    figures: list[Figure] = []
    for part in parts:
        print(f"measuring {part} …", file=sys.stderr)
        if part == "all":
            figures += await whole.measure(rounds, seconds)
        elif part == "soak":
            figures += await whole.soak(soak_events)
        else:
            figures += await door.measure(int(part.removeprefix("door-")), rounds, seconds)
    report.show(before, figures, json=json)


if __name__ == "__main__":
    main()
