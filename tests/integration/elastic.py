"""The real Elasticsearch for tests: started by tests/services if nobody has, a tenant of its own for each test."""

from __future__ import annotations

import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import cache
from os import environ
from pathlib import Path
from typing import Any
from uuid import uuid4

from tracardi_lite.backends.store.elasticsearch import ElasticsearchStore, open_store
from tracardi_lite.backends.store.elasticsearch.connection import Connection
from tracardi_lite.settings import Settings

SERVICE = Path(__file__).parents[1] / "services" / "service"


def service(*arguments: str, **variables: str) -> dict[str, str]:
    """``service("start", "elasticsearch", ELASTIC_PORT="19250")``: what it prints, as key → value."""
    command = [str(SERVICE), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False, env=environ | variables)
    assert done.returncode == 0, done.stderr
    return dict(pair.partition("=")[::2] for pair in done.stdout.split())


@cache
def server() -> dict[str, str]:
    """Its ``url`` and ``snapshots``; stays up for whoever comes next."""
    return service("start", "elasticsearch")


def fresh_settings(**changes: Any) -> Settings:
    """Of a tenant of their own, so that tests need not know of each other, with one shard, so that they are quick."""
    given = {"elastic_host": server()["url"], "tenant_name": uuid4().hex[:12], "elastic_index_shards": 1, **changes}
    return Settings(**given)


@asynccontextmanager
async def opened(settings: Settings) -> AsyncIterator[ElasticsearchStore]:
    async with open_store("elasticsearch:", settings) as store:
        yield store


@asynccontextmanager
async def cleaned(settings: Settings) -> AsyncIterator[Connection]:
    """A connection to look behind the store with; at the end all that the tenant has in the cluster goes."""
    connection = Connection("elasticsearch:", settings)
    try:
        yield connection
    finally:
        for target in (f"/*{settings.tenant_name}*?expand_wildcards=all", f"/_index_template/*{settings.tenant_name}*"):
            await connection.do("DELETE", target, fine=(404,))
        await connection.do("DELETE", f"/_snapshot/*{settings.tenant_name}*", fine=(404,))
        await connection.close()
