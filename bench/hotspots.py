"""Where the time goes, in two views that together tell the truth about a program of several threads.

CPU by thread, from ``/proc``: all of it, whoever holds the interpreter lock. And where that lock is held, by py-spy a
hundred times a second: only Python code, since SQLite, compression and system calls give the lock back.
"""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import subprocess
import sys
import time
from collections import Counter, defaultdict
from collections.abc import Mapping
from pathlib import Path

from bench import feed, process, servers, wrk
from tests.acceptance.program import Program

PARTS = ("door-1", "door-100", "all")
SECONDS = 10
LOOK_S = 2 * SECONDS + 5
RATE_HZ = 100
SHOWN = 15
LEAST_SHARE = 0.002
_FRAME = re.compile(r"^(?P<function>.+?) \((?P<file>[^:()]+)(?::\d+)?\)$")


async def measure(part: str) -> str:
    """Markdown tables. ``part`` is one of PARTS: the door at 1 or 100 events per post, or the whole program, fed."""
    async with servers.ours("all" if part == "all" else "api") as program:
        if part == "all":
            async with feed.feed(program, 1) as feeding:
                await feeding.stored(10_000, 60)
                return await asyncio.to_thread(look, program)
        events = int(part.removeprefix("door-"))
        load = asyncio.create_task(asyncio.to_thread(wrk.run, program.base, events, LOOK_S, 1))
        tables = await asyncio.to_thread(look, program)
        await load
        return tables


def look(program: Program) -> str:
    """A program at work, as markdown tables; takes no longer than LOOK_S. Blocks; for a thread."""
    spy = shutil.which("py-spy") or shutil.which("py-spy", path=str(Path(sys.executable).parent))
    if spy is None:
        raise SystemExit("--profile needs py-spy: .venv/bin/pip install py-spy")
    out = program.data_dir.parent / "stacks"
    threads = _look(spy, program.pid, out)
    return f"{_by_thread(threads)}\n\n{_by_function(out.read_text())}"


def _look(spy: str, pid: int, out: Path) -> Mapping[str, float]:
    """First CPU by thread, in seconds per second; then, since looking costs time, samples of stacks into ``out``."""
    dump = subprocess.run([spy, "dump", "--json", "--pid", str(pid)], check=True, capture_output=True).stdout
    names = {thread["os_thread_id"]: thread["thread_name"] for thread in json.loads(dump)}
    before = process.cpu_seconds_by_thread(pid)
    time.sleep(SECONDS)
    after = process.cpu_seconds_by_thread(pid)
    command = [spy, "record", "--pid", str(pid), "--duration", str(SECONDS), "--rate", str(RATE_HZ), "--gil"]
    subprocess.run([*command, "--format", "raw", "--output", str(out)], check=True, capture_output=True)
    used: defaultdict[str, float] = defaultdict(float)
    for thread, seconds in after.items():
        used[names.get(thread, "of libraries")] += seconds - before.get(thread, 0.0)
    return {name: seconds / SECONDS for name, seconds in used.items()}


def _by_thread(used: Mapping[str, float]) -> str:
    rows = sorted(used.items(), key=lambda item: -item[1])
    lines = [f"| {name} | {share:.1%} |" for name, share in rows if share >= LEAST_SHARE]
    return "\n".join(["| thread | of one core |", "|---|---|", *lines])


def _by_function(stacks: str) -> str:
    own: Counter[str] = Counter()
    total: Counter[str] = Counter()
    for line in stacks.splitlines():
        frames, _, count = line.rpartition(" ")
        names = [_name(frame) for frame in frames.split(";")]
        own[names[-1]] += int(count)
        for name in set(names):
            total[name] += int(count)
    samples = sum(own.values())
    ours = {name: count for name, count in total.items() if name.startswith("tracardi_lite")}

    def rows(counts: Mapping[str, int]) -> list[str]:
        ranked = sorted(counts.items(), key=lambda item: -item[1])[:SHOWN]
        return [f"| `{name}` | {count / samples:.1%} |" for name, count in ranked]

    lines = [f"The lock was held in {samples / SECONDS / RATE_HZ:.0%} of the looks.", ""]
    lines += ["| Python code, by itself | share |", "|---|---|", *rows(own), ""]
    lines += ["| ours, with what it calls | share |", "|---|---|", *rows(ours)]
    return "\n".join(lines)


def _name(frame: str) -> str:
    match = _FRAME.match(frame)
    if match is None:
        return frame
    # From the last folder that is a root of packages on; ours may stand under two names, link and target.
    file = re.sub(r"^.*(?:site-packages|lib/python[\d.]+|src)/", "", match["file"])
    file = re.sub(r"^.*?(?=backends/)", "tracardi_lite/", file)
    return f"{file.removesuffix('.py').replace('/', '.')}:{match['function']}"
