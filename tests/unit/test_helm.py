"""The Helm chart: rendered in its own language, and held against the settings and what Kubernetes needs of it.

Needs Go, to build the renderer in tests/helm; the names are checked without.
"""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from tracardi_lite import metrics
from tracardi_lite.cli import cli
from tracardi_lite.install import check_merging
from tracardi_lite.ports.queue import SUBSCRIPTION
from tracardi_lite.settings import Settings, load
from tracardi_lite.settings.fields import FIELDS

ROOT = Path(__file__).parents[2]
CHART = ROOT / "conf" / "helm" / "tracardi-lite"
KNOWN = {name for field in FIELDS.values() for name in field.env_names}

MINIMUM: dict[str, Any] = {
    "elastic": {"host": "es"},
    "pulsar": {"host": "pulsar://ps", "api": "http://ps:8080"},
    "mysql": {"host": "db"},
    "redis": {"host": "rd"},
    "secrets": {"mergingToken": "a secret of twenty characters", "installation": {"token": "let-me-in"}},
}
EVERYTHING: dict[str, Any] = MINIMUM | {
    "secrets": {
        "valueFrom": {"mergingToken": {"name": "mine", "key": "merging"}},
        "installation": {"valueFrom": {"token": {"name": "mine", "key": "token"}}},
        "mysql": {"valueFrom": {"password": {"name": "mine", "key": "mysql"}}},
        "elastic": {"username": "me", "password": "hunter2"},
    },
    "api": {
        "private": {"replicas": 3, "ingress": {"enabled": True, "host": "admin.example.com"}},
        "public": {"ingress": {"enabled": True, "host": "t.example.com", "className": "nginx", "tlsSecret": "tls"}},
    },
    "worker": {"background": {"replicas": 5, "keda": {"enabled": True}}},
    "config": {"extraEnv": {"MAX_TRIES": 7}, "retention": {"event": 34128000}},
    "image": {"pullSecrets": ["hub"], "tag": "9.9"},
    "nodeSelector": {"disk": "fast"},
    "tolerations": [{"key": "x", "operator": "Exists"}],
    "podAnnotations": {"a": "b"},
}

Object = dict[str, Any]
Render = Callable[[Object], list[Object]]


def test_every_variable_in_the_chart_is_a_setting() -> None:
    text = "\n".join(path.read_text(encoding="utf-8") for path in (CHART / "templates").iterdir())
    names = set(re.findall(r"^  ([A-Z][A-Z_]+):", text, re.MULTILINE)) | set(re.findall(r'"name" "([A-Z_]+)"', text))
    names |= set(re.findall(r"\{name: ([A-Z_]+),", text))
    assert len(names) > 50
    assert names <= KNOWN, names - KNOWN


