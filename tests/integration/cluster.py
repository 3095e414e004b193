"""A cluster on one machine: four real servers, an installation in them, two APIs behind a TCP balancer, two workers.

The servers are the module's own, so that they may be stopped and killed; each test gets an installation of its own in
them (tenant, database, prefix). The processes have nothing in common but those servers: each has a data directory of
its own, which stays empty.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any

from tests.acceptance.load import Load
from tests.acceptance.oracle import Judgement, Oracle
from tests.acceptance.program import PASSWORD, QUICK, USER, Program, run, until
from tests.integration.elastic import cleaned, service
from tests.integration.test_registry_mysql import run_sql
from tracardi_lite import settings as settings_

KEEP_ALIVE_S = 3
"""Pulsar gives up on a client that was silent for twice as long."""
DRAIN_S = 90.0
CONNECT_S = 2.0
CHUNK = 1 << 16

START: Mapping[str, tuple[str, ...]] = {
    "pulsar": (f"keepAliveIntervalSeconds={KEEP_ALIVE_S}",),
    "elasticsearch": (),
    "redis": (),
    "mariadb": (),
}
PORTS: Mapping[str, str] = {
    "PULSAR_PORT": "27650",
    "PULSAR_HTTP_PORT": "29080",
    "ELASTIC_PORT": "29200",
    "ELASTIC_HEAP": "512m",
    "REDIS_PORT": "27379",
    "MARIADB_PORT": "24306",
}


class Servers:
    """Pulsar, Elasticsearch, Redis and MariaDB, to be stopped and started by name; their data stay until the end."""

    def __init__(self) -> None:
        self.said: dict[str, dict[str, str]] = {}

    def start(self, name: str) -> None:
        self.said[name] = service("start", name, *START[name], **PORTS)

    def stop(self, name: str, *how: str) -> None:
        service("stop", name, *how, **PORTS)

    def start_all(self) -> None:
        """One after another: on a fresh machine they install packages, which only one can at a time."""
        for name in START:
            self.start(name)

    @contextmanager
    def running(self) -> Iterator[Servers]:
        try:
            self.start_all()
            yield self
        finally:
            for name in START:
                self.stop(name, "--wipe")


class Balancer:
    """Spreads TCP connections over the addresses that take them, in turn; knows nothing of what they carry."""

    def __init__(self, ports: Callable[[], list[int]]) -> None:
        self._ports = ports
        self._turn = 0
        self._open: set[asyncio.Task[None]] = set()
        self.base = ""

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Balancer]:
        server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.base = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        try:
            yield self
        finally:
            server.close()
            for task in self._open:
                task.cancel()
            await asyncio.gather(*self._open, return_exceptions=True)
            await server.wait_closed()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.create_task(self._carry(reader, writer))
        self._open.add(task)
        task.add_done_callback(self._open.discard)

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Both ways until either side ends; a client whom nobody takes is hung up on."""
        async with _closing(writer):
            behind = await self._connect()
            if behind is None:
                return
            async with _closing(behind[1]):
                ways = {
                    asyncio.create_task(_pump(reader, behind[1])),
                    asyncio.create_task(_pump(behind[0], writer)),
                }
                try:
                    await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
                finally:
                    for way in ways:
                        way.cancel()
                    await asyncio.gather(*ways, return_exceptions=True)

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter] | None:
        ports = self._ports()
        self._turn += 1
        for offset in range(len(ports)):
            port = ports[(self._turn + offset) % len(ports)]
            with suppress(OSError):
                async with asyncio.timeout(CONNECT_S):
                    return await asyncio.open_connection("127.0.0.1", port)
        return None


@asynccontextmanager
async def _closing(writer: asyncio.StreamWriter) -> AsyncIterator[None]:
    try:
        yield
    finally:
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(OSError):
        while chunk := await reader.read(CHUNK):
            writer.write(chunk)
            await writer.drain()


