"""``tracardi-lite rules``: run as the program runs it, on a real registry."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from tracardi_lite.cli import run

TOTAL = {
    "kind": "validation",
    "id": "total",
    "name": "Order has a total",
    "event_type": "order-paid",
    "spec": {"json_schema": {"event@properties": {"required": ["total"]}}},
}
TRAIT = {
    "kind": "mapping",
    "id": "total",
    "event_type": "order-paid",
    "order": 3,
    "spec": {"traits": {"total": "order.total"}},
}


class Terminal:
    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def __call__(self, *args: str) -> tuple[int, str, str]:
        code = run(["rules", *args])
        out, err = self._capsys.readouterr()
        return code, out, err


@pytest.fixture
def rules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Terminal:
    monkeypatch.chdir(tmp_path)
    for name in [name for name in os.environ if name.startswith("TRACARDI_LITE_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("STORE_URL", "memory:")
    from argon2 import PasswordHasher

    from tracardi_lite.backends.registry.sql import passwords

    hasher = PasswordHasher(time_cost=1, memory_cost=64, parallelism=1)
    monkeypatch.setattr(passwords, "_hasher", lambda: hasher)
    assert run(["install", "--username", "a@example.com", "--password", "correct horse battery"]) == 0
    capsys.readouterr()
    return Terminal(capsys)


def written(name: str, value: Any) -> str:
    Path(name).write_text(json.dumps(value))
    return name


def test_rules_are_added_listed_shown_switched_and_deleted(rules: Terminal) -> None:
    assert rules("list") == (0, "No rules.\n", "")
    code, out, _ = rules("add", written("both.json", [TOTAL, TRAIT]))
    assert (code, out) == (0, "Saved validation rule total.\nSaved mapping rule total.\n")
    code, out, _ = rules("list")
    assert [line.split()[0] for line in out.splitlines()] == ["kind", "validation", "mapping"]
    code, out, _ = rules("list", "--kind", "mapping", "--json")
    assert [rule["order"] for rule in json.loads(out)] == [3]
    assert "--kind: validation, mapping" in rules("show", "total")[2]
    code, shown, _ = rules("show", "total", "--kind", "validation")
    assert TOTAL.items() <= json.loads(shown).items()
    assert rules("disable", "total", "--kind", "mapping")[1] == "mapping rule total is disabled.\n"
    assert [rule["enabled"] for rule in json.loads(rules("list", "--json")[1])] == [True, False]
    assert rules("enable", "total", "--kind", "mapping")[0] == 0
    assert rules("delete", "total", "--kind", "mapping", "--yes")[0] == 0
    assert rules("delete", "total", "--yes")[1] == "Deleted validation rule total.\n"
    code, _, err = rules("show", "total")
    assert (code, err) == (1, "Error: There is no rule total.\n")


def test_what_is_shown_can_be_added_again(rules: Terminal) -> None:
    rules("add", written("rule.json", TRAIT))
    before = rules("show", "total")[1]
    Path("again.json").write_text(before)
    assert rules("add", "again.json")[0] == 0
    assert rules("show", "total")[1] == before


def test_if_one_is_wrong_none_is_added(rules: Terminal) -> None:
    code, _, err = rules("add", written("rules.json", [TRAIT, {**TOTAL, "spec": {"json_schema": {"event@x": {}}}}]))
    assert code == 1
    assert "validation rule total: spec.json_schema.event@x: expected event@properties" in err
    assert rules("list")[1] == "No rules.\n"


@pytest.mark.parametrize(
    ("text", "says"), [("{", "no JSON"), ("5", "rule 1"), ('{"kind": 5}', "rule 1"), ("\udcff", "no JSON")]
)
def test_a_file_that_holds_no_rule_is_told_of(rules: Terminal, text: str, says: str) -> None:
    Path("x.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    code, out, err = rules("add", "x.json")
    assert (code, out) == (1, "")
    assert says in err


def test_an_event_is_tried_and_the_differences_are_shown(rules: Terminal) -> None:
    rules("add", written("both.json", [TOTAL, TRAIT]))
    event = written("event.json", {"type": "order-paid", "properties": {"total": 7}})
    code, out, _ = rules("try", "--event", event)
    assert code == 0
    assert "traits.order.total" in out
    assert "The profile stays as it is." in out
    code, out, _ = rules("try", "--event", written("event.json", {"type": "order-paid"}), "--json")
    result = json.loads(out)
    assert result["after"]["event"]["metadata"]["valid"] is False
    assert [(each["kind"], each["matched"]) for each in result["rules"]] == [("validation", True), ("mapping", False)]


def test_a_draft_is_tried_without_being_saved(rules: Terminal) -> None:
    draft = written(
        "draft.json",
        {"kind": "to-profile", "id": "d", "spec": {"ops": [{"to": "segments", "op": "append", "value": "x"}]}},
    )
    code, out, _ = rules("try", "--event", written("event.json", {"type": "a"}), "--rules", draft)
    assert code == 0
    assert "segments" in out
    assert rules("list")[1] == "No rules.\n"
    broken = written("draft.json", {"kind": "to-profile", "id": "d", "spec": {"ops": []}})
    code, _, err = rules("try", "--event", "event.json", "--rules", broken)
    assert (code, err) == (1, "Error: spec.ops: there is no operation\n")


@pytest.mark.parametrize("event", [[], {"type": ""}, {}])
def test_what_is_no_event_cant_be_tried(rules: Terminal, event: Any) -> None:
    assert rules("try", "--event", written("event.json", event))[0] == 1
