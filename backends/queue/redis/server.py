"""The edge to redis-py: running scripts, one by one or many at a time, and turning its errors into ours."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from redis.asyncio import Redis
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff
from redis.exceptions import NoScriptError, OutOfMemoryError, RedisError, ResponseError

from tracardi_lite import tls
from tracardi_lite.errors import Full, TryLater, Unavailable
from tracardi_lite.settings.redis import connect

TIMEOUT_S = 5.0
CONNECT_S = 2.0
CONNECTIONS_MAX = 16

Argument = str | bytes | int | float


class Server:
    def __init__(self, options: Mapping[str, Any], prefix: str) -> None:
        self.prefix = prefix
        # redis-py types answers as unions of everything that any setting of its could give; ours are bytes.
        self.redis: Any = connect(
            Redis,
            options,
            socket_timeout=TIMEOUT_S,
            socket_connect_timeout=CONNECT_S,
            retry=Retry(NoBackoff(), 0),
            max_connections=CONNECTIONS_MAX,
        )

    async def close(self) -> None:
        await self.redis.aclose()

    def key(self, *parts: object) -> str:
        return ":".join((self.prefix, *map(str, parts)))

    async def run(self, script: str, *arguments: Argument) -> Any:
        """A script's answer. Raises ``Unavailable`` or ``Full``."""
        (answer,) = await self.run_many(script, [arguments])
        if isinstance(answer, TryLater):
            raise answer
        return answer

    async def run_many(self, script: str, calls: Sequence[Sequence[Argument]]) -> list[Any]:
        """One script, many times, in one round trip and in order; answers, or errors of ours in their places. Raises
        when the server can't be reached: then it is unknown how far it came."""
        digest = _digest(script)
        with mapped():
            answers = await self._evaluate(digest, calls)
            unknown = [place for place, answer in enumerate(answers) if isinstance(answer, NoScriptError)]
            if unknown:  # a new server, or one that was restarted; what it did not know it did not run
                await self.redis.script_load(script)
                again = await self._evaluate(digest, [calls[place] for place in unknown])
                for place, answer in zip(unknown, again, strict=True):
                    answers[place] = answer
        return [ours(answer) if isinstance(answer, RedisError) else answer for answer in answers]

    async def _evaluate(self, digest: str, calls: Sequence[Sequence[Argument]]) -> list[Any]:
        pipeline = self.redis.pipeline(transaction=False)
        for arguments in calls:
            pipeline.evalsha(digest, 1, self.prefix, *arguments)
        return list(await pipeline.execute(raise_on_error=False))


_digests: dict[str, str] = {}


def _digest(script: str) -> str:
    found = _digests.get(script)
    if found is None:
        found = _digests[script] = hashlib.sha1(script.encode(), usedforsecurity=False).hexdigest()
    return found


def ours(error: BaseException) -> TryLater:
    text = str(error) or type(error).__name__
    if isinstance(error, OutOfMemoryError) or (isinstance(error, ResponseError) and "OOM" in text):
        return Full("queue", "Redis is at its maxmemory", 5.0)
    return tls.fault("queue", "redis", error) or Unavailable("queue", f"Redis: {text[:200]}")


@contextmanager
def mapped() -> Iterator[None]:
    """Errors of the client as ours."""
    try:
        yield
    except (RedisError, OSError, TimeoutError) as error:
        raise ours(error) from error