class Cluster:
    """One installation in the servers, and its processes."""

    def __init__(self, servers: Servers, folder: Path, **env: str) -> None:
        self.servers = servers
        self.folder = folder
        self.name = f"c{secrets.token_hex(5)}"
        said = servers.said
        self._mysql = said["mariadb"]["url"]
        self.env = {
            **QUICK,
            "PULSAR_HOST": said["pulsar"]["service"],
            "PULSAR_API": said["pulsar"]["admin"],
            "PULSAR_TENANT": self.name,
            "ELASTIC_HOST": said["elasticsearch"]["url"],
            "ELASTIC_INDEX_SHARDS": "1",
            "TENANT_NAME": self.name,
            "REDIS_HOST": said["redis"]["url"].removesuffix("/0"),
            "REDIS_PREFIX": self.name,
            "REGISTRY_URL": self._mysql.removesuffix("/tracardi") + f"/tracardi_{self.name}",
            "AUTO_PROFILE_MERGING": secrets.token_hex(16),
            "INSTALLATION_TOKEN": secrets.token_hex(16),
            # Nobody here starts a process again that has ended, and storms keep servers away for a minute.
            "WAIT_FOR_DEPENDENCIES": "300",
            **env,
        }
        self.apis = [self._program("api", number) for number in (1, 2)]
        self.workers = [self._program("worker", number) for number in (1, 2)]
        self.balancer = Balancer(lambda: [api.port for api in self.apis if api.port])

    @property
    def programs(self) -> list[Program]:
        return [*self.apis, *self.workers]

    @asynccontextmanager
    async def running(self) -> AsyncIterator[Cluster]:
        """Installed by the command, as an operator would; all processes ready."""
        await run_sql(self._mysql, f"CREATE DATABASE tracardi_{self.name}")
        try:
            token = ("--token", self.env["INSTALLATION_TOKEN"])
            admin = ("--username", USER, "--password", PASSWORD)
            data_dir = self.folder / "installer" / "data"
            data_dir.parent.mkdir()
            await asyncio.to_thread(run, "install", *token, *admin, data_dir=data_dir, env=self.env)
            await asyncio.gather(*(program.start() for program in self.programs))
            async with self.balancer.running():
                yield self
        finally:
            for program in self.programs:
                program.kill()
                print(program.log())
            # A test that failed while a server was away must not fail those after it.
            await asyncio.to_thread(self.servers.start_all)
            await run_sql(self._mysql, f"DROP DATABASE tracardi_{self.name}")
            async with cleaned(self._settings()):
                pass

    def load(self, seed: int, **options: Any) -> Load:
        """Some 50 posts a second, so that one test stays within what a search shows (10,000 records)."""
        chosen = {"connections": 8, "pause_s": 0.1, "sizes": (1, 1, 1, 2, 5), **options}
        return Load(lambda: [self.balancer.base], seed, **chosen)

    def oracle(self) -> Oracle:
        """A view on the real servers, whatever a test has put between them and the processes."""
        return Oracle(self.folder / "oracle", self._settings())

    async def stop(self, name: str, *how: str) -> None:
        await asyncio.to_thread(self.servers.stop, name, *how)

    async def start(self, name: str) -> None:
        await asyncio.to_thread(self.servers.start, name)

    async def all_ready(self) -> None:
        """The processes have found back by themselves."""
        await asyncio.gather(*(program.ready(60) for program in self.programs))

    async def settled(self, *loads: Load) -> Judgement:
        """Waits until everything that was answered has been worked on, by the processes that are there; then judges.

        The APIs end first, in good order: what they have published is in the ledger then, and "nothing pending" means
        that nothing is.
        """
        codes = await asyncio.gather(*(api.terminate() for api in self.apis))
        assert codes == [0, 0], "\n".join(api.log() for api in self.apis)
        loop = asyncio.get_running_loop()
        begun = loop.time()
        async with self.oracle() as oracle:
            await oracle.drained(DRAIN_S, self.logs)
            drained_s = loop.time() - begun
            judgement = await oracle.judge(*loads)
        kept = sum(len(load.obligations) for load in loads)
        answers = [dict(load.statuses) for load in loads]
        print(f"{kept} obligations kept; drained in {drained_s:.1f} s; answers {answers}; {judgement}")
        return judgement

    def logs(self) -> str:
        return "\n".join(program.log(3000) for program in self.programs)

    def _program(self, role: str, number: int) -> Program:
        name = f"{role}-{number}"
        home = self.folder / name
        home.mkdir(parents=True)
        return Program(home / "data", role=role, name=name, logs=self.folder, env=self.env)

    def _settings(self) -> settings_.Settings:
        real = {"ELASTIC_HOST": self.servers.said["elasticsearch"]["url"]}
        return settings_.load({"data_dir": str(self.folder / "oracle")}, {**self.env, **real}).settings


async def stored(oracle: Oracle, more: int, within_s: float = 60.0) -> None:
    """Waits until the ledger says that so many more events have been stored."""
    goal = (await oracle.queue.totals()).stored + more

    async def reached() -> bool:
        return (await oracle.queue.totals()).stored >= goal

    await until(f"{more} more events are stored", reached, within_s)
