"""The README and every page of the docs do what they say: their commands are run against a server of their own."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest

from tests.acceptance.program import Program
from tests.docs import blocks

pytestmark = pytest.mark.acceptance

ROOT = Path(__file__).parents[2]
PAGES = {
    str(page.relative_to(ROOT)): steps
    for page in sorted([ROOT / "README.md", *(ROOT / "docs").glob("**/*.md")])
    if page.exists() and (steps := blocks.steps(page.read_text()))
}


@pytest.mark.parametrize("page", PAGES)
def test_every_command_of_the_page_works(page: str, tmp_path: Path) -> None:
    data_dir = tmp_path / "tracardi-lite-data"  # the default, so that commands need not name it
    program = Program(data_dir, env={"BULK_IDLE": "0.1"}, name="server")
    asyncio.run(program.start())
    try:
        env = {"PATH": f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin"}
        outcome = blocks.run(PAGES[page], tmp_path, env, program.port)
    finally:
        program.kill()
    last = len(outcome.outputs) - 1
    for number, (step, output) in enumerate(zip(PAGES[page], outcome.outputs, strict=False)):
        said = f"{page}:{step.line}\n{step.command}\nprinted\n{output}"
        assert number < last or outcome.code == 0, f"{said}\nand ended with {outcome.code}\n{program.log()}"
        assert step.output is None or blocks.matches(output, step.output), f"{said}\ninstead of\n{step.output}"
    assert len(outcome.outputs) == len(PAGES[page])


def test_the_readme_has_commands_to_run() -> None:
    assert "README.md" in PAGES
