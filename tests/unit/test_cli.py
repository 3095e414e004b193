"""The commands, run as the program runs them: arguments in, exit code and text out.

Queue and store are the memory backends, held open over several commands as a server's files would be; the registry is
the real one on a file.
"""

from __future__ import annotations

import asyncio
import io
import json
import os
import socket
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from msgspec import Struct

from tracardi_lite import app, provision, waiting, wiring
from tracardi_lite.backends.queue.memory import MemoryLog
from tracardi_lite.backends.queue.memory import open_queue as open_memory_queue
from tracardi_lite.backends.store.memory import open_store as open_memory_store
from tracardi_lite.cli import dead_letters, run
from tracardi_lite.cli.backlog import parse_moment
from tracardi_lite.cli.server import _role
from tracardi_lite.cli.show import plain_table, rich_table, span, volume
from tracardi_lite.cli.welcome import program, welcome
from tracardi_lite.errors import Full, Misconfigured, Unavailable
from tracardi_lite.ports.queue import SUBSCRIPTION, DeadLetter, Done, Publication, Queue, Tally
from tracardi_lite.ports.store import Claim, Entry, EventWrite, RecordWrite, Store
from tracardi_lite.protocol.envelope import Head, decode_head, encode_head
from tracardi_lite.settings import Settings


class Said(Struct):
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Command = Callable[..., Said]


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Command:
    """Runs a command line in an empty directory and an environment without settings."""
    monkeypatch.chdir(tmp_path)
    for name in list(os.environ):
        if name.startswith("TRACARDI_LITE_"):
            monkeypatch.delenv(name)

    def call(*args: str, stdin: str = "") -> Said:
        monkeypatch.setattr("sys.stdin", io.StringIO(stdin))
        code = run(args)
        out, err = capfd.readouterr()
        return Said(code, out, err)

    return call


class Backends:
    def __init__(self) -> None:
        self._log = MemoryLog(2)
        self._store = open_memory_store("memory:", Settings())

    def queue(self, settings: Settings | None = None) -> Queue:
        return open_memory_queue("memory:", settings or Settings(), log=self._log)

    def store(self, settings: Settings | None = None) -> Store:
        return self._store


@pytest.fixture
def backends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Backends:
    (tmp_path / "tracardi-lite-data").mkdir()
    made = Backends()
    monkeypatch.setattr(wiring, "open_queue", made.queue)
    monkeypatch.setattr(wiring, "open_store", made.store)
    return made


def head(**fields: Any) -> bytes:
    return encode_head(
        Head(**{"id": "m-1", "received_ms": 1, "source": "default", "session": "s", "profile": "p-1", **fields})
    )


def publish(backends: Backends, *keys: str, events: int = 1) -> None:
    async def work() -> None:
        async with backends.queue() as queue:
            for key in keys:
                await queue.publish(Publication(key, head(), b'{"events":[]}', events))

    asyncio.run(work())


def kill(backends: Backends, *letters: DeadLetter) -> None:
    """Take all that waits and let it die as these letters."""

    async def work() -> None:
        async with backends.queue() as queue:
            consumer = await queue.subscribe(SUBSCRIPTION)
            messages = await consumer.receive(100, 1 << 20, 1.0)
            done = [Done(message, Tally(dead=message.events)) for message in messages]
            await consumer.ack(done, list(letters))
            await consumer.close()

    asyncio.run(work())


def letter(id: str, *, events: int = 1, indices: list[int] | None = None, body: bytes = b'{"a":1}') -> DeadLetter:
    return DeadLetter(id, "p-1", head(), body, events, "mapper_parsing_exception", 1_700_000_000_000, indices, 3)


# settings


