"""A site: one data directory and the processes on it."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from tests.acceptance.load import Load
from tests.acceptance.program import QUICK, Program


class Site:
    """An installation for one test. Programs made here are killed at its end, and their logs printed."""

    def __init__(self, folder: Path, template: Path, logs: Path | None = None) -> None:
        """``folder`` gets the data directory, a copy of ``template``; ``logs`` is for when its disk is to be full."""
        self.data_dir = folder / "data"
        self.logs = logs or folder
        self.programs: list[Program] = []
        shutil.copytree(template, self.data_dir)

    def program(self, role: str = "all", **options: Any) -> Program:
        name = options.pop("name", f"{role}-{len(self.programs) + 1}")
        env = {**QUICK, **options.pop("env", {})}
        program = Program(self.data_dir, role=role, name=name, logs=self.logs, env=env, **options)
        self.programs.append(program)
        return program

    def bases(self) -> list[str]:
        """Where events can be posted: the addresses of all but the workers."""
        return [program.base for program in self.programs if program.role != "worker" and program.port]

    def load(self, seed: int, **options: Any) -> Load:
        return Load(self.bases, seed, **options)

    def close(self) -> None:
        for program in self.programs:
            program.kill()
            print(program.log())
