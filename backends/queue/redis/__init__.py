"""The queue on Redis Streams. Needs the extra ``redis`` and a Redis that keeps what it answers; see docs/redis.md."""

from __future__ import annotations

from tracardi_lite.backends.queue.redis.queue import RedisQueue
from tracardi_lite.clock import Clock, SystemClock
from tracardi_lite.settings import Settings
from tracardi_lite.settings.redis import redis_options

__all__ = ["RedisQueue", "open_queue"]


def open_queue(url: str, settings: Settings, *, clock: Clock | None = None) -> RedisQueue:
    """``redis://host:6379/0``, ``rediss://…``, or ``redis:`` for what REDIS_HOST names."""
    return RedisQueue(redis_options(url, settings), settings, clock or SystemClock())
