"""Consumers of the SQLite queue that die, share, and lose; and a process without space."""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from tracardi_lite.backends.queue.sqlite import SqliteQueue, control, folder, folder_of, open_queue
from tracardi_lite.backends.queue.sqlite.consumer import SqliteConsumer
from tracardi_lite.errors import Misconfigured, TryLater, Unavailable
from tracardi_lite.ports.queue import SUBSCRIPTION, Message
from tracardi_lite.settings import Settings
from tracardi_lite.testing.clock import FakeClock, eventually
from tracardi_lite.testing.queue_suite import assert_adds_up, bodies, nothing_comes, publication, stored, take, until

PARTITIONS = 3


def opened(tmp_path: Path, clock: FakeClock | None = None, **changed: Any) -> SqliteQueue:
    settings = Settings(data_dir=tmp_path, queue_partitions=PARTITIONS, disk_free_min=0)
    return open_queue("sqlite:", replace(settings, **changed), clock=clock or FakeClock())


async def silence(consumer: SqliteConsumer) -> None:
    """It does nothing more by itself, as when it is paused."""
    beat = consumer._leases._beat
    assert beat is not None
    beat.cancel()
    await asyncio.gather(beat, *consumer._leases._tasks, return_exceptions=True)


async def die(consumer: SqliteConsumer) -> None:
    """What kill -9 leaves of a consumer: rows in the control file, and a badge that nobody holds."""
    leases = consumer._leases
    assert leases._badge is not None
    await silence(consumer)
    os.close(leases._badge._lock)
    leases._badge._lock = os.open(os.devnull, os.O_RDONLY)
    consumer._on_close(consumer)
    if consumer._fetching is not None:
        await consumer._fetching
    consumer._closed = True


async def test_a_dead_consumer_s_partitions_move_at_once(tmp_path: Path) -> None:
    async with opened(tmp_path, lease_ttl=300.0) as queue:
        for n in range(10):
            await queue.publish(publication(f"key-{n}", f"{n}"))
        victim = await queue.subscribe(SUBSCRIPTION)
        assert len(await take(victim, 10)) == 10
        await die(victim)
        heir = await queue.subscribe(SUBSCRIPTION)
        assert len(await take(heir, 10)) == 10
        await heir.close()


async def test_a_silent_consumer_s_partitions_move_when_its_lease_expires(tmp_path: Path) -> None:
    clock = FakeClock()
    async with opened(tmp_path, clock, lease_ttl=60.0) as queue:
        await queue.publish(publication("key", "0"))
        silent = await queue.subscribe(SUBSCRIPTION)
        await take(silent, 1)
        await silence(silent)
        clock.advance(61)
        heir = await queue.subscribe(SUBSCRIPTION)
        assert bodies(await take(heir, 1)) == ["0"]
        await heir.close()


async def test_a_message_that_kills_its_consumers_is_counted_and_the_others_get_through(tmp_path: Path) -> None:
    """Everything of a partition is in the hands of a consumer that dies of one message."""
    async with opened(tmp_path, queue_partitions=1) as queue:
        for n in range(20):
            await queue.publish(publication(f"key-{n}", "poison" if n == 5 else f"{n}"))
        done: list[str] = []
        for _ in range(40):
            consumer = await queue.subscribe(SUBSCRIPTION)
            dead = False
            while not dead and (await queue.totals()).pending:
                found = await consumer.receive(100, 1 << 20, 2.0)
                poison = next((message for message in found if message.body == b"poison"), None)
                dead = poison is not None and poison.tries < 3
                if not dead:
                    await consumer.ack([stored(message) for message in found])
                    done += bodies(found)
            if not dead:
                await consumer.close()
                break
            await die(consumer)
        assert "poison" in done, "its tries are known in the end"
        assert set(done) == {f"{n}" for n in range(20) if n != 5} | {"poison"}
        totals = await queue.totals()
        assert totals.stored == 20
        assert_adds_up(totals)


async def test_an_innocent_death_counts_no_try(tmp_path: Path) -> None:
    async with opened(tmp_path) as queue:
        await queue.publish(publication("key", "0"))
        for _ in range(4):
            consumer = await queue.subscribe(SUBSCRIPTION)
            (message,) = await take(consumer, 1)
            assert message.tries == 0
            await die(consumer)


async def test_a_stuck_message_stalls_only_its_partition_and_is_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tracardi_lite.backends.queue.sqlite.leases.MESSAGES_MAX", 10)
    monkeypatch.setattr(control, "SCHEMA", control.SCHEMA.replace(str(control.MESSAGES_MAX), "10"))
    monkeypatch.setattr(folder, "SCHEMA", control.SCHEMA)
    async with opened(tmp_path) as queue:
        for n in range(90):
            await queue.publish(publication(f"key-{n}", f"{n}"))
        consumer = await queue.subscribe(SUBSCRIPTION)
        stuck = (await take(consumer, 1))[0]
        taken: list[Message] = []
        while found := await consumer.receive(100, 1 << 20, 0.2):
            await consumer.ack([stored(message) for message in found])
            taken += found
        same = [message for message in taken if message.stream == stuck.stream]
        assert len(same) == 9
        others = {row.partition: row.messages for row in await queue.backlog() if row.messages}
        assert len(others) == 1, "the other partitions are through"
        await consumer.ack([stored(stuck)])
        while (await queue.totals()).pending:
            found = await consumer.receive(100, 1 << 20, 1.0)
            await consumer.ack([stored(message) for message in found])
            taken += found
        assert len({message.body for message in [stuck, *taken]}) == 90
        await consumer.close()


