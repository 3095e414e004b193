"""Where the time goes: py-spy looks at the process a hundred times a second while it is under load."""

from __future__ import annotations

import asyncio
import re
import shutil
import sys
from collections import Counter
from pathlib import Path

from bench import feed, servers, wrk

SECONDS = 10
RATE_HZ = 100
SHOWN = 18
_FRAME = re.compile(r"^(?P<function>.+?) \((?P<file>[^:()]+)(?::\d+)?\)$")


async def measure(role: str) -> str:
    """A markdown table of the functions that time was spent in, and of the packages."""
    spy = shutil.which("py-spy") or shutil.which("py-spy", path=str(Path(sys.executable).parent))
    if spy is None:
        raise SystemExit("--profile needs py-spy: .venv/bin/pip install py-spy")
    async with servers.ours("api" if role == "api" else "all") as program:
        out = program.data_dir.parent / "stacks"
        command = [spy, "record", "--pid", str(program.pid), "--duration", str(SECONDS), "--rate", str(RATE_HZ)]
        command += ["--format", "raw", "--native", "--output", str(out)]
        if role == "api":
            load = asyncio.create_task(asyncio.to_thread(wrk.run, program.base, 100, SECONDS + 3, 1))
            await _record(command)
            await load
        else:
            async with feed.feed(program, 1) as feeding:
                await feeding.stored(10_000, 60)
                await _record(command)
        return _report(out.read_text())


async def _record(command: list[str]) -> None:
    process = await asyncio.create_subprocess_exec(*command, stderr=asyncio.subprocess.PIPE)
    _, errors = await process.communicate()
    if process.returncode:
        raise RuntimeError(errors.decode())


def _report(stacks: str) -> str:
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

    def rows(counts: dict[str, int]) -> list[str]:
        ranked = sorted(counts.items(), key=lambda item: -item[1])[:SHOWN]
        return [f"| `{name}` | {count / samples:.1%} |" for name, count in ranked]

    lines = [f"{samples} samples", "", "| time in itself | share |", "|---|---|", *rows(dict(own))]
    lines += ["", "| with what it calls | share |", "|---|---|", *rows(ours)]
    return "\n".join(lines)


def _name(frame: str) -> str:
    match = _FRAME.match(frame)
    if match is None:
        return frame
    # From the last folder that is a root of packages on; ours may stand under two names, link and target.
    file = re.sub(r"^.*(?:site-packages|lib/python[\d.]+|src)/", "", match["file"])
    file = re.sub(r"^.*?(?=backends/)", "tracardi_lite/", file)
    return f"{file.removesuffix('.py').replace('/', '.')}:{match['function']}"
