"""``tracardi-lite install`` in real servers: the diff, the doing, nothing the second time, and what is refused."""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.elastic import cleaned, fresh_settings, server, service
from tracardi_lite.cli import run


@pytest.fixture
def place(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[str]:
    """The environment of an installation of its own; its unique name."""
    name = f"t{secrets.token_hex(5)}"
    mysql, pulsar = service("start", "mariadb")["url"], service("start", "pulsar")
    chosen = {
        "ELASTIC_HOST": server()["url"],
        "ELASTIC_INDEX_SHARDS": "1",
        "ELASTIC_SNAPSHOTS": f"fs:{server()['snapshots']}/{name}",
        "TENANT_NAME": name,
        "PULSAR_HOST": pulsar["service"],
        "PULSAR_API": pulsar["admin"],
        "PULSAR_TENANT": name,
        "QUEUE_PARTITIONS": "2",
        "REGISTRY_URL": mysql.removesuffix("/tracardi") + f"/tracardi_{name}",
        "TRACARDI_LITE_DATA_DIR": str(tmp_path / "data"),
        "INSTALLATION_TOKEN": "let-me-in-please",
        "AUTO_PROFILE_MERGING": "a secret of this installation",
    }
    for key, value in chosen.items():
        monkeypatch.setenv(key, value)
    monkeypatch.chdir(tmp_path)
    _sql(mysql, f"CREATE DATABASE tracardi_{name}")
    yield name
    _sql(mysql, f"DROP DATABASE tracardi_{name}")

    async def sweep() -> None:
        async with cleaned(fresh_settings(tenant_name=name)):
            pass

    asyncio.run(sweep())


def _sql(url: str, statement: str) -> None:
    from tests.integration.test_registry_mysql import run_sql

    asyncio.run(run_sql(url, statement))


pytestmark = pytest.mark.integration


def command(capsys: pytest.CaptureFixture[str], *args: str) -> tuple[int, str, str]:
    code = run(args)
    said = capsys.readouterr()
    return code, said.out, said.err


def test_a_dry_run_says_what_the_run_then_does_and_a_second_run_does_nothing(
    place: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    code, planned, _ = command(capsys, "install", "--dry-run")
    assert code == 0
    assert "registry: make the tables" in planned
    assert f"queue: create tenant {place}" in planned
    assert f"queue: create topic persistent://{place}/system/functions with 2 partitions" in planned
    assert "retentionTimeInMinutes': 43200" in planned
    assert "retentionSizeInMB': 1024" in planned
    for wanted in ("messageTTL", "offloadThreshold", "offloadDeletionLagMs"):
        assert wanted in planned
    assert f"store: put index template template.09x.{place}.tracardi-event" in planned
    assert f"store: create index 09x.{place}.tracardi-event-" in planned
    assert "store: register fs:" in planned
    assert not (tmp_path / "data").exists()
    # Nothing was done: the plan is still the same.
    assert command(capsys, "install", "--dry-run")[1] == planned

    code, done, _ = command(capsys, "install", "--username", "me@example.com", "--password", "correct horse")
    assert code == 0
    outside = [line for line in planned.splitlines() if not line.startswith("registry:")]
    assert [line for line in done.splitlines() if line.startswith(("queue:", "store:"))] == outside
    assert "made the administrator me@example.com" in done

    assert command(capsys, "install")[1] == "Nothing to do: all is there.\n"
    assert command(capsys, "install", "--dry-run")[1] == "Nothing to do: all is there.\n"


def test_what_cannot_change_is_refused_with_what_it_was_and_what_can_is_set(
    place: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert command(capsys, "install")[0] == 0
    for name, value, said in (
        ("ELASTIC_INDEX_SHARDS", "2", "was made with 1"),
        ("EVENT_PARTITIONING", "day", "was month"),
        ("QUEUE_PARTITIONS", "4", "was 2"),
        ("AUTO_PROFILE_MERGING", "another secret altogether", "is another than when"),
    ):
        with monkeypatch.context() as patch:
            patch.setenv(name, value)
            for args in (("install",), ("install", "--dry-run")):
                code, _, err = command(capsys, *args)
                assert (code, name.lower() in err, said in err) == (2, True, True), err
                assert "another secret" not in err
    monkeypatch.setenv("QUEUE_RETENTION", "7d")
    code, out, _ = command(capsys, "install")
    assert code == 0
    assert len(out.splitlines()) == 1
    assert "10080" in out
    assert "43200" in out, "what it was"


def test_servers_of_others_are_not_changed_without_the_installation_token(
    place: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("INSTALLATION_TOKEN")
    code, _, err = command(capsys, "install")
    assert code == 2
    assert "installation_token" in err
    monkeypatch.setenv("INSTALLATION_TOKEN", "let-me-in-please")
    assert command(capsys, "install", "--token", "wrong")[0] == 1
    assert command(capsys, "install", "--dry-run")[1].startswith("registry: make the tables")


def test_the_policy_is_shown_as_it_is_and_set_as_the_settings_say(
    place: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert command(capsys, "install")[0] == 0
    before = json.loads(command(capsys, "queue", "policy", "--json")[1])
    assert before["changes"] == []
    assert before["policy"]["retention"] == "retentionTimeInMinutes 43200, retentionSizeInMB 1024"
    assert before["policy"]["offloadThreshold"] == "-1"
    partition = f"persistent://{place}/system/functions-partition-1"
    assert before["policy"][partition] == "0 of 0 bytes offloaded"
    monkeypatch.setenv("PULSAR_OFFLOAD_THRESHOLD", "10GB")
    monkeypatch.setenv("PULSAR_OFFLOAD_DELETION_LAG", "1h")
    code, said, _ = command(capsys, "queue", "policy", "--set")
    assert code == 0
    assert "(was -1)" in said
    after = json.loads(command(capsys, "queue", "policy", "--json")[1])["policy"]
    assert (after["offloadThreshold"], after["offloadDeletionLagMs"]) == ("10000000000", "3600000")


def test_the_embedded_queue_says_that_it_has_no_policy_server(
    capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    code, _, err = command(capsys, "queue", "policy", "--data-dir", str(tmp_path))
    assert code == 1
    assert "QUEUE_RETENTION" in err


def test_a_server_that_is_away_leaves_no_half_of_an_installation(
    place: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    planned = command(capsys, "install", "--dry-run")[1]
    for name, part in (("ELASTIC_HOST", "store"), ("PULSAR_API", "queue")):
        with monkeypatch.context() as patch:
            patch.setenv(name, "http://127.0.0.1:1")
            patch.setenv("WAIT_FOR_DEPENDENCIES", "1")
            code, out, err = command(capsys, "install")
            assert (code, out) == (1, "")
            assert err.splitlines()[-1].startswith(f"Error: {part}: ")
            assert "127.0.0.1:1" in err
            assert '"waiting_for"' in err
    assert command(capsys, "install", "--dry-run")[1] == planned
