"""The wheel, as users get it: complete, installable, and working without the repository beside it."""

from __future__ import annotations

import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.acceptance

ROOT = Path(__file__).parents[2]
PACKAGE = Path("src/tracardi_lite")
BACKENDS = Path("backends")


def sources() -> list[Path]:
    """The repository's files, committed or about to be, relative to its root."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    names = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout.split("\0")
    return [Path(name) for name in names if name and (ROOT / name).exists()]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy of what git knows, so that nothing ignored, and no earlier build, can get in."""
    copy = tmp_path_factory.mktemp("copy")
    for file in sources():
        (copy / file).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / file, copy / file, follow_symlinks=False)
    out = tmp_path_factory.mktemp("wheel")
    _run(sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(out), str(copy))
    (built,) = out.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bin folder of a new environment with the wheel in it; dependencies are borrowed from this one.

    They come by a path file, which does not bring this environment's own editable install of the project along.
    """
    home = tmp_path_factory.mktemp("environment")
    _run(sys.executable, "-m", "venv", "--without-pip", str(home))
    python = home / "bin" / "python"
    _run(sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--no-deps", str(wheel))
    (site_packages,) = home.glob("lib/python*/site-packages")
    (site_packages / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return home / "bin"


def test_every_file_of_the_package_and_its_backends_is_in_the_wheel(wheel: Path) -> None:
    expected = set()
    for file in sources():
        if (ROOT / file).is_symlink():
            continue  # the link to the backends, whose files stand in its place
        if file.is_relative_to(PACKAGE):
            expected.add(str("tracardi_lite" / file.relative_to(PACKAGE)))
        elif file.is_relative_to(BACKENDS):
            expected.add(str("tracardi_lite/backends" / file.relative_to(BACKENDS)))
    with zipfile.ZipFile(wheel) as opened:
        packed = {name for name in opened.namelist() if not name.split("/")[0].endswith(".dist-info")}
    assert packed == expected
    assert "tracardi_lite/py.typed" in packed


def test_the_installed_program_says_its_version_and_installs_from_outside_the_repository(
    installed: Path, tmp_path: Path
) -> None:
    version = _run(str(installed / "python"), "-c", "import tracardi_lite; print(tracardi_lite.__version__)")
    assert _run(str(installed / "tracardi-lite"), "--version", cwd=tmp_path) == f"tracardi-lite, version {version}"

    arguments = ["install", "--username", "admin@example.com", "--password", "long enough", "--data-dir", "data"]
    _run(str(installed / "tracardi-lite"), *arguments, cwd=tmp_path)
    assert any((tmp_path / "data").iterdir())


def test_every_backend_that_the_wheel_registers_can_be_imported(installed: Path, tmp_path: Path) -> None:
    script = """
import importlib.metadata, tracardi_lite
from tracardi_lite import wiring
points = importlib.metadata.distribution("tracardi-lite").entry_points
registered = {(p.group.removeprefix("tracardi_lite."), p.name): p.value
              for p in points if p.group.startswith("tracardi_lite.")}
known = {(port, scheme): value for port, schemes in wiring.BUILT_IN.items() for scheme, value in schemes.items()}
assert registered == known, registered.keys() ^ known.keys()
for point in points:
    assert callable(point.load()), point
print(tracardi_lite.__file__)
"""
    where = _run(str(installed / "python"), "-c", script, cwd=tmp_path)
    assert Path(where).is_relative_to(installed.parent), "the tests' own install was imported, not the wheel"


def _run(*command: str, cwd: Path | None = None) -> str:
    """Standard output, stripped; fails with all output on any exit code but 0."""
    done = subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}{done.stderr}"
    return done.stdout.strip()
