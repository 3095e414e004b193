"""conf/compose.yaml fits the program: names, commands, order of starting, times."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from tracardi_lite.cli import cli
from tracardi_lite.install import check_merging
from tracardi_lite.settings import Settings, load
from tracardi_lite.settings.fields import FIELDS

TEXT = (Path(__file__).parents[2] / "conf" / "compose.yaml").read_text(encoding="utf-8")
COMPOSE: dict[str, Any] = yaml.safe_load(TEXT)
SERVICES: dict[str, Any] = COMPOSE["services"]
OURS = {name: service for name, service in SERVICES.items() if service["image"] == "tracardi-lite"}
GIVEN = {"AUTO_PROFILE_MERGING": "a secret of twenty characters", "INSTALLATION_TOKEN": "let-me-in"}


def environment(service: dict[str, Any]) -> dict[str, str]:
    """As compose hands it over, with what it asks for given."""

    def value(match: re.Match[str]) -> str:
        name, _, default = match[1].partition(":")
        return GIVEN.get(name, default.removeprefix("-"))

    return {name: re.sub(r"\$\{([^}]*)\}", value, str(text)) for name, text in service["environment"].items()}


def test_it_runs_both_roles_and_all_servers() -> None:
    assert set(OURS) == {"install", "api", "worker"}
    assert set(SERVICES) - set(OURS) == {"balancer", "elasticsearch", "pulsar", "redis", "mariadb"}
    assert all(OURS[role]["deploy"]["replicas"] == 2 for role in ("api", "worker"))


@pytest.mark.parametrize("name", OURS)
def test_every_variable_is_a_setting_and_every_command_is_one(name: str) -> None:
    service = OURS[name]
    known = {each for field in FIELDS.values() for each in field.env_names}
    assert set(service["environment"]) <= known
    flags = dict(zip(service["command"][1::2], service["command"][2::2], strict=True))
    loaded = load({"role": flags.get("--role")}, environment(service)).settings
    assert service["command"][0] in cli.commands
    urls = (loaded.queue_url, loaded.store_url, loaded.cache_url, loaded.registry_url)
    assert urls == ("pulsar:", "elasticsearch:", "redis:", "mysql:")
    check_merging(loaded)
    assert loaded.role == {"install": "all"}.get(name, name)
    for host in (loaded.elastic_host, loaded.pulsar_host, loaded.redis_host, loaded.mysql_host, loaded.pulsar_api):
        found = re.fullmatch(r"(?:\w+://)?(\w+)(?::\d+)?", host)
        assert found is not None
        assert found[1] in SERVICES, host


@pytest.mark.parametrize("name", OURS)
def test_it_is_stopped_no_sooner_than_it_stops(name: str) -> None:
    settings = Settings()
    grace_s = int(OURS[name]["stop_grace_period"].removesuffix("s"))
    assert grace_s > settings.shutdown_timeout + settings.shutdown_delay


def test_what_is_waited_for_can_say_that_it_is_there() -> None:
    for name, service in SERVICES.items():
        wanted = service.get("depends_on", {})
        for other in wanted:
            assert other in SERVICES, name
            if isinstance(wanted, dict) and wanted[other]["condition"] == "service_healthy":
                assert "healthcheck" in SERVICES[other], other


def test_secrets_are_asked_for_and_not_written_down() -> None:
    for name in GIVEN:
        assert f"{name}: ${{{name}:?" in TEXT
    assert COMPOSE["services"]["balancer"]["ports"] == ["127.0.0.1:8686:8686"], "nothing is open to the network"


def test_clients_addresses_come_through_the_balancer() -> None:
    balancer = COMPOSE["configs"]["balancer"]["content"]
    [header] = re.findall(r"proxy_set_header (X-Forwarded-For) \$\$remote_addr;", balancer)
    for role in ("api", "worker"):
        assert load({}, environment(OURS[role])).settings.use_x_forwarded_ip == header.lower()


def test_volumes_and_configs_are_declared() -> None:
    used = {each.partition(":")[0] for service in SERVICES.values() for each in service.get("volumes", [])}
    assert used == set(COMPOSE["volumes"])
    assert {each["source"] for each in SERVICES["balancer"]["configs"]} == set(COMPOSE["configs"])
