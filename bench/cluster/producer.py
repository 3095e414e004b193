"""The ceiling of publishing: a bare ``send_async`` producer for each partition, with the settings of the program's.

It does nothing else: the payload is made once, the receipt is counted, and as many messages are in flight as the client
is worth having (more is not faster). Keys are those of profiles, nearly every message another one, since batches hold
messages of one key.
"""

from __future__ import annotations

import itertools
import os
import threading
import time
from typing import Any

import pulsar

from bench.cluster.pace import Pace
from tracardi_lite.backends.queue.pulsar import frame
from tracardi_lite.backends.queue.pulsar.sender import BATCH_BYTES, BATCH_MESSAGES
from tracardi_lite.backends.queue.routing import partition_of

IN_FLIGHT = 2000
DELAY_MS = 1
"""The shortest that the client can be told; ours sends at the end of a turn of its loop."""
BODY = os.urandom(1024)
HEAD = os.urandom(120)
"""About what the program's is."""
RECEIPT_S = 30.0


def keys() -> itertools.count[int]:
    return itertools.count(time.monotonic_ns())


def produce(service_url: str, topic: str, partitions: int, seconds: float) -> Pace:
    """Sends for so long and waits for the last receipt. Blocks; for a thread."""
    client = pulsar.Client(service_url, logger=pulsar.FileLogger(pulsar.LoggerLevel.Error, os.devnull))
    try:
        return _produce([_producer(client, topic, number) for number in range(partitions)], seconds)
    finally:
        client.close()


def _producer(client: pulsar.Client, topic: str, number: int) -> Any:
    return client.create_producer(
        f"{topic}-partition-{number}",
        max_pending_messages=0,
        batching_enabled=True,
        batching_type=pulsar.BatchingType.KeyBased,
        batching_max_publish_delay_ms=DELAY_MS,
        batching_max_messages=BATCH_MESSAGES,
        batching_max_allowed_size_in_bytes=BATCH_BYTES,
    )


def _produce(producers: list[Any], seconds: float) -> Pace:
    payload = frame.encode(bytes(frame.WRITER_BYTES), HEAD, BODY, 1, False)
    room = threading.Semaphore(IN_FLIGHT)
    refusals: list[Any] = []

    def receipt(result: Any, message_id: Any) -> None:
        if result != pulsar.Result.Ok:
            refusals.append(result)
        room.release()

    cpu, begun = time.process_time(), time.perf_counter()
    sent = 0
    for number in keys():
        if not sent % 64 and time.perf_counter() - begun > seconds:
            break
        room.acquire()
        key = f"{number:032x}"
        producers[partition_of(key, len(producers))].send_async(payload, receipt, partition_key=key)
        sent += 1
    for _ in range(IN_FLIGHT):
        if not room.acquire(timeout=RECEIPT_S):
            raise RuntimeError(f"no receipt within {RECEIPT_S:g} s")
    if refusals:
        raise RuntimeError(f"Pulsar refused {len(refusals)} of {sent} messages: {refusals[0]}")
    return Pace(sent, time.perf_counter() - begun, time.process_time() - cpu)
