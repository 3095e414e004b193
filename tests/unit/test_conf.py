"""The files beside the code: generated pages have not drifted, examples load, deployment files fit the program."""

from __future__ import annotations

import configparser
import re
import shlex
import tomllib
from pathlib import Path

import click
import pytest

from tracardi_lite.cli import cli
from tracardi_lite.cli.docs import GENERATED, write
from tracardi_lite.settings import Settings, load
from tracardi_lite.settings.docs import ROLE_SECTIONS
from tracardi_lite.settings.fields import FIELDS, sections

ROOT = Path(__file__).parents[2]
ROLES = FIELDS["role"].choices


@pytest.mark.parametrize("name", GENERATED)
def test_a_generated_file_is_what_the_code_makes_of_it(name: str) -> None:
    assert (ROOT / name).read_text(encoding="utf-8") == GENERATED[name](), "run `make docs`"


def test_the_generator_writes_all_its_files_and_no_others(tmp_path: Path) -> None:
    write(tmp_path)
    assert {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*.*")} == set(GENERATED)


@pytest.mark.parametrize("role", ROLES)
def test_an_example_loads_and_is_of_its_role(role: str) -> None:
    assert load({}, {}, ROOT / "conf" / f"{role}.toml").settings.role == role


@pytest.mark.parametrize("role", ROLES)
def test_an_example_with_every_comment_removed_holds_all_settings_of_its_role(role: str, tmp_path: Path) -> None:
    text = (ROOT / "conf" / f"{role}.toml").read_text(encoding="utf-8")
    file = tmp_path / "all.toml"
    file.write_text(re.sub(r"^#(?=[a-z])", "", text, flags=re.MULTILINE), encoding="utf-8")
    active = tomllib.loads(text)
    loaded = load({}, {}, file)
    titles = ROLE_SECTIONS[role]
    expected = {field.key for section in sections() if section.title in titles for field in section.fields}
    assert {key for key, origin in loaded.origins.items() if origin.kind == "file"} == expected
    for key in expected - set(active):
        assert getattr(loaded.settings, key) == getattr(Settings(), key), key


def test_every_setting_and_section_is_in_some_example() -> None:
    titles = {section.title for section in sections()}
    assert set(ROLE_SECTIONS["all"]) == titles
    assert all(set(chosen) <= titles for chosen in ROLE_SECTIONS.values())


def test_every_command_has_help_with_an_example() -> None:
    def commands(command: click.Command, path: str) -> list[tuple[str, click.Command]]:
        if not isinstance(command, click.Group):
            return [(path, command)]
        return [leaf for name, inner in command.commands.items() for leaf in commands(inner, f"{path} {name}")]

    for path, command in commands(cli, "tracardi-lite"):
        assert path in (command.help or "").partition("Example")[2], path


def unit() -> configparser.ConfigParser:
    parser = configparser.ConfigParser(strict=False, interpolation=None, delimiters=("=",))
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read(ROOT / "conf" / "tracardi-lite.service")
    return parser


def test_the_systemd_unit_starts_a_command_that_there_is() -> None:
    program, *args = shlex.split(unit()["Service"]["ExecStart"])
    assert Path(program).name == "tracardi-lite"
    context = cli.make_context("tracardi-lite", args, resilient_parsing=False)
    assert cli.resolve_command(context, args)[0] == "serve"


def test_the_systemd_unit_waits_longer_than_the_program_needs_to_stop() -> None:
    settings = Settings()
    assert int(unit()["Service"]["TimeoutStopSec"]) > settings.shutdown_timeout + settings.shutdown_delay


def test_every_environment_name_in_the_deployment_files_is_a_setting() -> None:
    known = {name for field in FIELDS.values() for name in field.env_names} | {"TRACARDI_LITE_CONFIG"}
    for name in ("Dockerfile", "conf/tracardi-lite.service", "conf/nginx.conf"):
        text = (ROOT / name).read_text(encoding="utf-8")
        assert set(re.findall(r"\bTRACARDI_LITE_\w+", text)) <= known, name
        assert set(re.findall(r"\b([A-Z][A-Z_]+)=(?:no|yes|x-)", text)) <= known, name


def test_nginx_takes_the_bodies_that_the_program_takes() -> None:
    text = (ROOT / "conf" / "nginx.conf").read_text(encoding="utf-8")
    match = re.search(r"client_max_body_size (\d+)m;", text)
    assert match is not None
    assert int(match[1]) << 20 == Settings().body_max
    assert f"127.0.0.1:{Settings().port};" in text
    assert text.count("{") == text.count("}")


def instructions() -> list[tuple[str, str]]:
    text = (ROOT / "Dockerfile").read_text(encoding="utf-8")
    lines = "\n".join(line for line in text.splitlines() if not line.startswith("#")).replace("\\\n", " ")
    return [(word, rest.strip()) for word, _, rest in (line.partition(" ") for line in lines.splitlines() if line)]


def test_the_image_is_made_of_files_that_are_there_and_not_ignored() -> None:
    ignored = (ROOT / ".dockerignore").read_text(encoding="utf-8").split()
    sources = [
        source
        for word, rest in instructions()
        if word == "COPY" and not rest.startswith("--from")
        for source in rest.split()[:-1]
    ]
    assert sources
    for source in sources:
        assert (ROOT / source).exists(), source
        assert f"!{source}" in ignored, source


def test_the_image_runs_unprivileged_and_is_checked_by_our_own_command() -> None:
    found = instructions()
    last_stage = found[max(index for index, (word, _) in enumerate(found) if word == "FROM") :]
    values = dict(last_stage)
    assert values["USER"] not in ("0", "root")
    assert values["EXPOSE"] == str(Settings().port)
    assert values["VOLUME"] == "/data"
    assert "TRACARDI_LITE_DATA_DIR=/data" in values["ENV"]
    for text in (values["CMD"], values["HEALTHCHECK"].partition("CMD ")[2]):
        words = [word for word in re.findall(r'"([^"]+)"', text) if word != "tracardi-lite"]
        assert words[0] in cli.commands
    assert values["STOPSIGNAL"] == "SIGTERM"
