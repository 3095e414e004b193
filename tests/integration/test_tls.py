"""TLS to every server, with a private authority: it works, and what is not to be trusted is refused and explained.

Each server is the module's own and shows a certificate for ``localhost``. 127.0.0.1 leads to the same port under a name
that the certificate is not for. Elasticsearch's own security is not published, so TLS and credentials end at a proxy.
"""

from __future__ import annotations

import asyncio
import base64
import secrets
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from msgspec import structs

from tests.acceptance.program import QUICK, Program, until
from tests.integration.certificates import NAME, Certificates
from tests.integration.elastic import cleaned, fresh_settings, server, service
from tests.integration.elastic_proxy import Proxy
from tests.integration.test_registry_mysql import run_sql
from tracardi_lite import cli, wiring
from tracardi_lite.backends.queue.pulsar.client import Blocking, partitions_of
from tracardi_lite.errors import Misconfigured, Unavailable, Untrusted
from tracardi_lite.ports.queue import SUBSCRIPTION, Publication
from tracardi_lite.ports.store import Claim, Entry
from tracardi_lite.settings import Settings, load
from tracardi_lite.settings.implied import effective_urls

pytestmark = pytest.mark.integration

REDIS_TLS, PULSAR_TLS, PULSAR_HTTPS = "25380", "25660", "25443"
PORTS: Mapping[str, str] = {
    "REDIS_PORT": "25379",
    "MARIADB_PORT": "25306",
    "PULSAR_PORT": "25650",
    "PULSAR_HTTP_PORT": "25080",
}
PASSWORD = "correct horse"
CREDENTIALS = "Basic " + base64.b64encode(f"elastic:{PASSWORD}".encode()).decode()


