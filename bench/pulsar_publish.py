"""How fast the Pulsar queue publishes, as a share of a bare ``send_async`` producer with the same settings.

    python -m bench.pulsar_publish [--messages 40000] [--rounds 3]

Needs a broker: ``tests/services/service start pulsar``, or PULSAR_HOST and PULSAR_API. Both sides send the same 1 KB
messages with as many in flight, to the partitions of one topic, one producer per partition, key-based batching;
rounds alternate, and medians are compared. CPU is this process's, the broker's not included.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import threading
import time
import uuid
from collections.abc import Callable

import pulsar
import uvloop

from tracardi_lite.backends.queue.pulsar import PulsarQueue, frame, open_queue
from tracardi_lite.backends.queue.pulsar.sender import BATCH_BYTES, BATCH_DELAY_MS, BATCH_MESSAGES
from tracardi_lite.backends.queue.routing import partition_of
from tracardi_lite.ports.queue import Publication
from tracardi_lite.settings import Settings

HOST = os.environ.get("PULSAR_HOST", "pulsar://127.0.0.1:16650")
API = os.environ.get("PULSAR_API", "http://127.0.0.1:18080")
IN_FLIGHT = 2000
BODY = os.urandom(1024)
HEAD = bytes(120)


def keys(messages: int) -> list[str]:
    """As of profiles: nearly every message another one."""
    return [f"{number:032x}" for number in range(messages)]


def bare(topic: str, partitions: int, messages: int) -> None:
    client = pulsar.Client(HOST, logger=pulsar.FileLogger(pulsar.LoggerLevel.Error, os.devnull))
    producers = [
        client.create_producer(
            f"{topic}-partition-{number}",
            max_pending_messages=0,
            batching_enabled=True,
            batching_type=pulsar.BatchingType.KeyBased,
            batching_max_publish_delay_ms=BATCH_DELAY_MS,
            batching_max_messages=BATCH_MESSAGES,
            batching_max_allowed_size_in_bytes=BATCH_BYTES,
        )
        for number in range(partitions)
    ]
    payload = frame.encode(bytes(8), HEAD, BODY, 1, False)
    room = threading.Semaphore(IN_FLIGHT)

    def receipt(result: object, message_id: object) -> None:
        assert result == pulsar.Result.Ok
        room.release()

    for key in keys(messages):
        room.acquire()
        producers[partition_of(key, partitions)].send_async(payload, receipt, partition_key=key)
    for _ in range(IN_FLIGHT):
        room.acquire()
    client.close()


async def ours(queue: PulsarQueue, messages: int) -> None:
    waiting = iter(keys(messages))

    async def caller() -> None:
        for key in waiting:
            await queue.publish(Publication(key=key, head=HEAD, body=BODY, events=1))

    await asyncio.gather(*(caller() for _ in range(IN_FLIGHT)))


def measured(act: Callable[[], None]) -> tuple[float, float]:
    """Seconds of wall time and of CPU."""
    wall, cpu = time.monotonic(), time.process_time()
    act()
    return time.monotonic() - wall, time.process_time() - cpu


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--messages", type=int, default=40_000)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    settings = Settings(
        pulsar_host=HOST,
        pulsar_api=API,
        pulsar_system_namespace="bench",
        pulsar_function_topic=f"bench-{uuid.uuid4().hex[:8]}",
    )
    topic = f"persistent://tracardi/bench/{settings.pulsar_function_topic}"
    found: dict[str, list[tuple[float, float]]] = {"bare send_async": [], "queue.publish": []}
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        queue = runner.run(open_queue("pulsar:", settings).__aenter__())
        runner.run(ours(queue, options.messages // 4))  # a cold broker is several times slower
        for _ in range(options.rounds):
            found["bare send_async"].append(measured(lambda: bare(topic, settings.queue_partitions, options.messages)))
            found["queue.publish"].append(measured(lambda: runner.run(ours(queue, options.messages))))
        runner.run(queue.__aexit__(None, None, None))
    rates = {}
    for name, rounds in found.items():
        rates[name] = options.messages / statistics.median(wall for wall, _ in rounds)
        cpu = statistics.median(cpu for _, cpu in rounds) / options.messages * 1e6
        print(f"{name:16} {rates[name]:9,.0f} messages/s {cpu:6.1f} µs of CPU each")
    print(f"{'ratio':16} {rates['queue.publish'] / rates['bare send_async']:9.2f}")


if __name__ == "__main__":
    main()
