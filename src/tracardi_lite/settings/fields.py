"""The schema turned into data: one ``Field`` per setting, for whoever parses, shows or documents settings.

Everything here is derived from ``schema.Settings``; a setting that is declared there needs nothing else.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, get_args, get_origin, get_type_hints

import msgspec
from msgspec import Struct

from tracardi_lite.settings.schema import Option, Settings

PREFIX = "TRACARDI_LITE_"
"""Environment names that start so are ours alone: each setting has one, and an unknown one is an error."""

FieldType = Literal["switch", "whole number", "number", "text", "path", "choice"]

_TYPES: dict[object, FieldType] = {
    bool: "switch",
    int: "whole number",
    float: "number",
    str: "text",
    Path: "path",
}


class Field(Struct, frozen=True, kw_only=True):
    key: str
    type: FieldType
    default: Any
    option: Option
    choices: tuple[str, ...] = ()

    @property
    def env_names(self) -> tuple[str, ...]:
        """The names it is read from, in order of documentation."""
        documented = self.option.env or (self.key.upper(),)
        ours = PREFIX + self.key.upper()
        return documented if ours in documented else (*documented, ours)

    @property
    def expected(self) -> str:
        """What a value has to be, for messages: ``a whole number of bytes, 1024 to 1073741824``."""
        match self.type:
            case "switch":
                return "yes or no"
            case "choice":
                return "one of " + ", ".join(self.choices)
            case "path":
                return "a path"
            case "text":
                return "text"
        unit = {"s": "seconds"}.get(self.option.unit, self.option.unit)
        return f"a {self.type}" + (f" of {unit}" if unit else "") + self._bounds()

    def _bounds(self) -> str:
        least, most = self.option.ge, self.option.le
        if least is not None and most is not None:
            return f", {least:.15g} to {most:.15g}"
        if least is not None:
            return f", at least {least:.15g}"
        return f", at most {most:.15g}" if most is not None else ""


def _fields() -> Iterator[Field]:
    hints = get_type_hints(Settings, include_extras=True)
    for info in msgspec.structs.fields(Settings):
        base, option = get_args(hints[info.name])
        assert isinstance(option, Option), f"{info.name} has no Option"
        literal = get_origin(base) is Literal
        yield Field(
            key=info.name,
            type="choice" if literal else _TYPES[base],
            default=info.default,
            option=option,
            choices=get_args(base) if literal else (),
        )


FIELDS: dict[str, Field] = {field.key: field for field in _fields()}
"""Every setting by key, in the order of the schema."""


class Section(Struct, frozen=True):
    title: str
    fields: tuple[Field, ...]


_SECTION_STARTS = {
    "role": "Process",
    "queue_url": "Backends",
    "elastic_host": "Elasticsearch",
    "pulsar_host": "Pulsar",
    "redis_host": "Redis",
    "mysql_host": "MySQL",
    "body_max": "Collector",
    "queue_partitions": "Queue",
    "workers": "Workers",
    "apm": "Identity",
    "event_partitioning": "Partitions of the store",
    "retention_every": "Retention",
    "expose_gui_api": "Admin",
}
"""The first key of each section of the schema, so that a new setting belongs to the one it is declared in."""


def sections() -> list[Section]:
    """The settings in groups, for the docs and the example files."""
    groups: list[tuple[str, list[Field]]] = []
    for field in FIELDS.values():
        if field.key in _SECTION_STARTS:
            groups.append((_SECTION_STARTS[field.key], []))
        groups[-1][1].append(field)
    return [Section(title, tuple(fields)) for title, fields in groups]
