"""What is told of a message that was sent to Pulsar: once, and a receipt that comes late is still counted."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pulsar
import pytest

from tracardi_lite.backends.queue.pulsar.client import Blocking
from tracardi_lite.backends.queue.pulsar.counts import Counts
from tracardi_lite.backends.queue.pulsar.publisher import Publisher
from tracardi_lite.backends.queue.pulsar.room import Room
from tracardi_lite.backends.queue.pulsar.sender import Bridge, Sender
from tracardi_lite.errors import BadInput, Unavailable
from tracardi_lite.ports.queue import Publication
from tracardi_lite.testing.clock import eventually

Receipt = Callable[[Any, Any], None]


class Producer:
    """The client's, with receipts that are given by hand."""

    def __init__(self) -> None:
        self.sent: list[tuple[bytes, Receipt]] = []
        self.raises: Exception | None = None

    def is_connected(self) -> bool:
        return True

    def send_async(self, payload: bytes, callback: Receipt, partition_key: str) -> None:
        if self.raises is not None:
            raise self.raises
        self.sent.append((payload, callback))

    def close(self) -> None:
        pass

    def receipt(self, number: int, result: Any = pulsar.Result.Ok) -> None:
        self.sent[number][1](result, f"id{number}" if result == pulsar.Result.Ok else None)


class Client(Blocking):
    """One that makes that producer, and needs no threads."""

    def __init__(self) -> None:
        self.producer = Producer()

    async def run(self, call: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
        return self.producer if call.__name__ == "_create" else call(*arguments, **options)


class Told(list[tuple[Any, Any, bool]]):
    def __call__(self, error: Exception | None, message_id: Any, late: bool) -> None:
        self.append((type(error) if error else None, message_id, late))


async def opened() -> tuple[Sender, Producer]:
    client = Client()
    sender = Sender(client, Bridge(), "topic", batching=True)
    await sender.open()
    return sender, client.producer


async def test_a_receipt_is_told_on_the_loop_and_not_before_post_returns() -> None:
    sender, producer = await opened()
    told, other = Told(), Told()
    sender.post(b"a", "k", told)
    sender.post(b"b", "k", other)
    producer.receipt(1)
    producer.receipt(0, pulsar.Result.MessageTooBig)
    assert not told
    assert not other
    await eventually(lambda: bool(told and other))
    assert (told, other) == ([(BadInput, None, False)], [(None, "id1", False)])
    assert (sender.items, sender.bytes) == (0, 0)


async def test_what_is_given_up_is_told_once_and_a_late_receipt_once_more() -> None:
    sender, producer = await opened()
    told = Told()
    sender.post(b"a", "k", told)
    sender.post(b"b", "k", told)
    await sender.close()
    assert told == [(Unavailable, None, False)] * 2
    producer.receipt(0)
    producer.receipt(1, pulsar.Result.Timeout)
    await eventually(lambda: len(told) == 3)
    assert told[2] == (None, "id0", True)
    assert (sender.items, sender.bytes) == (0, 0)


async def test_a_send_that_the_client_refuses_is_told_by_raising_alone() -> None:
    sender, producer = await opened()
    producer.raises = pulsar.AlreadyClosed()
    told = Told()
    with pytest.raises(Unavailable):
        sender.post(b"a", "k", told)
    assert sender.items == 0
    assert not told


async def test_a_publication_that_was_given_up_is_counted_when_its_receipt_comes() -> None:
    class Counting:
        """What a publisher asks of a ledger before there is a receipt, and after."""

        def __init__(self) -> None:
            self.counts = Counts(writer=b"12345678")
            self.noted: list[Any] = []

        def note_published(self, counts: Any, partition: int, events: int, replay: bool, message_id: Any) -> None:
            self.noted.append((partition, events, message_id))

    sender, producer = await opened()
    ledger = Counting()
    publisher = Publisher([sender], ledger, 1 << 20, Room(1 << 30))  # type: ignore[arg-type]
    told: list[tuple[str, Exception | None]] = []

    def note(name: str, error: Exception | None) -> None:
        told.append((name, error))

    for name in ("a", "b"):
        publisher.post(Publication(key=name, head=b"", body=b"x", events=2), partial(note, name))
    await sender.close()
    assert [name for name, error in told if isinstance(error, Unavailable)] == ["a", "b"]
    assert publisher.uncertain
    assert ledger.noted == []
    producer.receipt(1)
    await eventually(lambda: ledger.noted == [(0, 2, "id1")])
    assert len(told) == 2