def test_settings_shows_value_origin_default_and_unit(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BULK_SIZE", "1000")
    said = command("settings", "bulk_size")
    header, line = said.out.splitlines()
    assert header.split() == ["key", "environment", "value", "from", "default", "unit", "meaning"]
    assert line.split()[:7] == ["bulk_size", "BULK_SIZE", "1000", "env", "BULK_SIZE", "500", "events"]
    assert said.code == 0


def test_settings_as_json_are_all_of_them_with_secrets_masked(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("INSTALLATION_TOKEN", "hunter2-hunter2")
    said = command("settings", "--json")
    found = {each["key"]: each for each in said.json}
    assert set(found) == set(Settings.__struct_fields__)
    assert found["installation_token"]["value"] == "(hidden)"
    assert found["installation_token"]["source"] == {"kind": "env", "name": "INSTALLATION_TOKEN"}
    assert found["body_max"]["value"] == 10 << 20
    assert "hunter2" not in said.out


def test_settings_can_be_narrowed_to_the_changed_ones(command: Command, tmp_path: Path) -> None:
    (tmp_path / "my.toml").write_text("workers = 9\n")
    said = command("settings", "--changed", "--json", "--config", "my.toml")
    assert [(each["key"], each["source"]["name"]) for each in said.json] == [("workers", "my.toml:1")]


def test_the_settings_file_can_be_named_by_the_environment(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my.toml").write_text("workers = 9\n")
    monkeypatch.setenv("TRACARDI_LITE_CONFIG", "my.toml")
    assert [each["value"] for each in command("settings", "--changed", "--json").json] == [9]


def test_wrong_settings_end_any_command_with_2_and_all_the_reasons(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORKERS", "many")
    monkeypatch.setenv("TRACARDI_LITE_HOSTT", "x")
    for args in (["serve"], ["check-config"], ["settings"], ["backlog"]):
        said = command(*args)
        assert said.code == 2
        assert said.out == ""
        assert said.err.splitlines() == [
            "The settings have 2 problems:",
            "  environment: WORKERS: expected a whole number, 1 to 64; got 'many'",
            "  environment: TRACARDI_LITE_HOSTT: no such setting. Did you mean TRACARDI_LITE_HOST?",
        ]


def test_check_config_says_ok_and_makes_nothing(command: Command, tmp_path: Path, backends: Backends) -> None:
    said = command("check-config", "--data-dir", "deep/er")
    assert (said.code, said.out) == (0, f"OK: 1 of {len(Settings.__struct_fields__)} settings given, role all.\n")
    assert not (tmp_path / "deep").exists()


def test_check_config_finds_what_only_the_machine_can_say(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("QUEUE_URL", "sqlit:")
    monkeypatch.setenv("TRACKER_DIR", "nowhere")
    said = command("check-config", "--data-dir", "file/below")
    assert said.code == 2
    assert "queue_url: no queue backend for the scheme 'sqlit'. Did you mean sqlite:?" in said.err
    assert "tracker_dir: nowhere is not a directory" in said.err
    assert "data_dir: file/below can't be written to" in said.err


# serve, install, healthcheck


@pytest.mark.parametrize(
    ("role", "api", "worker", "expected"),
    [
        (None, False, False, None),
        (None, True, False, "api"),
        (None, False, True, "worker"),
        (None, True, True, "all"),
        ("API", True, False, "API"),
        ("worker", False, False, "worker"),
    ],
)
def test_the_roles_short_flags(role: str | None, api: bool, worker: bool, expected: str | None) -> None:
    assert (_role(role, api, worker) or "").lower() == (expected or "").lower()


def test_flags_that_say_different_things_are_a_usage_error(command: Command) -> None:
    said = command("serve", "--role", "worker", "--api")
    assert said.code == 2
    assert "--role worker and --api say different things" in said.err


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        ([], {}),
        (["--worker", "--port", "9001"], {"role": "worker", "port": 9001, "worker_port": 9001}),
        (["--api", "--reuse-port", "--host", "::1"], {"role": "api", "reuse_port": True, "host": "::1"}),
        (["--data-dir", "there"], {"data_dir": Path("there")}),
    ],
)
def test_serve_hands_the_flags_to_the_app_and_its_code_to_the_shell(
    command: Command, monkeypatch: pytest.MonkeyPatch, args: list[str], expected: dict[str, Any]
) -> None:
    seen: list[Settings] = []

    def start(settings: Settings, announce: object) -> int:
        seen.append(settings)
        return 7

    monkeypatch.setattr(app, "run", start)
    assert command("serve", *args).code == 7
    assert {key: getattr(seen[0], key) for key in expected} == expected


def test_an_error_while_starting_is_a_sentence_and_not_a_trace(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    errors = iter([Misconfigured("port", "127.0.0.1:8686 is in use.", "Take another."), Full("disk", "no space left")])

    def start(settings: Settings, announce: object) -> int:
        raise next(errors)

    monkeypatch.setattr(app, "run", start)
    assert command("serve") == Said(2, "", "Misconfigured: port: 127.0.0.1:8686 is in use. Take another.\n")
    assert command("serve") == Said(1, "", "Error: disk: no space left\n")


def test_install_makes_everything_once(command: Command, tmp_path: Path, backends: Backends) -> None:
    first = command("install", "--username", "me@example.com", "--password", "correct horse")
    assert first.code == 0
    assert "made the administrator me@example.com" in first.out
    assert "correct horse" not in first.out
    assert "default" in command("source", "list").out
    assert [each["id"] for each in command("user", "list", "--json").json] == ["me@example.com"]
    assert command("install").out == "Nothing to do: all is there.\n"


def test_a_dry_run_of_install_says_what_it_would_do_and_makes_nothing(command: Command, tmp_path: Path) -> None:
    said = command("install", "--dry-run", "--data-dir", "new/place")
    assert (said.code, said.out[:25]) == (0, "registry: make the tables")
    assert not (tmp_path / "new").exists()


def test_a_dry_run_after_install_has_nothing_to_say(command: Command, backends: Backends) -> None:
    assert command("install").code == 0
    assert command("install", "--dry-run").out == "Nothing to do: all is there.\n"


def test_install_shows_a_password_that_it_made(command: Command, backends: Backends) -> None:
    said = command("install", "--data-dir", "new/place")
    assert said.code == 0
    assert "user      admin@localhost\n  password  " in said.out


def test_install_with_a_wrong_token_is_refused(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("INSTALLATION_TOKEN", "the-right-one")
    said = command("install", "--token", "the-wrong-one")
    assert said.code == 1
    assert said.err.startswith("Error: Installation forbidden")


def test_install_waits_for_servers_that_are_not_there_yet(
    command: Command, backends: Backends, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a job beside them in a cluster has to."""
    tries: dict[str, int] = {"plan": 0, "provision": 0}

    def late(name: str) -> None:
        real = getattr(provision, name)

        async def attempt(*args: Any, **options: Any) -> Any:
            tries[name] += 1
            if tries[name] < 3:
                raise Unavailable("store", f"no {name} yet")
            return await real(*args, **options)

        monkeypatch.setattr(provision, name, attempt)

    late("provision")
    late("plan")
    monkeypatch.setattr(waiting, "PAUSE_S", 0.001)
    said = command("install")
    assert said.code == 0
    assert "made the administrator" in said.out
    lines = [json.loads(line) for line in said.err.splitlines()]
    assert [(line["event"], line["part"], line["reason"]) for line in lines] == [
        ("waiting_for", "store", f"no {name} yet") for name in ("plan", "plan", "provision", "provision")
    ]
    assert command("install").out == "Nothing to do: all is there.\n"


def test_install_waits_no_longer_than_it_is_told_to(
    command: Command, backends: Backends, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def away(*args: Any, **options: Any) -> Any:
        raise Unavailable("queue", "nobody there")

    monkeypatch.setattr(provision, "plan", away)
    monkeypatch.setenv("WAIT_FOR_DEPENDENCIES", "0")
    said = command("install")
    assert (said.code, said.out) == (1, "")
    assert said.err.startswith("Error: queue: nobody there; a start waits 0 s")


class Report(Struct):
    lines: list[str]
    username: str | None = None
    password: str | None = None


def test_the_welcome_has_a_line_to_paste_and_the_password_once() -> None:
    settings = Settings(data_dir=Path("/srv/my data"))
    text = "\n".join(welcome(settings, Report(["made this"], "admin@localhost", "s3cret"), "http://0.0.0.0:8686"))
    assert text.count("s3cret") == 1
    assert "curl -sw '\\n' http://127.0.0.1:8686/track -H" in text
    assert "tracardi-lite events --profile ID --data-dir '/srv/my data'" in text
    body = json.loads(text.partition("-d '")[2].partition("'")[0])
    assert body["source"] == {"id": "default"}
    assert body["events"]


def test_the_welcome_calls_the_program_as_this_shell_can(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert program(".venv/bin/tracardi-lite") == ".venv/bin/tracardi-lite"
    assert program("/usr/lib/tracardi_lite/__main__.py").endswith(" -m tracardi_lite")
    (tmp_path / "tracardi-lite").touch(0o755)
    assert program(".venv/bin/tracardi-lite") == "tracardi-lite"


def test_a_start_that_fails_after_the_installation_still_shows_the_password() -> None:
    text = "\n".join(welcome(Settings(), Report(["made this"], "admin@localhost", "s3cret"), None))
    assert text.count("s3cret") == 1
    assert "curl" not in text


def test_a_later_start_says_one_line() -> None:
    [line] = welcome(Settings(), Report([]), "http://127.0.0.1:8686")
    assert "http://127.0.0.1:8686" in line


def test_a_workers_welcome_has_no_collector_to_send_to() -> None:
    lines = welcome(Settings(role="worker"), Report(["made this"]), "http://[::]:8687")
    assert not any("curl" in line for line in lines)
    assert "http://[::1]:8687" in lines[0]


@pytest.fixture
def server() -> Iterator[HTTPServer]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200 if self.path == "/health/ready" else 503)
            self.end_headers()
            self.wfile.write(f"asked for {self.path}".encode())

        def log_message(self, *args: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def test_healthcheck_asks_the_configured_address(
    command: Command, server: HTTPServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRACARDI_LITE_PORT", str(server.server_port))
    monkeypatch.setenv("TRACARDI_LITE_HOST", "0.0.0.0")
    assert command("healthcheck") == Said(0, "asked for /health/ready\n", "")
    monkeypatch.setenv("TRACARDI_LITE_WORKER_PORT", str(server.server_port))
    monkeypatch.setenv("TRACARDI_LITE_PORT", "1")
    monkeypatch.setenv("TRACARDI_LITE_ROLE", "worker")
    assert command("healthcheck").code == 0


def test_healthcheck_fails_where_the_server_is_not_ready_or_not_there(command: Command, server: HTTPServer) -> None:
    not_ready = command("healthcheck", "--url", f"http://127.0.0.1:{server.server_port}/other?x=1")
    assert not_ready == Said(1, "", "asked for /other?x=1\n")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        gone = command("healthcheck", "--url", f"http://127.0.0.1:{free.getsockname()[1]}/")
    assert gone.code == 1
    assert "refused" in gone.err
    assert command("healthcheck", "--url", "file:///etc/passwd").code == 2


# the store


@pytest.fixture
def stored(backends: Backends) -> Backends:
    """Profile p-1 with an alias p-0, and three events in two partitions."""

    async def work() -> None:
        async with backends.store() as store:
            doc = (
                b'{"id":"p-1","traits":{"name":"J\\u001b[31moe"},"segments":[],"stats":{"visits":0},"ids":["p-0"],'
                b'"metadata":{"aux":{},"system":{"aux":{"applied":{"p-1":{"t/0":[7]}}}}}}'
            )
            await store.put([RecordWrite("profile", "p-1", "2026-q4", doc, None, 5)])
            await store.claim([Claim("p:p-1", Entry("p-1", "2026-q4")), Claim("p:p-0", Entry("p-1", ""))])
            events = [
                EventWrite(
                    f"e-{n}", f"2026-{n}", event_doc(n, "p-0" if n == 10 else "p-1"), "m", "t", "s", None, "p-1", n
                )
                for n in (10, 11)
            ]
            await store.create_events(events)

    asyncio.run(work())
    return backends


def event_doc(number: int, profile: str) -> bytes:
    time = {"insert": f"2026-{number}-01T00:00:00+00:00"}
    return json.dumps(
        {
            "id": f"e-{number}",
            "type": "page-view",
            "metadata": {"time": time},
            "profile": {"id": profile},
            "properties": {"n": number},
        }
    ).encode()


def test_a_profile_is_found_by_its_id_and_by_a_merged_one(command: Command, stored: Backends) -> None:
    for id in ("p-1", "p-0"):
        said = command("profile", id, "--json")
        assert (said.code, said.json["id"]) == (0, "p-1")
    said = command("profile", "p-0")
    assert said.out.splitlines()[0] == "p-0 is now p-1"
    assert "stats.visits" in said.out
    assert "segments" not in said.out
    assert "applied" not in said.out
    assert "\x1b" not in said.out


def test_a_profile_that_is_not_there_is_said_so(command: Command, stored: Backends) -> None:
    assert command("profile", "nobody") == Said(1, "", "No profile nobody.\n")


def test_the_history_of_a_profile_tells_which_became_part_of_it_and_why(command: Command, stored: Backends) -> None:
    told = {
        "id": "p-0",
        "into": "p-1",
        "at": "2026-11-23T15:00:00.000+00:00",
        "why": ["data.contact.email.main"],
        "events": 3,
        "fields": ["data.pii.firstname", "traits.plan"],
    }
    lines = command("profile", "p-0", "--history").out.splitlines()
    assert lines == ["p-0 is now p-1", "p-1 was never merged with another."]

    async def merge() -> None:
        async with stored.store() as store:
            [record] = await store.get("profile", [("p-1", "2026-q4")])
            assert record is not None
            doc = json.loads(record.doc)
            doc["metadata"]["system"]["aux"]["history"] = [told]
            await store.put([RecordWrite("profile", "p-1", "2026-q4", json.dumps(doc).encode(), record.version, 5)])

    asyncio.run(merge())
    said = command("profile", "p-1", "--history").out
    for part in ("p-0", "p-1", "2026-11-23T15:00", "data.contact.email.main", "data.pii.firstname, traits.plan"):
        assert part in said
    assert command("profile", "p-1", "--history", "--json").json == [told]


def test_events_of_a_profile_include_those_from_before_a_merge_newest_first(command: Command, stored: Backends) -> None:
    said = command("events", "--profile", "p-0", "--json")
    assert [json.loads(line)["id"] for line in said.out.splitlines()] == ["e-11", "e-10"]
    table = command("events", "--profile", "p-1", "--limit", "1").out
    assert "page-view" in table
    assert '{"n":11}' in table


def test_an_event_with_a_number_beyond_any_type_is_shown_as_it_was_sent(command: Command, stored: Backends) -> None:
    doc = event_doc(12, "p-1").replace(b'"n": 12', b'"n":\n  1e999')

    async def work() -> None:
        async with stored.store() as store:
            await store.create_events([EventWrite("e-12", "2026-12", doc, "m", "t", "s", None, "p-1", 12)])

    asyncio.run(work())
    table = command("events", "--profile", "p-1")
    assert (table.code, table.err) == (0, "")
    assert '{"n":1e999}' in table.out
    assert '{"n":11}' in table.out


def test_a_partition_is_made_before_it_is_needed(command: Command, stored: Backends) -> None:
    assert command("partitions", "create", "event", "2027-1").out == "Made event partition 2027-1.\n"
    assert command("partitions", "create", "event", "2027-1").out == "event partition 2027-1 is there.\n"
    assert command("partitions", "create", "event", "january").code == 2


@pytest.mark.parametrize(
    "args", [("move", "event", "2026-10", "cold"), ("snapshot", "event", "2026-10"), ("snapshots",)]
)
def test_a_store_without_tiers_says_so(command: Command, stored: Backends, args: tuple[str, ...]) -> None:
    said = command("partitions", *args)
    assert said.code == 1
    assert "makes no snapshots" in said.err


def test_partitions_are_listed_and_dropped_only_when_meant(command: Command, stored: Backends) -> None:
    assert [(each["kind"], each["name"], each["records"]) for each in command("partitions", "list", "--json").json] == [
        ("event", "2026-10", 1),
        ("event", "2026-11", 1),
        ("profile", "2026-q4", 1),
    ]
    asked = command("partitions", "drop", "event", "2026-10", stdin="n\n")
    assert "with 1 records" in asked.out
    assert (asked.code, "Aborted" in asked.err) == (1, True)
    assert "2026-10" in command("partitions", "list").out
    assert command("partitions", "drop", "event", "2026-10", "--yes").out == "Dropped 1 records.\n"
    assert "2026-10" not in command("partitions", "list").out


def test_dropping_a_partition_that_is_not_there_lists_those_that_are(command: Command, stored: Backends) -> None:
    said = command("partitions", "drop", "event", "2020-1", "--yes")
    assert said.code == 1
    assert said.err == "Error: There is no event partition 2020-1. There are: 2026-10, 2026-11.\n"


# the queue


def test_backlog_counts_what_waits(command: Command, backends: Backends) -> None:
    publish(backends, "a", "b", "c", events=2)
    rows = command("backlog", "--json").json
    assert (sum(row["messages"] for row in rows), sum(row["events"] for row in rows)) == (3, 6)
    last = command("backlog").out.splitlines()[-1].split()
    assert last == ["all", "3", "6"]


def test_backlog_can_be_watched(command: Command, backends: Backends) -> None:
    said = command("backlog", "--watch", "--json", "--every", "0.1", "--times", "2")
    assert len(said.out.splitlines()) == 2


def test_the_ledger_adds_up_and_says_so(command: Command, backends: Backends) -> None:
    publish(backends, "a", events=3)
    said = command("ledger", "--json")
    assert (said.json["received"], said.json["pending"], said.json["difference"]) == (3, 3, 0)
    assert "it adds up" in command("ledger").out


def test_a_ledger_that_does_not_add_up_is_an_error(command: Command, backends: Backends) -> None:
    publish(backends, "a", events=3)
    backends._log.ledger["stored"] += 1
    said = command("ledger")
    assert said.code == 1
    assert "does NOT add up: -1 events" in said.err


def test_seek_makes_what_was_done_pending_again(command: Command, backends: Backends) -> None:
    publish(backends, "a", events=3)
    kill(backends)
    assert command("seek", "--from-start").out == "3 events are pending again.\n"
    assert command("ledger", "--json").json["pending"] == 3


@pytest.mark.parametrize("args", [(), ("--to", "2h", "--from-start"), ("--to", "soon"), ("--to", "2999-01-01")])
def test_seek_needs_one_place_to_go(command: Command, backends: Backends, args: tuple[str, ...]) -> None:
    assert command("seek", *args).code == 2


def test_a_moment_is_a_time_or_how_long_ago() -> None:
    now = 1_800_000_000_000
    assert parse_moment("2h", now) == now - 7_200_000
    assert parse_moment("1970-01-02", now) == 86_400_000
    assert parse_moment("1970-01-01T01:00:00+01:00", now) == 0
    assert parse_moment("999999999w", now) == 0


def test_dead_letters_are_listed_shown_replayed_and_dropped(command: Command, backends: Backends) -> None:
    assert command("dead-letters", "list").out == "No dead letters.\n"
    publish(backends, "a", "b", "c", events=2)
    kill(
        backends,
        letter("1-a", events=2, indices=[0, 3]),
        letter("2-b", events=2),
        letter("3-c", events=2, body=b"\xff"),
    )
    assert [line.split()[0] for line in command("dead-letters", "list").out.splitlines()[1:]] == ["1-a", "2-b", "3-c"]
    shown = command("dead-letters", "show", "1-a").json
    assert (shown["body"], shown["head"]["source"], shown["indices"]) == ({"a": 1}, "default", [0, 3])
    assert command("dead-letters", "show", "3-c").json["body"] == "\\xff"
    assert command("dead-letters", "replay", "1-a").out == "Replayed 1 dead letters with 2 events.\n"
    assert command("dead-letters", "drop", "2-b", stdin="n\n").code == 1
    assert command("dead-letters", "drop", "--all", "--yes").out == "Dropped 2 dead letters with 4 events.\n"
    ledger = command("ledger", "--json").json
    assert (ledger["replayed"], ledger["pending"], ledger["dead"], ledger["difference"]) == (2, 2, 0, 0)


def test_more_letters_than_a_page_are_all_found(command: Command, backends: Backends) -> None:
    publish(backends, "a", events=50)
    kill(backends, *(letter(f"{number:03d}") for number in range(50)))
    assert len(command("dead-letters", "list", "--json").out.splitlines()) == 50
    assert len(command("dead-letters", "list", "--limit", "7", "--json").out.splitlines()) == 7
    assert command("dead-letters", "replay", "--all").out == "Replayed 50 dead letters with 50 events.\n"


def test_letters_that_are_not_there_are_named(command: Command, backends: Backends) -> None:
    said = command("dead-letters", "replay", "no-such")
    assert (said.code, said.err) == (1, "Error: No dead letter no-such.\n")
    assert command("dead-letters", "replay").code == 2
    assert command("dead-letters", "drop", "x", "--all").code == 2


def test_a_replay_keeps_the_message_id_and_takes_only_the_dead_events() -> None:
    publication = dead_letters.replay_of(letter("x", events=2, indices=[1, 4]))
    found = decode_head(publication.head)
    assert (found.id, found.only, publication.replay, publication.events) == ("m-1", [1, 4], True, 2)
    assert dead_letters.replay_of(letter("y")).head == head()


def test_a_letter_whose_head_is_broken_stays_where_it_is(command: Command, backends: Backends) -> None:
    publish(backends, "a")
    broken = letter("1-a", indices=[0])
    broken.head = b"\xc1"
    kill(backends, broken)
    said = command("dead-letters", "replay", "--all")
    assert "1-a: its head can't be read" in said.err
    assert command("dead-letters", "list").out.count("1-a") == 1
    assert command("dead-letters", "show", "1-a").code == 0


# the registry


@pytest.fixture
def installed(command: Command, backends: Backends) -> Command:
    assert command("install", "--username", "me@example.com", "--password", "correct horse").code == 0
    return command


def test_sources_are_added_and_switched(installed: Command) -> None:
    assert installed("source", "add", "shop", "--type", "webhook", "--channel", "Web").code == 0
    assert installed("source", "add", "shop").code == 1
    assert installed("source", "disable", "shop").code == 0
    found = {each["id"]: each for each in installed("source", "list", "--json").json}
    assert (found["shop"]["enabled"], found["shop"]["type"], found["shop"]["name"]) == (False, ["webhook"], "shop")
    installed("source", "enable", "shop")
    assert {each["id"]: each["enabled"] for each in installed("source", "list", "--json").json}["shop"] is True
    assert installed("source", "enable", "none").code == 1
    assert installed("source", "add", "x", "--type", "telepathy").code == 2


def test_users_are_added_and_get_new_passwords(installed: Command, tmp_path: Path) -> None:
    assert installed("user", "add", "you@example.com", stdin="a long password\n").code == 0
    assert installed("user", "add", "you@example.com", "--password", "a long password").code == 1
    assert installed("user", "password", "you@example.com", stdin="another password\n").code == 0
    assert installed("user", "password", "none@example.com", "--password", "another password").code == 1
    assert installed("user", "password", "you@example.com", stdin="short\n").code == 2

    async def check() -> bool:
        async with wiring.open_registry(Settings(data_dir=tmp_path / "tracardi-lite-data")) as registry:
            return await registry.authenticate("you@example.com", "another password") is not None

    assert asyncio.run(check())


def test_a_rotated_secret_stands_in_front_of_the_old_one(installed: Command, tmp_path: Path) -> None:
    async def held() -> list[str]:
        async with wiring.open_registry(Settings(data_dir=tmp_path / "tracardi-lite-data")) as registry:
            return await registry.secret("identity", lambda: "never made")

    before = asyncio.run(held())
    assert installed("secret", "rotate", stdin="n\n").code == 1
    assert asyncio.run(held()) == before
    assert installed("secret", "rotate", "--yes").code == 0
    after = asyncio.run(held())
    assert after[1:] == before
    assert len(after[0]) >= 40


# around them


def test_a_command_where_there_is_no_installation_says_so_and_makes_none(command: Command, tmp_path: Path) -> None:
    for args in (["backlog"], ["profile", "x"], ["source", "list"]):
        said = command(*args)
        assert said.code == 2
        assert "there is no tracardi-lite-data" in said.err
    assert list(tmp_path.iterdir()) == []


def test_another_processs_memory_is_not_pretended_to_be_seen(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("QUEUE_URL", "memory:")
    said = command("ledger")
    assert said.code == 2
    assert "queue_url: memory: lives inside the server's process" in said.err


def test_an_unknown_command_or_option_is_a_usage_error(command: Command) -> None:
    assert command("sreve").code == 2
    assert command("serve", "--prot", "1").code == 2


def test_help_and_version_cost_nothing_and_succeed(command: Command) -> None:
    assert command("--version").out.startswith("tracardi-lite, version ")
    assert "First steps:" in command("--help").out


def test_a_bug_shows_its_trace(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    def start(settings: Settings, announce: object) -> int:
        raise ZeroDivisionError

    monkeypatch.setattr(app, "run", start)
    with pytest.raises(ZeroDivisionError):
        command("serve")


def test_an_interrupt_ends_with_130(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    def start(settings: Settings, announce: object) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(app, "run", start)
    said = command("serve")
    assert (said.code, said.out, said.err.strip()) == (130, "", "")


def test_tables_in_a_pipe_are_aligned_and_cut_nothing_off() -> None:
    text = plain_table(("name", "count"), [("a" * 200, 1), ("b\x1b\n", 12345), (None, None)])
    first, second, third, fourth = text.split("\n")
    assert first.endswith("count")
    assert second == "a" * 200 + "       1"
    assert third.startswith("b\\x1b\\n")
    assert third.endswith("12,345")
    assert fourth == ""


def test_tables_on_a_terminal_take_markup_as_text() -> None:
    from rich.console import Console

    console = Console(file=io.StringIO(), width=60, force_terminal=True)
    console.print(rich_table(("name",), [("[red]x[/red]",)]))
    assert isinstance(console.file, io.StringIO)
    assert "[red]x[/red]" in console.file.getvalue()


def test_spans_and_volumes_are_short() -> None:
    assert [span(seconds) for seconds in (-1, 0.85, 12, 200, 7200, 10**6)] == [
        "0 ms",
        "850 ms",
        "12 s",
        "3.33 min",
        "2 h",
        "11.6 d",
    ]
    assert [volume(count) for count in (0, 999, 1023, 1536, 1 << 40)] == ["0 B", "999 B", "1023 B", "1.5 KiB", "1 TiB"]
