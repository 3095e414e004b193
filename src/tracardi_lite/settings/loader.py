"""From file, environment and flags to ``Settings``, remembering where each value came from.

A later source wins: default < file < environment < flag. Whatever is wrong is collected, in all sources, and raised at
once, so that an operator fixes a configuration in one go. Values of secrets never appear in messages.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from msgspec import Struct

from tracardi_lite.errors import Misconfigured
from tracardi_lite.settings import values
from tracardi_lite.settings.checks import contradictions
from tracardi_lite.settings.fields import FIELDS, PREFIX, Field
from tracardi_lite.settings.implied import effective_urls
from tracardi_lite.settings.schema import Settings

CONFIG_ENV = PREFIX + "CONFIG"
"""Names the settings file where no ``--config`` does; read by the command line, so not a setting."""

_FILE_BYTES_MAX = 1 << 20
"""A settings file is a few KiB; more is some other file."""

NEAR = 0.9
NEAR_LENGTH_MIN = 6
"""How alike a misspelt variable must be (difflib's ratio): a letter or two in a name of that length."""

_KUBERNETES = re.compile(r"_SERVICE_HOST$|_SERVICE_PORT(_\w+)?$|_PORT_\d+_(TCP|UDP|SCTP)(_(PROTO|PORT|ADDR))?$")
_KUBERNETES_LINK = re.compile(r"(tcp|udp|sctp)://", re.IGNORECASE)


class Origin(Struct, frozen=True):
    """Where a value came from: ``kind`` for programs, ``str(origin)`` for people."""

    kind: str
    """default, file, env or flag"""
    name: str = ""
    """``conf/all.toml:12``, ``BULK_SIZE``, ``--port``"""

    def __str__(self) -> str:
        return f"{self.kind} {self.name}" if self.name else self.kind


class Problem(Struct, frozen=True):
    """One thing that is wrong, with the key as it was written."""

    key: str
    text: str
    origin: Origin

    def __str__(self) -> str:
        place = {"file": f"{self.origin.name}: ", "env": "environment: ", "flag": ""}.get(self.origin.kind, "")
        return f"{place}{self.key}: {self.text}"


class Problems(Misconfigured):
    """Everything that is wrong with the settings; never empty. ``str`` has a line for each."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        first = self.problems[0]
        super().__init__(first.key, first.text)

    def __str__(self) -> str:
        return "\n".join(map(str, self.problems))


class Loaded(Struct, frozen=True):
    settings: Settings
    origins: dict[str, Origin]
    """By key, for every setting."""


class _Given(Struct, frozen=True):
    key: str
    """As written, which may be unknown."""
    raw: object
    origin: Origin
    field: Field | None = None


def load(
    flags: Mapping[str, object],
    environ: Mapping[str, str],
    file: Path | None = None,
) -> Loaded:
    """Raises ``Problems``. ``flags`` holds raw values by setting key, None where a flag was not given.

    An empty environment variable counts as not set, as compose files and charts produce them.
    """
    problems: list[Problem] = []
    found: dict[str, Any] = {}
    wrong: set[str] = set()
    origins = dict.fromkeys(FIELDS, Origin("default"))
    written: dict[str, str] = {}
    for given in (*_from_file(file, problems), *_from_environ(environ), *_from_flags(flags)):
        if given.field is None:
            problems.append(Problem(given.key, _unknown(given), given.origin))
            continue
        key = given.field.key
        try:
            found[key] = values.parse(given.field, given.raw)
        except values.Wrong as error:
            problems.append(Problem(given.key, f"expected {error}{_got(given)}", given.origin))
            wrong.add(key)
        origins[key], written[key] = given.origin, given.key
    for key, (host, url) in effective_urls({**found, **dict.fromkeys(wrong)}).items():
        found[key], origins[key] = url, origins[host]
    # Contradictions show up together with wrong values, save those that touch a wrong one: nobody knows yet what
    # it will be.
    for each in contradictions(Settings(**found)):
        if {each.key, each.other} & wrong or (each.moot and each.key not in written):
            continue
        if each.key in written or each.other not in written:
            problems.append(Problem(written.get(each.key, each.key), each.text, origins[each.key]))
        else:
            text = f"does not go with the default of {each.key}: {each.text}"
            problems.append(Problem(written[each.other], text, origins[each.other]))
    if problems:
        raise Problems(problems)
    return Loaded(Settings(**found), origins)


def _from_file(path: Path | None, problems: list[Problem]) -> Iterator[_Given]:
    if path is None:
        return
    try:
        with path.open("rb") as file:
            text = file.read(_FILE_BYTES_MAX + 1).decode()
        if len(text) > _FILE_BYTES_MAX:
            raise ValueError(f"larger than {_FILE_BYTES_MAX} bytes")
        table = tomllib.loads(text)
    except OSError as error:
        problems.append(Problem("--config", f"can't read {path}: {error.strerror}", Origin("flag", "--config")))
        return
    except ValueError as error:
        # tomllib's texts name line and column; a UnicodeDecodeError is a ValueError too.
        problems.append(Problem("--config", f"{path} is not a TOML file: {error}", Origin("flag", "--config")))
        return
    for key, raw in table.items():
        yield _Given(key, raw, Origin("file", f"{path}{_line(text, key)}"), FIELDS.get(key))


def _line(text: str, key: str) -> str:
    """``:12``. tomllib keeps no positions; a flat file's keys stand at the beginnings of lines."""
    match = re.search(rf"^[ \t]*\[?[\"']?{re.escape(key)}[\"']?[ \t]*[=.\]]", text, re.MULTILINE)
    return f":{text.count(chr(10), 0, match.start()) + 1}" if match else ""


def _from_environ(environ: Mapping[str, str]) -> Iterator[_Given]:
    known = {CONFIG_ENV}
    for field in FIELDS.values():
        known.update(field.env_names)
        # Our own name wins over a shared one: PRODUCTION or WORKERS may be meant for another program.
        for name in sorted(field.env_names, key=lambda name: not name.startswith(PREFIX)):
            value = environ.get(name, "")
            if value and not _is_service_link(name, value):
                yield _Given(name, value, Origin("env", name), field)
                break
    for name in sorted(environ):
        if name.startswith(PREFIX) and name not in known and not _is_service_link(name, environ[name]):
            yield _Given(name, environ[name], Origin("env", name))


def near_misses(environ: Mapping[str, str]) -> list[str]:
    """A line for each variable that is no setting and looks like one misspelt.

    The environment is everybody's, so only names with our prefix can be errors; these are worth a warning.
    """
    known = sorted({name for field in FIELDS.values() for name in field.env_names})
    lines = []
    for name in sorted(environ):
        if name in known or name.startswith(PREFIX) or len(name) < NEAR_LENGTH_MIN:
            continue
        near = difflib.get_close_matches(name, known, 1, NEAR)
        if near and near[0] not in environ:
            lines.append(f"{name} is in the environment and is not a setting; did you mean {near[0]}?")
    return lines


def _is_service_link(name: str, value: str) -> bool:
    """Kubernetes gives every pod such variables for a Service that is called tracardi-lite or tracardi-lite-…:
    ``TRACARDI_LITE_PORT=tcp://10.0.0.1:8686`` among them. They are addresses, and not meant as settings."""
    if not name.startswith(PREFIX):
        return False
    return bool(_KUBERNETES.search(name) or (name.endswith("_PORT") and _KUBERNETES_LINK.match(value)))


def _from_flags(flags: Mapping[str, object]) -> Iterator[_Given]:
    for key, raw in flags.items():
        if raw is not None:
            field = FIELDS.get(key)
            name = (field.option.flag if field else "") or "--" + key.replace("_", "-")
            yield _Given(name, raw, Origin("flag", name), field)


def _unknown(given: _Given) -> str:
    """Says so, with the nearest known name in the spelling of its source."""
    if isinstance(given.raw, dict):
        return "tables are not used; write every setting as a key at the top of the file"
    if given.origin.kind == "env":
        names = [name for field in FIELDS.values() for name in field.env_names] + [CONFIG_ENV]
        word = given.key
    else:
        names, word = list(FIELDS), given.key.lstrip("-").lower().replace("-", "_")
    near = difflib.get_close_matches(word, names, 1, cutoff=0.5)
    return "no such setting." + (f" Did you mean {near[0]}?" if near else " `tracardi-lite settings` lists them.")


def _got(given: _Given) -> str:
    assert given.field is not None
    if given.field.option.secret:
        return ""
    if isinstance(given.raw, dict | list):
        return f"; got a {'table' if isinstance(given.raw, dict) else 'list'}"
    text = str(given.raw).lower() if isinstance(given.raw, bool) else values.shown(given.field, given.raw)
    return f"; got {text if len(text) <= 60 else text[:60] + '…'!r}"
