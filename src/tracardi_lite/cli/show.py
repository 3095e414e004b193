"""Showing things: tables on a terminal, aligned plain text in a pipe (nothing cut off), JSON for programs."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click
import msgspec

if TYPE_CHECKING:
    from rich.table import Table

Rows = Sequence[Sequence[object]]


def as_json(value: object) -> None:
    """One JSON document on a line of its own."""
    click.echo(msgspec.json.encode(value, enc_hook=str, order="sorted"))


def table(columns: Sequence[str], rows: Rows, empty: str = "Nothing.") -> None:
    """``empty`` is what to say instead of a table without rows. Numbers are aligned right."""
    if not rows:
        click.echo(empty)
    elif sys.stdout.isatty():
        from rich.console import Console

        Console().print(rich_table(columns, rows))
    else:
        click.echo(plain_table(columns, rows))


def rich_table(columns: Sequence[str], rows: Rows) -> Table:
    from rich.box import SIMPLE_HEAD
    from rich.markup import escape
    from rich.table import Table

    made = Table(box=SIMPLE_HEAD, pad_edge=False)
    for index, column in enumerate(columns):
        made.add_column(column, justify="right" if _numeric(rows, index) else "left", overflow="fold")
    for row in rows:
        made.add_row(*(escape(_text(cell)) for cell in row))
    return made


def plain_table(columns: Sequence[str], rows: Rows) -> str:
    """Columns two spaces apart, the first line their names."""
    lines = [list(columns), *([_text(cell) for cell in row] for row in rows)]
    widths = [max(len(line[index]) for line in lines) for index in range(len(columns))]
    right = [_numeric(rows, index) for index in range(len(columns))]
    return "\n".join(
        "  ".join(
            cell.rjust(width) if flush else cell.ljust(width)
            for cell, width, flush in zip(line, widths, right, strict=True)
        ).rstrip()
        for line in lines
    )


def _numeric(rows: Rows, index: int) -> bool:
    return all(isinstance(row[index], int | float) or row[index] is None for row in rows)


def _text(cell: object) -> str:
    """One line of printable text: what is stored was sent by strangers, and terminals obey escape codes."""
    if cell is None:
        return ""
    if isinstance(cell, int) and not isinstance(cell, bool):
        return f"{cell:,}"
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in str(cell))


def moment(at_ms: int | None) -> str:
    """UTC, to the second."""
    return "" if at_ms is None else datetime.fromtimestamp(at_ms / 1000, UTC).strftime("%Y-%m-%d %H:%M:%SZ")


def span(seconds: float) -> str:
    """An age at a glance: ``850 ms``, ``12 s``, ``3 min``, ``5 h``, ``2 d``."""
    for length, unit in ((86400, "d"), (3600, "h"), (60, "min"), (1, "s")):
        if seconds >= length:
            return f"{seconds / length:.3g} {unit}"
    return f"{max(seconds, 0) * 1000:.0f} ms"


def volume(count: int) -> str:
    """Bytes at a glance: ``1.5 MiB``."""
    amount = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if amount < 1024:
            return f"{amount:.3g} {unit}" if amount < 1000 else f"{amount:.0f} {unit}"
        amount /= 1024
    return f"{amount:.3g} TiB"
