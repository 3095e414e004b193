"""The loader: precedence, forms of values, and everything that is wrong said at once."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from tracardi_lite.settings import Loaded, Origin, Problems, Settings, load, near_misses
from tracardi_lite.settings.fields import FIELDS, sections
from tracardi_lite.settings.values import plain, shown, size


def problems_of(
    flags: dict[str, object] | None = None, environ: dict[str, str] | None = None, file: Path | None = None
) -> list[str]:
    with pytest.raises(Problems) as caught:
        load(flags or {}, environ or {}, file)
    return str(caught.value).splitlines()


def from_env(**environ: str) -> Settings:
    return load({}, environ).settings


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "settings.toml"


def test_nothing_given_is_all_defaults() -> None:
    loaded = load({}, {"PATH": "/bin", "HOME": "/root"})
    assert loaded == Loaded(Settings(), dict.fromkeys(FIELDS, Origin("default")))


def test_a_flag_wins_over_the_environment_which_wins_over_the_file(file: Path) -> None:
    file.write_text("# mine\nport = 1\nbulk_size = 1\nworkers = 1\n")
    loaded = load({"port": "3", "host": None}, {"TRACARDI_LITE_PORT": "2", "BULK_SIZE": "2"}, file)
    assert (loaded.settings.port, loaded.settings.bulk_size, loaded.settings.workers) == (3, 2, 1)
    assert str(loaded.origins["port"]) == "flag --port"
    assert str(loaded.origins["bulk_size"]) == "env BULK_SIZE"
    assert str(loaded.origins["workers"]) == f"file {file}:4"
    assert str(loaded.origins["host"]) == "default"


@pytest.mark.parametrize("text", ["yes", "YES", "on", "True", "1", " yes "])
def test_a_switch_is_turned_on_by_any_of_tracardis_words(text: str) -> None:
    assert from_env(TRACK_DEBUG=text).track_debug is True


@pytest.mark.parametrize("text", ["no", "No", "OFF", "false", "0"])
def test_a_switch_is_turned_off_by_any_of_tracardis_words(text: str) -> None:
    assert from_env(SYSTEM_EVENTS=text).system_events is False


@pytest.mark.parametrize("text", ["WARNING", "Warning", "warn"])
def test_a_logging_level_is_read_in_any_case_and_by_its_old_name(text: str) -> None:
    assert from_env(LOGGING_LEVEL=text).logging_level == "warning"
    assert from_env(TRACARDI_LOGGING_LEVEL=text).logging_level == "warning"


@pytest.mark.parametrize(
    ("text", "count"),
    [
        ("2048", 2048),
        ("64kB", 64_000),
        ("64 KiB", 65_536),
        ("64MiB", 64 << 20),
        ("0.5mb", 500_000),
        ("1_000_000", 10**6),
    ],
)
def test_sizes_are_plain_numbers_or_have_an_unmistakable_unit(text: str, count: int) -> None:
    assert from_env(EVENT_MAX=text, BODY_MAX="64MiB").event_max == count


def test_a_size_that_half_of_its_readers_would_misread_is_refused() -> None:
    [problem] = problems_of(environ={"BODY_MAX": "64M"})
    assert "64MiB, 64MB" in problem


@pytest.mark.parametrize(
    ("text", "seconds"), [("30", 30.0), ("500ms", 0.5), ("45s", 45.0), ("2m", 120.0), ("1h", 3600.0), ("1.5 min", 90.0)]
)
def test_durations_are_plain_numbers_or_have_a_unit(text: str, seconds: float) -> None:
    assert from_env(BULK_TIMEOUT=text, BULK_IDLE="0").bulk_timeout == seconds


def test_a_duration_in_whole_seconds_takes_no_fraction() -> None:
    assert from_env(QUEUE_RETENTION="7d").queue_retention == 7 * 86400
    assert "QUEUE_RETENTION: expected a whole number of seconds" in problems_of(environ={"QUEUE_RETENTION": "500ms"})[0]


@pytest.mark.parametrize("text", ["nan", "inf", "-1", "1e3", "0x10", "", "٣", "9" * 31])
def test_what_is_no_number_in_its_bounds_is_refused(text: str, file: Path) -> None:
    file.write_text(f'workers = "{text}"\n')
    assert problems_of(file=file)[0].startswith(f"{file}:1: workers: expected a whole number, 1 to 64")


@pytest.mark.parametrize("raw", ["nan", "inf", "1.5", "true", "[1]", "1979-05-27", "{a = 1}"])
def test_a_toml_value_of_another_kind_is_refused(raw: str, file: Path) -> None:
    file.write_text(f"workers = {raw}\n")
    assert f"{file}:1: workers: " in problems_of(file=file)[0]


def test_the_bounds_themselves_are_allowed() -> None:
    assert from_env(RETRY_DELAY="0.01").retry_delay == 0.01
    assert load({}, {}, None).settings.retry_delay == 0.5
    assert from_env(TRACARDI_LITE_PORT="65535").port == 65535


def test_toml_numbers_may_be_written_either_way(file: Path) -> None:
    file.write_text("retry_delay = 0.01\nbulk_timeout = 10\nworkers = 3.0\n")
    settings = load({}, {}, file).settings
    assert (settings.retry_delay, settings.bulk_timeout, settings.workers) == (0.01, 10.0, 3)


def test_all_that_is_wrong_is_said_at_once_each_with_the_key_as_written(file: Path) -> None:
    file.write_text('bulk_sise = 3\n\nport = "eighty"\n[queue]\nurl = "x"\n')
    found = problems_of({"host": "", "bogus": 1}, {"WORKERS": "65", "TRACARDI_LITE_WORKRES": "1"}, file)
    assert found == [
        f"{file}:1: bulk_sise: no such setting. Did you mean bulk_size?",
        f"{file}:3: port: expected a whole number, 0 to 65535; got 'eighty'",
        f"{file}:4: queue: tables are not used; write every setting as a key at the top of the file",
        "environment: WORKERS: expected a whole number, 1 to 64; got '65'",
        "environment: TRACARDI_LITE_WORKRES: no such setting. Did you mean TRACARDI_LITE_WORKERS?",
        "--bogus: no such setting. `tracardi-lite settings` lists them.",
        "--host: expected an address or a host name; 0.0.0.0 listens on all",
    ]


def test_a_key_in_the_spelling_of_the_environment_is_recognised_as_a_near_miss(file: Path) -> None:
    file.write_text("BULK_SIZE = 3\nqueue-url = 'memory:'\n")
    first, second = problems_of(file=file)
    assert first.endswith("Did you mean bulk_size?")
    assert second.endswith("Did you mean queue_url?")


def test_a_secret_is_in_no_message(file: Path) -> None:
    file.write_text("installation_token = 31337\nregistry_url = ['mysql://u:hunter2@h']\n")
    text = "\n".join(problems_of(file=file))
    assert "installation_token: expected text" in text
    assert "31337" not in text
    assert "hunter2" not in text


def test_a_long_value_is_cut_in_messages() -> None:
    [problem] = problems_of(environ={"WORKERS": "x" * 5000})
    assert len(problem) < 200


def test_every_setting_can_be_given_by_every_name_it_has() -> None:
    for field in FIELDS.values():
        text = str(plain(field, field.default, is_default=True)) or "x"
        for name in field.env_names:
            assert load({}, {name: text}).origins[field.key] == Origin("env", name)


def test_our_own_name_wins_over_a_shared_one() -> None:
    loaded = load({}, {"WORKERS": "7", "TRACARDI_LITE_WORKERS": "9"})
    assert loaded.settings.workers == 9
    assert loaded.origins["workers"].name == "TRACARDI_LITE_WORKERS"


def test_no_two_settings_share_a_name() -> None:
    names = [name for field in FIELDS.values() for name in field.env_names]
    assert len(names) == len(set(names))


def test_an_empty_variable_counts_as_not_set() -> None:
    assert load({}, {"BULK_SIZE": "", "INSTALLATION_TOKEN": ""}) == load({}, {})


def test_the_addresses_that_kubernetes_puts_into_every_pod_are_no_settings() -> None:
    links = {
        "TRACARDI_LITE_PORT": "tcp://10.96.0.7:8686",
        "TRACARDI_LITE_PORT_8686_TCP": "tcp://10.96.0.7:8686",
        "TRACARDI_LITE_PORT_8686_TCP_PROTO": "tcp",
        "TRACARDI_LITE_PORT_8686_TCP_PORT": "8686",
        "TRACARDI_LITE_PORT_8686_TCP_ADDR": "10.96.0.7",
        "TRACARDI_LITE_SERVICE_HOST": "10.96.0.7",
        "TRACARDI_LITE_SERVICE_PORT": "8686",
        "TRACARDI_LITE_SERVICE_PORT_HTTP": "8686",
        "TRACARDI_LITE_WORKER_SERVICE_HOST": "10.96.0.8",
        "TRACARDI_LITE_WORKER_PORT": "tcp://10.96.0.8:8687",
        "TRACARDI_LITE_API_PORT": "tcp://10.96.0.9:8686",
    }
    assert load({}, links) == load({}, {})


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"BULK_IDLE": "40"}, "BULK_IDLE: never acts, since bulk_timeout (30 s) comes first"),
        ({"EVENT_MAX": "20MiB"}, "EVENT_MAX: an event can't be larger than the body it comes in; body_max is 10 MiB"),
        ({"BODY_MAX": "65MiB"}, "BODY_MAX: a body this large would always get 503; in_flight_max is 64 MiB"),
        ({"BODY_MAX": "1MiB", "EVENT_MAX": "2MiB"}, "EVENT_MAX: an event can't be larger"),
        ({"QUEUE_BYTES_MAX": "5MiB", "QUEUE_RETENTION_BYTES": "0"}, "QUEUE_BYTES_MAX: does not go with the default of"),
        ({"QUEUE_RETENTION_BYTES": "21GiB"}, "QUEUE_RETENTION_BYTES: more is kept than the queue may use"),
        ({"RETRY_DELAY": "60"}, "RETRY_DELAY: the first pause is longer than the longest; retry_delay_max is 30 s"),
        ({"RETRY_DELAY_MAX": "0.1"}, "RETRY_DELAY_MAX: does not go with the default of retry_delay: the first pause"),
        ({"TENANT_NAME": "My Shop"}, "TENANT_NAME: expected lower-case letters"),
        ({"USE_X_FORWARDED_IP": "x forwarded"}, "USE_X_FORWARDED_IP: expected the name of a header"),
        ({"STORE_URL": "elastic"}, "STORE_URL: expected a URL"),
    ],
)
def test_settings_that_are_fine_alone_and_not_together_are_refused(environ: dict[str, str], expected: str) -> None:
    assert any(line.startswith("environment: " + expected) for line in problems_of(environ=environ))


def test_a_default_that_merely_has_no_effect_does_not_stop_the_start() -> None:
    assert from_env(BULK_TIMEOUT="0.1").bulk_timeout == 0.1


@pytest.mark.parametrize("role", ["api", "worker"])
@pytest.mark.parametrize("name", ["QUEUE_URL", "STORE_URL"])
def test_half_a_program_has_no_memory_to_share(role: str, name: str) -> None:
    [problem] = problems_of({"role": role}, {name: "memory:"})
    assert f"{name}: memory: lives inside one process, and with role {role}" in problem
    assert load({"role": "all"}, {name: "memory:"}).settings.role == "all"


def test_a_contradiction_with_a_wrong_value_is_not_guessed_at() -> None:
    assert len(problems_of(environ={"BODY_MAX": "lots", "EVENT_MAX": "11MiB"})) == 1


def test_a_file_that_is_not_there_or_not_toml_is_a_problem_and_not_a_crash(tmp_path: Path, file: Path) -> None:
    assert "can't read" in problems_of(file=tmp_path / "none.toml")[0]
    assert "can't read" in problems_of(file=tmp_path)[0]
    file.write_text("port = = 3")
    assert "is not a TOML file: " in problems_of(file=file)[0]
    assert "line 1" in problems_of(file=file)[0]
    file.write_bytes(b"\xff\xfe")
    assert "is not a TOML file: " in problems_of(file=file)[0]
    file.write_text("#" * (1 << 20) + "\n")
    assert "larger than" in problems_of(file=file)[0]


def test_what_is_wrong_elsewhere_is_said_together_with_an_unreadable_file(tmp_path: Path) -> None:
    assert len(problems_of({"port": "x"}, {"WORKERS": "x"}, tmp_path / "none.toml")) == 3


def test_loading_reads_and_never_writes(file: Path) -> None:
    file.write_text("port = 1")
    file.chmod(stat.S_IRUSR)
    load({}, {}, file)
    assert [path.name for path in file.parent.iterdir()] == ["settings.toml"]


def test_a_home_directory_is_understood(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert load({"data_dir": "~/data"}, {}).settings.data_dir == tmp_path / "data"


def test_values_are_shown_as_people_write_them() -> None:
    assert shown(FIELDS["body_max"], 10 << 20) == "10 MiB"
    assert shown(FIELDS["reuse_port"], True) == "yes"
    assert shown(FIELDS["bulk_timeout"], 30.0) == "30"
    assert shown(FIELDS["queue_url"], "redis://me:hunter2@host/0") == "redis://me:***@host/0"
    assert shown(FIELDS["registry_url"], "mysql://me:hunter2@host") == "(hidden)"
    assert shown(FIELDS["installation_token"], "") == ""
    assert [size(0), size(1000), size(1536), size(1 << 40)] == ["0", "1000", "1536", "1 TiB"]


def test_sections_hold_every_setting_once() -> None:
    assert [field.key for section in sections() for field in section.fields] == list(FIELDS)


def test_every_default_is_a_value_that_the_setting_takes() -> None:
    for field in FIELDS.values():
        raw = str(field.default) if field.type == "path" else field.default
        assert getattr(load({field.key: raw}, {}).settings, field.key) == field.default


@pytest.mark.parametrize(
    ("name", "meant"),
    [("BULK_SIZ", "BULK_SIZE"), ("BULK_TIME_OUT", "BULK_TIMEOUT"), ("ELASTIC_HOSTS", "ELASTIC_HOST")],
)
def test_a_misspelt_variable_is_told_with_the_name_that_was_meant(name: str, meant: str) -> None:
    (line,) = near_misses({name: "3", "PATH": "/bin", "LANG": "C", "HOSTNAME": "x"})
    assert name in line
    assert line.endswith(f"did you mean {meant}?")


def test_variables_of_others_and_settings_beside_their_neighbours_are_left_alone() -> None:
    assert near_misses({"BULK_SIZE": "3", "BULK_SIZES": "4", "PYTHONPATH": "x", "LD_LIBRARY_PATH": "y"}) == []
