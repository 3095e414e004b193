"""A process on a queue, for the suite to kill: ``python -m tracardi_lite.testing.queue_child ORDER``.

ORDER is JSON: ``url`` and ``settings`` of the queue, ``act``, and the act's options:

* ``publish``: ``count`` messages of four keys, one after the other; a line with the body for each that was taken.
* ``consume``: until it is terminated; a line for each message once its acknowledgement is through.
* ``hold``: take ``count`` messages, say ``holding``, wait for a line, acknowledge; say ``acked`` or ``lost``.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from typing import Any

import msgspec

from tracardi_lite import wiring
from tracardi_lite.errors import LeaseLost
from tracardi_lite.ports.queue import SUBSCRIPTION, Done, Message, Publication, Queue, Tally
from tracardi_lite.settings import Settings


class Order(msgspec.Struct):
    url: str
    settings: dict[str, Any]
    act: str
    name: str = ""
    count: int = 0


def say(text: str) -> None:
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


def stored(messages: list[Message]) -> list[Done]:
    return [Done(message, Tally(stored=message.events)) for message in messages]


async def publish(queue: Queue, order: Order) -> None:
    for number in range(order.count):
        body = f"{order.name}-{number}"
        await queue.publish(Publication(key=f"{order.name}-{number % 4}", head=b"", body=body.encode(), events=1))
        say(body)


async def consume(queue: Queue, order: Order) -> None:
    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    consumer = await queue.subscribe(SUBSCRIPTION)
    while not ended.is_set():
        messages = await consumer.receive(10, 1 << 20, 0.1)
        try:
            await consumer.ack(stored(messages))
        except LeaseLost:
            continue
        for message in messages:
            say(message.body.decode())
    await consumer.close()


async def hold(queue: Queue, order: Order) -> None:
    consumer = await queue.subscribe(SUBSCRIPTION)
    held: list[Message] = []
    while len(held) < order.count:
        held += await consumer.receive(order.count - len(held), 1 << 20, 1.0)
    # Goes through where the queue's own work goes: what taking the leases has begun is over then, and a stop most
    # likely hits a process that holds no lock.
    await queue.backlog()
    say("holding")
    await asyncio.get_running_loop().run_in_executor(None, sys.stdin.readline)
    try:
        await consumer.ack(stored(held))
        say("acked")
    except LeaseLost:
        say("lost")
    await consumer.close()


ACTS = {"publish": publish, "consume": consume, "hold": hold}


async def main(order: Order) -> None:
    settings = msgspec.convert({**order.settings, "queue_url": order.url}, Settings)
    async with wiring.open_queue(settings) as queue:
        await ACTS[order.act](queue, order)


if __name__ == "__main__":
    asyncio.run(main(msgspec.json.decode(sys.argv[1], type=Order)))
