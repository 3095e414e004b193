"""A first start that fails must not cost the only sight of the admin's password."""

from __future__ import annotations

import socket
import subprocess
from pathlib import Path

import pytest

from tests.acceptance.program import EXECUTABLE, Program

pytestmark = pytest.mark.acceptance


async def test_a_first_start_on_a_port_that_is_taken_makes_nothing(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        program = Program(tmp_path / "data", port=other.getsockname()[1])
        program.launch()
        assert await program.ended(20) == 2

    assert "is in use" in program.log()
    assert not (tmp_path / "data").exists()


@pytest.mark.parametrize("command", [["serve", "--port", "0"], ["install", "--username", "a@example.com"]])
def test_a_data_directory_that_can_not_be_is_named_with_its_setting_the_reason_and_the_fix(
    tmp_path: Path, command: list[str]
) -> None:
    (tmp_path / "file").write_text("")
    place = tmp_path / "file" / "data"
    done = subprocess.run(
        [str(EXECUTABLE), *command, "--data-dir", str(place)], capture_output=True, text=True, timeout=30, check=False
    )
    assert done.returncode == 2
    assert f"data_dir: can't make {place}: Not a directory." in done.stderr
    assert f"{tmp_path / 'file'} is not a directory. Choose another place with --data-dir" in done.stderr


async def test_what_is_kept_of_people_is_for_the_servers_user_only(tmp_path: Path) -> None:
    program = await Program(tmp_path / "data").start()
    folders = [tmp_path / "data", tmp_path / "data" / "queue", tmp_path / "data" / "store"]

    assert [folder.stat().st_mode & 0o777 for folder in folders] == [0o700, 0o700, 0o700]
    assert await program.terminate(20) == 0


async def test_a_first_start_that_fails_after_the_installation_shows_the_password(tmp_path: Path) -> None:
    broken = tmp_path / "types.json"
    broken.write_text("{broken")
    program = Program(tmp_path / "data", env={"EVENT_TYPES_FILE": str(broken)})
    program.launch()
    assert await program.ended(20) == 2

    said = program.log()
    assert "event_types_file" in said
    assert "made the administrator" in said
    assert "  password  " in said