@pytest.fixture(scope="module")
def papers(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    return Certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture(scope="module")
def redis(papers: Certificates) -> Iterator[dict[str, Any]]:
    tls = ["--tls-port", REDIS_TLS, "--tls-cert-file", papers.chain, "--tls-key-file", papers.key]
    service("start", "redis", *tls, "--tls-auth-clients", "no", "--tls-ca-cert-file", papers.authority, **PORTS)
    yield {"redis_host": f"rediss://{NAME}:{REDIS_TLS}", "redis_ca_file": papers.authority}
    service("stop", "redis", "--wipe", **PORTS)


@pytest.fixture(scope="module")
def mysql(papers: Certificates) -> Iterator[dict[str, Any]]:
    said = service("start", "mariadb", f"--ssl-cert={papers.chain}", f"--ssl-key={papers.key}", **PORTS)
    # Root, and so only by the socket. The service's own user goes without TLS; this one can't.
    root = ["mariadb", f"--socket={Path(said['log']).parent / 'data' / 'mariadb.sock'}", "--user=root", "--execute"]
    for statement in (
        f"create user secure@'127.0.0.1' identified by '{PASSWORD}' require ssl",
        "grant all on tracardi.* to secure@'127.0.0.1'",
    ):
        subprocess.run([*root, statement], check=True, timeout=30)
    yield {
        "mysql_host": f"{NAME}:{PORTS['MARIADB_PORT']}",
        "mysql_username": "secure",
        "mysql_password": PASSWORD,
        "mysql_tls": True,
        "mysql_ca_file": papers.authority,
    }
    service("stop", "mariadb", "--wipe", **PORTS)


@pytest.fixture(scope="module")
def pulsar(papers: Certificates) -> Iterator[dict[str, Any]]:
    options = {
        "brokerServicePortTls": PULSAR_TLS,
        "webServicePortTls": PULSAR_HTTPS,
        "tlsCertificateFilePath": papers.chain,
        "tlsKeyFilePath": papers.key,
        "tlsTrustCertsFilePath": papers.authority,
    }
    service("start", "pulsar", *(f"{key}={value}" for key, value in options.items()), **PORTS)
    yield {
        "pulsar_host": f"pulsar+ssl://{NAME}:{PULSAR_TLS}",
        "pulsar_api": f"https://{NAME}:{PULSAR_HTTPS}",
        "pulsar_ca_file": papers.authority,
        "queue_partitions": 2,
    }
    service("stop", "pulsar", "--wipe", **PORTS)


@pytest.fixture
async def elastic(papers: Certificates) -> AsyncIterator[dict[str, Any]]:
    async with Proxy(server()["url"], papers.served(), CREDENTIALS).running() as proxy:
        settings = fresh_settings()
        async with cleaned(settings):
            yield {
                "elastic_host": proxy.url,
                "elastic_ca_file": papers.authority,
                "elastic_http_auth_password": PASSWORD,
                "tenant_name": settings.tenant_name,
                "elastic_index_shards": 1,
            }


async def _use_queue(settings: Settings) -> None:
    async with wiring.open_queue(settings) as queue:
        await queue.ping()
        before = (await queue.totals()).received
        await queue.publish(Publication("me", b"head", b"body", 1))
        assert (await queue.totals()).received == before + 1
        consumer = await queue.subscribe(SUBSCRIPTION)
        try:
            assert [each.body for each in await consumer.receive(1, 1 << 20, 10.0)] == [b"body"]
        finally:
            await consumer.close()


async def _use_cache(settings: Settings) -> None:
    key, value = secrets.token_hex(8), secrets.token_bytes(8)
    async with wiring.open_cache(settings) as mine, wiring.open_cache(settings) as another:
        await mine.ping()
        await mine.add({key: value}, 60)
        assert await another.get([key]) == [value], "it went through the server"


async def _use_store(settings: Settings) -> None:
    async with wiring.open_store(settings) as store:
        await store.ping()
        entry = Entry("me", "2026-1")
        assert await store.claim([Claim("p:me", entry)]) == [entry]
        assert await store.lookup(["p:me"]) == [entry]


async def _use_registry(settings: Settings) -> None:
    async with wiring.open_registry(settings) as registry:
        await registry.migrate()
        await registry.secret("test", lambda: "made here")


Use = Callable[[Settings], Awaitable[None]]
USES: dict[str, tuple[str, Use]] = {
    "pulsar": ("queue", _use_queue),
    "redis": ("cache", _use_cache),
    "streams": ("queue", _use_queue),
    "elastic": ("store", _use_store),
    "mysql": ("registry", _use_registry),
}


class Server:
    """One of them, as the settings say that it is."""

    def __init__(self, name: str, given: dict[str, Any]) -> None:
        self.part, self.use = USES[name]
        self.prefix = "redis" if name == "streams" else name
        self.given = given
        urls = {key: url for key, (_, url) in effective_urls(given).items()}
        self.settings = Settings(**urls | given | ({"queue_url": "redis:"} if name == "streams" else {}))

    def but(self, **changes: Any) -> Settings:
        """With other values of its own settings, by their names without its own."""
        return structs.replace(self.settings, **{f"{self.prefix}_{key}": value for key, value in changes.items()})

    @property
    def astray(self) -> Settings:
        """By an address that the certificate is not for."""
        addresses = [key for key in (f"{self.prefix}_host", f"{self.prefix}_api") if key in self.given]
        return structs.replace(self.settings, **{key: self.given[key].replace(NAME, "127.0.0.1") for key in addresses})


@pytest.fixture(params=USES)
def one(request: pytest.FixtureRequest) -> Server:
    name = request.param
    return Server(name, request.getfixturevalue("redis" if name == "streams" else name))


async def test_a_server_that_the_private_authority_vouches_for_is_used(one: Server) -> None:
    await one.use(one.settings)


async def test_a_certificate_of_another_authority_is_refused_and_the_setting_named(
    one: Server, papers: Certificates
) -> None:
    for ca_file in (papers.stranger, ""):  # "": the system's authorities
        with pytest.raises(Untrusted) as refused:
            await one.use(one.but(ca_file=ca_file))
        assert refused.value.part == one.part
        assert refused.value.key == f"{one.prefix}_ca_file"
        assert f"{one.prefix.upper()}_CA_FILE" in refused.value.fix


async def test_a_certificate_for_another_name_is_refused_and_the_name_said(one: Server) -> None:
    with pytest.raises(Untrusted, match=r"not valid for '127\.0\.0\.1'") as refused:
        await one.use(one.astray)
    assert refused.value.key == f"{one.prefix}_host"


async def test_what_is_not_to_be_checked_is_not_and_is_encrypted_all_the_same(one: Server) -> None:
    lax = structs.replace(one.astray, **{f"{one.prefix}_ca_file": "", f"{one.prefix}_verify_certs": False})
    await one.use(lax)


@pytest.mark.parametrize("content", [None, "no certificate"])
def test_a_file_of_certificates_that_is_none_stops_the_opening(
    one: Server, tmp_path: Path, content: str | None
) -> None:
    file = tmp_path / "ca.pem"
    if content is not None:
        file.write_text(content)
    with pytest.raises(Misconfigured, match=f"{one.prefix}_ca_file"):
        getattr(wiring, f"open_{one.part}")(one.but(ca_file=str(file)))


async def test_a_server_without_tls_is_not_spoken_to_in_plain_text(one: Server) -> None:
    plain = {
        "pulsar": {"host": f"pulsar+ssl://{NAME}:{PORTS['PULSAR_PORT']}"},
        "redis": {"host": f"rediss://{NAME}:{PORTS['REDIS_PORT']}"},
        "elastic": {"host": server()["url"].replace("http", "https")},
        "mysql": {"host": service("start", "mariadb")["url"].rpartition("@")[2].partition("/")[0]},
    }
    with pytest.raises(Unavailable, match="Timeout" if one.prefix == "redis" else "does it speak TLS"):
        await one.use(one.but(**plain[one.prefix]))


async def test_a_certificate_that_is_replaced_by_a_wrong_one_is_an_outage_and_ends_with_it(
    redis: dict[str, Any], papers: Certificates
) -> None:
    def shows(chain: str, key: str) -> None:
        """From the next connection on; there is none left of before."""
        cli = ["redis-cli", "-p", PORTS["REDIS_PORT"]]
        subprocess.run([*cli, "config", "set", "tls-cert-file", chain, "tls-key-file", key], check=True, timeout=10)
        subprocess.run([*cli, "client", "kill", "type", "normal"], check=True, timeout=10)

    async with wiring.open_cache(Server("redis", redis).settings) as cache:
        await cache.ping()
        try:
            await asyncio.to_thread(shows, papers.strange_chain, papers.strange_key)
            with pytest.raises(Unavailable):
                await cache.ping()  # on the connection that was cut, or on a new one
            with pytest.raises(Untrusted, match="REDIS_CA_FILE"):
                await cache.ping()
            assert await cache.get(["unknown"]) == [None], "slower, never broken"
        finally:
            await asyncio.to_thread(shows, papers.chain, papers.key)
        await cache.ping()


async def test_a_file_of_certificates_is_enough_to_speak_tls_to_mysql(mysql: dict[str, Any]) -> None:
    await _use_registry(Server("mysql", mysql | {"mysql_tls": False}).settings)
    with pytest.raises(Unavailable, match="Access denied"):
        await _use_registry(Server("mysql", mysql | {"mysql_tls": False, "mysql_ca_file": ""}).settings)


async def test_the_admin_api_of_pulsar_is_checked_by_itself(pulsar: dict[str, Any]) -> None:
    astray = pulsar | {"pulsar_api": f"https://127.0.0.1:{PULSAR_HTTPS}"}
    with pytest.raises(Untrusted) as refused:
        await _use_queue(Server("pulsar", astray).settings)
    assert refused.value.key == "pulsar_api"


async def test_the_client_of_pulsar_checks_the_name_too_for_brokers_it_is_led_to(pulsar: dict[str, Any]) -> None:
    astray = f"pulsar+ssl://127.0.0.1:{PULSAR_TLS}"
    blocking = Blocking(astray, Server("pulsar", pulsar).settings)
    try:
        with pytest.raises(Unavailable, match="ConnectError"):
            await blocking.run(partitions_of, blocking.client, "persistent://public/default/any")
    finally:
        await blocking.close()


async def test_credentials_of_elasticsearch_are_sent_and_wrong_ones_are_told(elastic: dict[str, Any]) -> None:
    for wrong in ({"elastic_http_auth_password": ""}, {"elastic_http_auth_password": "wrong"}):
        with pytest.raises(Unavailable, match="401: security_exception"):
            await _use_store(Server("elastic", elastic | wrong).settings)


async def test_an_api_key_of_elasticsearch_is_sent_in_either_form(papers: Certificates) -> None:
    encoded = base64.b64encode(b"id:key").decode()
    given = {"elastic_ca_file": papers.authority, "store_url": "elasticsearch:", "elastic_index_shards": 1}
    async with Proxy(server()["url"], papers.served(), f"ApiKey {encoded}").running() as proxy:
        for key in ({"elastic_api_key": encoded}, {"elastic_api_key": "key", "elastic_api_key_id": "id"}):
            settings = fresh_settings(**given, **key, elastic_host=proxy.url)
            async with cleaned(settings):
                await _use_store(settings)


# --- the program ---


@pytest.fixture
async def environment(
    redis: dict[str, Any], mysql: dict[str, Any], pulsar: dict[str, Any], elastic: dict[str, Any]
) -> dict[str, str]:
    given = {**redis, **mysql, **pulsar, **elastic, "auto_profile_merging": secrets.token_hex(16)}
    given |= {"pulsar_tenant": given["tenant_name"], "redis_prefix": given["tenant_name"]}
    return {**QUICK, **{key.upper(): str(value) for key, value in given.items()}}


@contextmanager
def started(folder: Path, env: Mapping[str, str]) -> Iterator[Program]:
    program = Program(folder / "data", env=env)
    try:
        program.launch()
        yield program
    finally:
        program.kill()


async def _emptied(env: Mapping[str, str]) -> None:
    """Installations of the module share a database, and each has decisions of its own."""
    url = f"mysql://tracardi:tracardi@127.0.0.1:{PORTS['MARIADB_PORT']}/tracardi"
    await run_sql(url, "drop database tracardi", "create database tracardi")
    assert load({}, env).settings.registry_url == "mysql:"


async def test_serve_runs_with_tls_to_all_four(environment: dict[str, str], tmp_path: Path) -> None:
    await _emptied(environment)
    with started(tmp_path, environment) as program:
        await program.listening()
        await program.ready()
        call = {"source": {"id": "default"}, "session": {"id": "s"}, "events": [{"type": "page-view"}]}
        async with aiohttp.ClientSession() as session, session.post(f"{program.base}/track", json=call) as answer:
            assert answer.status == 200, await answer.text()
        stored = "tracardi_lite_events_stored_total"

        async def is_stored() -> bool:
            return (await program.metrics()).get(stored, 0) == 1

        await until("the event is stored", is_stored, 30, program.log)
        assert '"cache":"ok"' in (await program.get("/health/ready"))[1].replace(" ", "")
        assert await program.terminate() == 0


def test_a_command_ends_with_the_setting_too(
    mysql: dict[str, Any],
    papers: Certificates,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    tmp_path: Path,
) -> None:
    given = {**mysql, "mysql_ca_file": papers.stranger, "auto_profile_merging": secrets.token_hex(16)}
    given |= {"installation_token": "let-me-in", "tracardi_lite_data_dir": str(tmp_path)}
    for key, value in given.items():
        monkeypatch.setenv(key.upper(), str(value))
    assert cli.run(["install", "--dry-run"]) == 2
    assert "Misconfigured: mysql_ca_file: the server's certificate is not trusted" in capsys.readouterr().err


@pytest.mark.parametrize("server", ["redis", "mysql", "pulsar", "elastic"])
async def test_serve_ends_at_once_and_says_why_where_a_server_is_not_trusted(
    environment: dict[str, str], papers: Certificates, tmp_path: Path, server: str
) -> None:
    await _emptied(environment)
    strange = environment | {f"{server.upper()}_CA_FILE": papers.stranger, "WAIT_FOR_DEPENDENCIES": "600"}
    with started(tmp_path, strange) as program:
        assert await program.ended() == 2
        assert f"Misconfigured: {server}_ca_file: the server's certificate is not trusted" in program.said()
        assert f"Set {server.upper()}_CA_FILE to" in program.said()
