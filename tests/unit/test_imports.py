"""The import rules of ARCHITECTURE.md, held over the syntax tree of every module."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2] / "src" / "tracardi_lite"
PACKAGE = "tracardi_lite"

LAYERS: tuple[frozenset[str], ...] = (
    frozenset(
        {
            "",
            "clock",
            "data",
            "errors",
            "ledger",
            "logs",
            "metrics",
            "partitioning",
            "protocol",
            "settings",
            "tls",
            "waiting",
        }
    ),
    frozenset({"ports", "query"}),
    frozenset(
        {"wiring", "data_dir", "install", "provision", "tracker", "intake", "pipeline", "flush", "admin", "lifecycle"}
    ),
    frozenset({"app"}),
    frozenset({"cli", "__main__"}),
)
"""A part may import its own layer and those before it."""

APART = frozenset({"backends", "testing", "client"})
"""Parts outside the layers, with rules of their own."""

BACKENDS_MAY = LAYERS[0] | LAYERS[1] | {"backends"}


def parts(module: str) -> list[str]:
    return module.split(".")[1:] or [""]


def modules() -> dict[str, Path]:
    found = {}
    for path in sorted([*ROOT.rglob("*.py"), *(ROOT / "backends").resolve().rglob("*.py")]):
        inside = ROOT if path.is_relative_to(ROOT) else (ROOT / "backends").resolve().parent
        names = [PACKAGE, *path.relative_to(inside).with_suffix("").parts]
        found[".".join(names[:-1] if names[-1] == "__init__" else names)] = path
    return found


MODULES = modules()


def imports(module: str, path: Path) -> Iterator[str]:
    """The modules of ours that a module imports anywhere in it; names taken from a package count as modules."""
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ""
            if node.level:
                above = package.split(".")[: len(package.split(".")) - node.level + 1]
                base = ".".join([*above, *([base] if base else [])])
            names = [f"{base}.{alias.name}" for alias in node.names]
            names = [name if name in MODULES else base for name in names]
        else:
            continue
        yield from (name for name in names if name.partition(".")[0] == PACKAGE)


EDGES = sorted({(module, name) for module, path in MODULES.items() for name in imports(module, path)})


def layer_of(part: str) -> int:
    return next(number for number, layer in enumerate(LAYERS) if part in layer)


def test_there_are_modules_and_imports_to_judge() -> None:
    assert len(MODULES) > 30
    assert (f"{PACKAGE}.ports.store", f"{PACKAGE}.query") in EDGES
    assert any(module.startswith(f"{PACKAGE}.backends.queue.") for module in MODULES)


def test_every_part_has_its_place() -> None:
    known = frozenset().union(*LAYERS) | APART
    assert {parts(module)[0] for module in MODULES} <= known


def test_imports_go_down_only() -> None:
    wrong = [
        (module, name)
        for module, name in EDGES
        if parts(module)[0] not in APART
        and parts(name)[0] not in APART
        and layer_of(parts(name)[0]) > layer_of(parts(module)[0])
    ]
    assert wrong == []


@pytest.mark.parametrize("apart", sorted(APART))
def test_nothing_of_the_program_imports_what_stands_apart(apart: str) -> None:
    wrong = [(module, name) for module, name in EDGES if parts(name)[0] == apart and parts(module)[0] != apart]
    assert [(module, name) for module, name in wrong if parts(module)[0] not in APART] == []


def test_backends_import_ports_and_what_is_below_them_only() -> None:
    wrong = [
        (module, name)
        for module, name in EDGES
        if parts(module)[0] == "backends" and parts(name)[0] not in BACKENDS_MAY
    ]
    assert wrong == []


def test_backends_of_one_port_do_not_know_those_of_another() -> None:
    wrong = [
        (module, name)
        for module, name in EDGES
        if parts(module)[0] == parts(name)[0] == "backends" and parts(module)[1:2] != parts(name)[1:2]
    ]
    assert wrong == []


def test_no_two_technologies_know_each_other() -> None:
    """Helpers that are no technology (routing, filters) may be shared within a port."""
    technologies = {"memory", "local", "sqlite", "sql", "pulsar", "redis", "elasticsearch", "mysql"}
    wrong = [
        (module, name)
        for module, name in EDGES
        if parts(module)[0] == parts(name)[0] == "backends"
        and len(parts(module)) > 2
        and len(parts(name)) > 2
        and parts(name)[2] in technologies
        and parts(name)[2] != parts(module)[2]
    ]
    assert wrong == []


def test_the_package_itself_imports_nothing() -> None:
    assert [name for module, name in EDGES if module == PACKAGE] == []


def test_the_client_stands_on_its_own() -> None:
    """It runs in other people's programs: nothing of the server comes with it but clock and errors."""
    may = {"client", "clock", "errors", ""}
    assert [
        (module, name) for module, name in EDGES if parts(module)[0] == "client" and parts(name)[0] not in may
    ] == []