@pytest.fixture(scope="module")
def render(tmp_path_factory: pytest.TempPathFactory) -> Render:
    folder = tmp_path_factory.mktemp("helm")
    program = folder / "render"
    subprocess.run(["go", "build", "-o", str(program), "."], cwd=ROOT / "tests" / "helm", check=True, timeout=600)

    def work(values: Object) -> list[Object]:
        file = folder / "values.json"
        file.write_text(json.dumps(values))
        command = [str(program), str(CHART), "demo", "shop", str(file)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr
        return [document for document in yaml.safe_load_all(done.stdout) if document]

    return work


def named(documents: list[Object], kind: str) -> dict[str, Object]:
    return {each["metadata"]["name"].removeprefix("demo-"): each for each in documents if each["kind"] == kind}


def pods(documents: list[Object]) -> Iterator[tuple[str, Object]]:
    for kind in ("Deployment", "Job"):
        for name, each in named(documents, kind).items():
            yield name, each["spec"]["template"]


def environment(documents: list[Object], container: Object) -> dict[str, str]:
    """As the container sees it; secrets of others as a text."""
    configs, ours = named(documents, "ConfigMap"), named(documents, "Secret")
    found: dict[str, str] = {}
    for source in container["envFrom"]:
        found |= configs[source["configMapRef"]["name"].removeprefix("demo-")]["data"]
    for each in container["env"]:
        if "value" in each:
            found[each["name"]] = each["value"]
        else:
            reference = each["valueFrom"]["secretKeyRef"]
            secret = ours.get(reference["name"].removeprefix("demo-"))
            found[each["name"]] = secret["stringData"][reference["key"]] if secret else "x" * 20
    return found


integration = pytest.mark.integration
both = pytest.mark.parametrize("values", [MINIMUM, EVERYTHING], ids=["minimum", "everything"])


@integration
@both
def test_every_process_starts_with_its_environment(render: Render, values: Object) -> None:
    documents = render(values)
    roles = {}
    for name, pod in pods(documents):
        [container] = pod["spec"]["containers"]
        seen = environment(documents, container)
        assert all(isinstance(value, str) for value in seen.values()), seen
        assert set(seen) <= KNOWN
        settings = load({}, seen).settings
        check_merging(settings)
        urls = (settings.queue_url, settings.store_url, settings.cache_url, settings.registry_url)
        assert urls == ("pulsar:", "elasticsearch:", "redis:", "mysql:")
        assert container["args"][0] in cli.commands
        roles[name] = settings
    assert roles["be-fa-private"].expose_gui_api
    assert not roles["be-fa-public"].expose_gui_api
    assert (roles["be-fa-public"].role, roles["wk-pl-background"].role) == ("api", "worker")
    assert roles["install"].installation_token


@integration
@both
def test_the_chart_s_values_are_the_program_s_defaults_where_they_mean_the_same(render: Render, values: Object) -> None:
    documents = render(values)
    [container] = next(pod for name, pod in pods(documents) if name == "wk-pl-background")["spec"]["containers"]
    settings, default = load({}, environment(documents, container)).settings, Settings()
    for key in (
        "bulk_size",
        "bulk_timeout",
        "bulk_idle",
        "elastic_index_shards",
        "queue_partitions",
        "mysql_pool_size",
    ):
        assert getattr(settings, key) == getattr(default, key), key
    if values is EVERYTHING:
        assert (settings.max_tries, settings.retention_event) == (7, 34_128_000)


@integration
@both
def test_probes_ports_and_times_fit(render: Render, values: Object) -> None:
    documents = render(values)
    for name, deployment in named(documents, "Deployment").items():
        pod = deployment["spec"]["template"]["spec"]
        [container] = pod["containers"]
        settings = load({}, environment(documents, container)).settings
        port = settings.worker_port if settings.role == "worker" else settings.port
        assert container["ports"] == [{"name": "http", "containerPort": port}]
        assert settings.host == "0.0.0.0"
        for probe, path in (("startup", "live"), ("liveness", "live"), ("readiness", "ready")):
            assert container[f"{probe}Probe"]["httpGet"] == {"path": f"/health/{path}", "port": "http"}, name
        startup = container["startupProbe"]
        assert startup["periodSeconds"] * startup["failureThreshold"] > settings.wait_for_dependencies
        assert pod["terminationGracePeriodSeconds"] > settings.shutdown_timeout + settings.shutdown_delay
        annotations = deployment["spec"]["template"]["metadata"]["annotations"]
        assert annotations["prometheus.io/port"] == str(port)
        assert len(annotations["checksum/config"]) == 64


@integration
@both
def test_nothing_runs_as_root_or_without_bounds(render: Render, values: Object) -> None:
    for name, pod in pods(render(values)):
        spec = pod["spec"]
        assert spec["securityContext"]["runAsNonRoot"]
        assert not spec["enableServiceLinks"]
        [container] = spec["containers"]
        assert container["securityContext"]["readOnlyRootFilesystem"], name
        assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
        assert container["resources"]["limits"]["memory"]
        assert {each["mountPath"] for each in container["volumeMounts"]} == {"/data", "/tmp"}


@integration
@both
def test_selectors_select_and_targets_are_there(render: Render, values: Object) -> None:
    documents = render(values)
    labels = {
        name: each["spec"]["template"]["metadata"]["labels"] for name, each in named(documents, "Deployment").items()
    }

    def selected(selector: Object) -> list[str]:
        return [name for name, has in labels.items() if selector.items() <= has.items()]

    for name, each in named(documents, "Deployment").items():
        assert selected(each["spec"]["selector"]["matchLabels"]) == [name]
    for name, each in named(documents, "Service").items():
        assert selected(each["spec"]["selector"]) == [name.replace("be-", "be-fa-").removesuffix("-svc")]
    budgets = named(documents, "PodDisruptionBudget")
    assert set(budgets) == set(labels)
    for name, each in budgets.items():
        assert selected(each["spec"]["selector"]["matchLabels"]) == [name]
    for each in (*named(documents, "HorizontalPodAutoscaler").values(), *named(documents, "ScaledObject").values()):
        target = each["spec"]["scaleTargetRef"]["name"].removeprefix("demo-")
        # A number of replicas that two write would be fought over.
        assert "replicas" not in named(documents, "Deployment")[target]["spec"]
    for each in named(documents, "Ingress").values():
        for path in each["spec"]["rules"][0]["http"]["paths"]:
            assert path["backend"]["service"]["name"].removeprefix("demo-") in named(documents, "Service")


@integration
def test_what_people_set_arrives(render: Render) -> None:
    documents = render(EVERYTHING)
    deployments = named(documents, "Deployment")
    assert deployments["be-fa-private"]["spec"]["replicas"] == 3
    assert set(named(documents, "Ingress")) == {"be-private", "be-public"}
    [container] = deployments["be-fa-public"]["spec"]["template"]["spec"]["containers"]
    assert container["image"] == "tracardi-lite:9.9"
    from_secrets = {each["name"]: each["valueFrom"]["secretKeyRef"] for each in container["env"] if "valueFrom" in each}
    assert from_secrets["MYSQL_PASSWORD"] == {"name": "mine", "key": "mysql"}
    assert from_secrets["ELASTIC_HTTP_AUTH_PASSWORD"] == {
        "name": "demo-tracardi-lite",
        "key": "ELASTIC_HTTP_AUTH_PASSWORD",
    }
    assert not [each for each in container["env"] if each.get("value") == "hunter2"]
    fewer = render(MINIMUM | {"worker": {"background": {"enabled": False}}, "api": {"private": {"enabled": False}}})
    assert set(named(fewer, "Deployment")) == {"be-fa-public"}


@integration
def test_workers_follow_the_backlog_that_the_program_reports(render: Render) -> None:
    [scaled] = named(render(EVERYTHING), "ScaledObject").values()
    [trigger] = scaled["spec"]["triggers"]
    query = trigger["metadata"]["query"]
    assert f"(tracardi_lite_{metrics.BACKLOG_MESSAGES.name}{{" in query
    assert f'subscription="{SUBSCRIPTION}"' in query
    assert 'namespace="shop"' in query


@integration
def test_the_number_of_replicas_that_people_set_is_the_least_where_something_scales(render: Render) -> None:
    documents = render(
        MINIMUM
        | {"api": {"public": {"replicas": 12}}, "worker": {"background": {"replicas": 5, "keda": {"enabled": True}}}}
    )
    hpa, scaled = named(documents, "HorizontalPodAutoscaler")["be-fa-public"], named(documents, "ScaledObject")
    assert (hpa["spec"]["minReplicas"], hpa["spec"]["maxReplicas"]) == (12, 12)
    [target] = scaled.values()
    assert (target["spec"]["minReplicaCount"], target["spec"]["maxReplicaCount"]) == (5, 8)
    assert target["spec"]["fallback"]["replicas"] == 5


@integration
def test_workers_are_not_fewer_because_nobody_knows_the_backlog(render: Render) -> None:
    [scaled] = named(render(EVERYTHING), "ScaledObject").values()
    assert scaled["spec"]["triggers"][0]["metadata"]["ignoreNullValues"] == "false"
    assert scaled["spec"]["fallback"]["behavior"] == "currentReplicasIfHigher"


@integration
def test_a_secret_among_the_plain_settings_is_refused(render: Render) -> None:
    for field in FIELDS.values():
        if field.option.secret:
            for name in field.env_names:
                with pytest.raises(AssertionError, match=f"{name} is a secret: see secrets"):
                    render(MINIMUM | {"config": {"extraEnv": {name: "for everybody to read"}}})


@integration
def test_the_public_ingress_is_the_collector_and_nothing_else(render: Render) -> None:
    ingress = named(render(EVERYTHING), "Ingress")["be-public"]
    paths = [each["path"] for each in ingress["spec"]["rules"][0]["http"]["paths"]]
    assert paths == ["/track", "/collect", "/redirect", "/tracker", "/healthcheck"]
    public = {"ingress": {"enabled": True, "path": "/", "annotations": {"a": "b"}}}
    one = named(render(MINIMUM | {"api": {"public": public}}), "Ingress")["be-public"]
    assert [each["path"] for each in one["spec"]["rules"][0]["http"]["paths"]] == ["/"]
    assert one["metadata"]["annotations"] == {"a": "b"}


@integration
def test_authorities_of_the_servers_are_files_in_every_pod(render: Render) -> None:
    folder = "/etc/tracardi-lite/tls"
    servers = {
        name: MINIMUM[name] | {"caFile": f"{folder}/{name}.pem"} for name in ("elastic", "pulsar", "redis", "mysql")
    }
    documents = render(MINIMUM | servers | {"tls": {"secret": "authorities"}})
    for _, pod in pods(documents):
        [container] = pod["spec"]["containers"]
        assert {"name": "tls", "secret": {"secretName": "authorities"}} in pod["spec"]["volumes"]
        assert {"name": "tls", "mountPath": folder, "readOnly": True} in container["volumeMounts"]
        found = load({}, environment(documents, container)).settings
        assert (found.elastic_ca_file, found.mysql_ca_file) == (f"{folder}/elastic.pem", f"{folder}/mysql.pem")
        assert (found.pulsar_ca_file, found.redis_ca_file) == (f"{folder}/pulsar.pem", f"{folder}/redis.pem")


@integration
def test_hosts_are_understood_as_tracardi_s_chart_writes_them(render: Render) -> None:
    theirs = {"redis": {"host": "rd", "schema": "rediss://"}, "pulsar": MINIMUM["pulsar"] | {"host": "ps"}}
    documents = render(MINIMUM | theirs)
    [container] = next(pod for name, pod in pods(documents) if name == "be-fa-public")["spec"]["containers"]
    found = load({}, environment(documents, container)).settings
    assert (found.redis_host, found.pulsar_host) == ("rediss://rd", "pulsar://ps")


@integration
def test_a_chart_without_servers_is_refused(render: Render) -> None:
    with pytest.raises(AssertionError, match=r"elastic\.host, pulsar\.host and mysql\.host are needed"):
        render({})
