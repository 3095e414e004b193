"""The fetcher on a stand-in for the client: when it reminds the broker of quiet partitions."""

from __future__ import annotations

import threading
from collections.abc import AsyncIterator, Callable
from typing import Any

import pulsar
import pytest

from tracardi_lite.backends.queue.pulsar import nudge
from tracardi_lite.backends.queue.pulsar.bridge import Bridge
from tracardi_lite.backends.queue.pulsar.client import Blocking
from tracardi_lite.backends.queue.pulsar.fetcher import Fetcher
from tracardi_lite.settings import Settings
from tracardi_lite.testing.clock import eventually

TOPIC = "persistent://tracardi/system/functions"


class QuietClient:
    """A client and its consumer, of a topic with two partitions on which nothing is ever published."""

    def __init__(self) -> None:
        self.receives = 0
        self.reminders = 0
        self._nothing = threading.Event()

    def get_topic_partitions(self, topic: str) -> list[str]:
        return [f"{topic}-partition-{number}" for number in range(2)]

    def subscribe(self, *_: Any, **__: Any) -> QuietClient:
        return self

    def is_connected(self) -> bool:
        return True

    def receive(self, timeout_ms: int) -> Any:
        self._nothing.wait(0.001)
        self.receives += 1
        raise pulsar.Timeout("nothing came")

    def redeliver_unacknowledged_messages(self) -> None:
        self.reminders += 1

    def close(self) -> None:
        """Both are closed as one."""


@pytest.fixture
async def blocking() -> AsyncIterator[Blocking]:
    blocking = Blocking("pulsar://127.0.0.1:1", Settings())
    yield blocking
    await blocking.close()


def fetcher(blocking: Blocking, client: QuietClient, idle: Callable[[], bool]) -> Fetcher:
    blocking.client = client  # type: ignore[assignment]
    return Fetcher(blocking, Bridge(), TOPIC, "subscription", lambda *_: None, lambda *_: None, idle)


async def test_quiet_partitions_are_asked_for_again_and_again(
    blocking: Blocking, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nudge, "QUIET_S", 0.01)
    client = QuietClient()
    fetching = fetcher(blocking, client, lambda: True)
    await fetching.start()
    await eventually(lambda: client.reminders >= 3)
    await fetching.stop()


async def test_who_holds_messages_does_not_ask_since_they_would_be_taken_away(
    blocking: Blocking, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nudge, "QUIET_S", 0.0)
    client = QuietClient()
    held = ["a message"]
    fetching = fetcher(blocking, client, lambda: not held)
    await fetching.start()
    await eventually(lambda: client.receives >= 20)
    assert client.reminders == 0
    held.clear()
    await eventually(lambda: client.reminders > 0)
    await fetching.stop()


async def test_nobody_is_quiet_at_the_start(blocking: Blocking) -> None:
    client = QuietClient()
    fetching = fetcher(blocking, client, lambda: True)
    await fetching.start()
    await eventually(lambda: client.receives >= 20)
    assert client.reminders == 0
    await fetching.stop()
