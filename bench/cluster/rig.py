"""Pulsar and Elasticsearch for a run, and installations of the program in them.

The servers are instances of the run's own, on ports of their own, and are gone with their data at its end. Each part
gets an installation of its own (tenant in Pulsar, names in Elasticsearch), so that none inherits another's backlog.
Registry and cache are the embedded ones: no figure depends on them.
"""

from __future__ import annotations

import asyncio
import os
import secrets
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

from msgspec import Struct

from bench.servers import data_dir
from tests.acceptance.program import PASSWORD, USER, Program, run
from tests.integration.elastic import service
from tracardi_lite import settings as settings_

PORTS = {"PULSAR_PORT": "28650", "PULSAR_HTTP_PORT": "28180", "ELASTIC_PORT": "28200"}
"""Those of ``tests/services``, unless the environment names others."""


class Servers(Struct, frozen=True):
    pulsar: str
    pulsar_admin: str
    elasticsearch: str


@contextmanager
def servers() -> Iterator[Servers]:
    ports = {name: os.environ.get(name, port) for name, port in PORTS.items()}
    try:
        pulsar = service("start", "pulsar", **ports)
        elastic = service("start", "elasticsearch", **ports)
        yield Servers(pulsar["service"], pulsar["admin"], elastic["url"])
    finally:
        for name in ("pulsar", "elasticsearch"):
            service("stop", name, "--wipe", **ports)


class Installation:
    """The program's settings in these servers, and its processes."""

    def __init__(self, folder: Path, servers: Servers, env: Mapping[str, str]) -> None:
        self.servers = servers
        self._folder = folder
        name = f"bench{secrets.token_hex(4)}"
        self.env = {
            "LOGGING_LEVEL": "warning",
            "PULSAR_HOST": servers.pulsar,
            "PULSAR_API": servers.pulsar_admin,
            "PULSAR_TENANT": name,
            "ELASTIC_HOST": servers.elasticsearch,
            # One data node on one machine: a second shard or a copy would only divide the same cores.
            "ELASTIC_INDEX_SHARDS": "1",
            "ELASTIC_INDEX_REPLICAS": "0",
            "TENANT_NAME": name,
            "AUTO_PROFILE_MERGING": secrets.token_hex(16),
            "INSTALLATION_TOKEN": secrets.token_hex(16),
            **env,
        }

    @property
    def settings(self) -> settings_.Settings:
        return settings_.load({"data_dir": str(self._folder)}, self.env).settings

    @property
    def topic(self) -> str:
        settings = self.settings
        namespace = f"{settings.pulsar_tenant}/{settings.pulsar_system_namespace}"
        return f"persistent://{namespace}/{settings.pulsar_function_topic}"

    def install(self) -> None:
        admin = ("--username", USER, "--password", PASSWORD)
        run("install", "--token", self.env["INSTALLATION_TOKEN"], *admin, data_dir=self._folder, env=self.env)

    @asynccontextmanager
    async def program(self, role: str, name: str = "", **env: str) -> AsyncIterator[Program]:
        """One process, ready; killed at the end."""
        program = Program(self._folder, role=role, name=name, env={**self.env, **env})
        try:
            yield await program.start()
        finally:
            program.kill()


@asynccontextmanager
async def installation(servers: Servers, **env: str) -> AsyncIterator[Installation]:
    with data_dir() as folder:
        made = Installation(folder, servers, env)
        await asyncio.to_thread(made.install)
        yield made