async def test_a_delay_survives_the_change_of_its_consumer(tmp_path: Path) -> None:
    clock = FakeClock()
    async with opened(tmp_path, clock) as queue:
        await queue.publish(publication("key", "0"))
        first = await queue.subscribe(SUBSCRIPTION)
        await first.nack(await take(first, 1), 30.0)
        await first.close()
        second = await queue.subscribe(SUBSCRIPTION)
        await nothing_comes(second)
        clock.advance(31)
        (message,) = await take(second, 1)
        assert message.tries == 1
        await second.close()


async def test_another_process_s_publication_wakes_a_waiting_receive(tmp_path: Path) -> None:
    async with opened(tmp_path) as here, opened(tmp_path) as there:
        consumer = await here.subscribe(SUBSCRIPTION)
        await nothing_comes(consumer)
        begun = time.monotonic()
        await there.publish(publication("key", "0"))
        assert bodies(await take(consumer, 1)) == ["0"]
        assert time.monotonic() - begun < 10, "far from any timeout"
        await consumer.close()


async def test_a_failing_control_file_stops_acknowledgements_and_loses_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with opened(tmp_path) as queue:
        for n in range(6):
            await queue.publish(publication(f"key-{n}", f"{n}", events=2))
        consumer = await queue.subscribe(SUBSCRIPTION)
        messages = await take(consumer, 6)
        with monkeypatch.context() as patch:
            control = queue._files.control

            def fail(*_: object) -> None:
                raise Unavailable("queue", "injected")

            patch.setattr(control, "save", fail)
            for _ in range(2):
                with pytest.raises(TryLater):
                    await consumer.ack([stored(message) for message in messages])
        await consumer.ack([stored(message) for message in messages])
        totals = await until(lambda totals: totals.pending == 0, queue)
        assert totals.stored == 12
        assert_adds_up(totals)
        await consumer.close()


async def test_no_thread_and_no_descriptor_is_left(tmp_path: Path) -> None:
    import threading

    before = len(os.listdir("/proc/self/fd"))
    for _ in range(3):
        async with opened(tmp_path) as queue:
            await queue.publish(publication("key", "0"))
            consumer = await queue.subscribe(SUBSCRIPTION)
            await take(consumer, 1)
        with pytest.raises(Unavailable):
            await queue.publish(publication("key", "1"))
    await eventually(lambda: not [t for t in threading.enumerate() if t.name.startswith("queue-")])
    assert len(os.listdir("/proc/self/fd")) <= before
    assert not list((tmp_path / "queue" / "members").iterdir())


def test_a_url_names_the_folder(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path)
    assert folder_of("sqlite:", settings) == tmp_path / "queue"
    assert folder_of("sqlite:///var/a%20b", settings) == Path("/var/a b")
    assert folder_of("sqlite:here", settings) == Path("here")
    with pytest.raises(Misconfigured):
        folder_of("sqlite://host/path", settings)


LIMITED = """
import asyncio, json, resource, sys
import msgspec
from tracardi_lite import wiring
from tracardi_lite.errors import TryLater
from tracardi_lite.ports.queue import Publication
from tracardi_lite.settings import Settings

async def main(url):
    settings = Settings(queue_url=url, disk_free_min=0)
    said = {"taken": 0, "refused": 0, "after": 0}
    async with wiring.open_queue(settings) as queue:
        async def publish(name, n):
            body = b"%d" % n + __import__("os").urandom(20000)
            await queue.publish(Publication(key=f"k{n}", head=b"", body=body, events=1))
            said[name] += 1
        _, most = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, most))
        for n in range(100):
            try:
                await publish("taken", n)
            except TryLater:
                said["refused"] += 1
        resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
        for n in range(100, 105):
            await publish("after", n)
    print(json.dumps(said))

asyncio.run(main(sys.argv[1]))
"""


def test_a_real_write_error_is_refused_and_recovers_without_a_restart(tmp_path: Path) -> None:
    """A limit on file sizes is a disk without space that needs no root."""
    folder = tmp_path / "queue"
    ran = subprocess.run(
        [sys.executable, "-c", LIMITED, f"sqlite://{folder}"], capture_output=True, text=True, timeout=60, check=False
    )
    assert ran.returncode == 0, ran.stderr
    said = json.loads(ran.stdout.splitlines()[-1])
    assert said["taken"] > 10
    assert said["refused"] > 10
    assert said["after"] == 5
    # What was refused may be there as well; what was taken must be.
    assert 105 >= received(tmp_path) >= said["taken"] + 5


def received(tmp_path: Path) -> int:
    async def ask() -> int:
        async with opened(tmp_path) as queue:
            return (await queue.totals()).received

    return asyncio.run(ask())
