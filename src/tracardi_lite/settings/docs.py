"""The settings as pages: docs/settings.md and the example files of conf/, made from the schema. Pure.

``make docs`` writes them; tests compare what is in the repository with what is made here.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping

from tracardi_lite.settings.fields import FIELDS, PREFIX, Field, sections
from tracardi_lite.settings.values import plain, shown

_INTRO = f"""# Settings

<!-- Generated from src/tracardi_lite/settings/schema.py by `make docs`; edit that. -->

A setting is looked for in four places, and the later one wins: default < file (`--config FILE.toml`) < environment <
flag. `tracardi-lite settings` lists each with its value and where that came from; `tracardi-lite check-config` says
whether the program would start with them, and if not, everything that is wrong.

- **File**: TOML, flat: the keys are the headings below, no tables. An unknown key stops the start. `{PREFIX}CONFIG`
  names a file where no `--config` does.
- **Environment**: the names are Tracardi's where it has one. Every setting can also be given as `{PREFIX}` and
  the key in capitals, and that name wins where both are there. An unknown name with this prefix stops the start, except
  for the address variables that Kubernetes makes for a Service called tracardi-lite. An empty variable counts as not
  set.
- **Switches**: yes, on, true, 1 or no, off, false, 0, in any case.
- **Sizes** (unit bytes): a plain number, or `64MiB` (powers of 1024) or `64MB` (powers of 1000).
- **Durations** (unit s): a plain number, or `500ms`, `30s`, `5m`, `2h`, `1d`, `1w`.
- **Secrets** are masked wherever settings are shown.
"""


def page() -> str:
    """docs/settings.md."""
    parts = [_INTRO]
    for section in sections():
        parts.append(f"\n## {section.title}\n")
        parts += [f"\n### `{field.key}`\n\n{_cell(field.option.text)}\n\n{_facts(field)}\n" for field in section.fields]
    return "".join(parts)


def _facts(field: Field) -> str:
    facts = [f"- {field.expected[0].upper()}{field.expected[1:]}; default {_default(field)}"]
    names = ", ".join(f"`{name}`" for name in field.env_names)
    facts.append(f"- environment: {names}" + (f"; flag: `{field.option.flag}`" if field.option.flag else ""))
    if field.option.secret:
        facts.append("- secret")
    return "\n".join(facts)


def _default(field: Field) -> str:
    text = shown(field, field.default, is_default=True)
    return f"`{text}`" if text else "empty"


def _cell(text: str) -> str:
    return text.replace("``", "`")


ROLE_SECTIONS: Mapping[str, tuple[str, ...]] = {
    "all": tuple(section.title for section in sections()),
    "api": tuple(section.title for section in sections() if section.title != "Workers"),
    "worker": tuple(section.title for section in sections()),
}
"""Which sections a role's example shows: workers keep what the collector's and admin's settings say, too."""

_ROLE_VALUES: Mapping[str, Mapping[str, object]] = {
    "all": {"role": "all"},
    "api": {"role": "api", "host": "0.0.0.0", "reuse_port": True},  # noqa: S104 - an example for containers
    "worker": {"role": "worker"},
}

_ROLE_INTRO = {
    "all": "Collector and workers in one process: a laptop, or one small server.",
    "api": "The collector alone: answers clients and fills the queue. Run as many as the traffic needs; on one machine "
    "they can share the port and the data directory.",
    "worker": "The workers alone: empty the queue into the store. Run more of them while the backlog grows; on one "
    "machine they share the data directory with the api processes. The port is for health and metrics.",
}


def example(role: str) -> str:
    """conf/<role>.toml: every setting of the role, those at their default commented out. Loads as it is."""
    lines = [
        f"# tracardi-lite, role {role}. {_ROLE_INTRO[role]}",
        "# Both roles of an installation must agree on backends, queue, partitions and tenant.",
        f"# Try it: tracardi-lite check-config --config conf/{role}.toml",
        "# Generated from the schema by `make docs`: copy it, and edit the copy. docs/settings.md explains the forms.",
    ]
    lines = [line for long in lines for line in textwrap.wrap(long, 110, subsequent_indent="# ")]
    for section in sections():
        if section.title not in ROLE_SECTIONS[role]:
            continue
        lines += ["", "", f"# --- {section.title} ---"]
        for field in section.fields:
            lines += ["", *_entry(field, _ROLE_VALUES[role])]
    return "\n".join(lines) + "\n"


def _entry(field: Field, values: Mapping[str, object]) -> list[str]:
    facts = f"{field.expected[0].upper()}{field.expected[1:]}."
    comment = textwrap.wrap(f"{_cell(field.option.text)} {facts}", 108)
    if field.key in values:
        entry = f"{field.key} = {_toml(field, values[field.key])}"
    else:
        entry = f"#{field.key} = {_toml(field, field.default)}"
    return [*(f"# {line}" for line in comment), entry]


def _toml(field: Field, value: object) -> str:
    """A value as TOML, sizes in the unit in which they are round."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if field.option.unit == "bytes" and value:
        return f'"{shown(field, value).replace(" ", "")}"'
    if isinstance(value, int | float):
        return f"{value:.15g}"
    text = str(plain(field, value, is_default=True))
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


assert set(_ROLE_VALUES) == set(FIELDS["role"].choices)
