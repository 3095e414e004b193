"""Takes the code blocks out of a page and runs them as its reader would: in order, in one shell.

    ```sh        commands; each must end with 0
    ```console   a transcript: lines with `$ ` are commands, the others their output, in which `…` stands for anything
    ```text      and all other languages: not run

The default port 8686 in a page is replaced by the port of the server that runs for the test.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

PAGE_S = 120.0
_FENCE = re.compile(r"^(?P<indent> *)```(?P<tag>\w*)[^\n]*\n(?P<body>.*?)^(?P=indent)```$", re.MULTILINE | re.DOTALL)
_MARK = "@@tracardi-lite-docs"


@dataclass
class Step:
    """One command, or one block of them, and what it must print (None: anything)."""

    line: int
    command: str
    output: str | None = None


@dataclass
class Outcome:
    """What the shell said: the output of each step that was reached, and how it ended."""

    outputs: list[str] = field(default_factory=list)
    code: int = 0


def steps(page: str) -> list[Step]:
    found: list[Step] = []
    for match in _FENCE.finditer(page):
        line = page.count("\n", 0, match.start()) + 2
        body = re.sub(rf"^{match['indent']}", "", match["body"], flags=re.MULTILINE)
        if match["tag"] == "sh":
            found.append(Step(line, body))
        elif match["tag"] == "console":
            found += _transcript(body, line)
    return found


def _transcript(body: str, line: int) -> list[Step]:
    found: list[Step] = []
    continued = False
    for offset, text in enumerate(body.splitlines()):
        if text.startswith("$ "):
            found.append(Step(line + offset, text[2:] + "\n", ""))
        elif not found:
            raise ValueError(f"line {line + offset}: a console block begins with a command, `$ …`")
        elif continued:
            found[-1].command += text.removeprefix("> ") + "\n"
        else:
            found[-1].output = f"{found[-1].output}{text}\n"
        last = found[-1].command.rstrip("\n") if not found[-1].output else ""
        continued = last.endswith("\\")
    return found


def run(steps: list[Step], folder: Path, env: Mapping[str, str], port: int) -> Outcome:
    """Runs them in one bash, which stops at the first that fails. Ends whatever they have started."""
    script = ["set -euo pipefail"]
    for number, step in enumerate(steps):
        script += [f"echo '{_MARK} {number}'", step.command.replace("8686", str(port)).rstrip("\n")]
    with subprocess.Popen(
        ["bash", "-c", "\n".join(script)],
        cwd=folder,
        env={"PATH": os.environ["PATH"], "HOME": str(folder), "LANG": "C.UTF-8", **env},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    ) as shell:
        try:
            text, _ = shell.communicate(timeout=PAGE_S)
        except subprocess.TimeoutExpired:
            os.killpg(shell.pid, signal.SIGKILL)
            text, _ = shell.communicate()
            text += f"\n(killed after {PAGE_S:g} s)"
    outputs = [part.partition("\n")[2] for part in text.split(f"{_MARK} ")[1:]]
    return Outcome(outputs, shell.returncode)


def matches(output: str, expected: str) -> bool:
    """Whether the output is the expected text, `…` standing for any characters, or, alone on a line, any lines."""
    pattern = r"[\s\S]*?".join(re.escape(part) for part in expected.strip().split("…"))
    return re.fullmatch(pattern, output.strip()) is not None
