"""Going back in the log, partition by partition, never forward: what was not acknowledged stays pending."""

from __future__ import annotations

import pulsar
from msgspec import Struct

from tracardi_lite.backends.queue.pulsar import log
from tracardi_lite.backends.queue.pulsar.admin import Admin, topic_path
from tracardi_lite.backends.queue.pulsar.client import Blocking
from tracardi_lite.backends.queue.pulsar.counts import Amount, Position


class Target(Struct):
    """Where a partition's cursor goes."""

    partition: int
    first: Position
    again: Amount
    """What becomes pending that was acknowledged."""


async def plan(
    blocking: Blocking, admin: Admin, topic: str, partition: int, subscription: str, to_ms: int | None
) -> Target | None:
    """None when nothing comes again. Reads the log from there on, to count: a matter for people, and of minutes."""
    stats = await admin.get(f"{topic_path(topic)}/internalStats")
    state = (stats or {}).get("cursors", {}).get(subscription)
    if state is None:
        return None
    cursor = log.parse_cursor(state)
    first: Position | None = None
    again = Amount()
    async for burst in log.read(blocking, topic, pulsar.MessageId.earliest if to_ms is None else to_ms):
        for message in burst:
            if to_ms is not None and message.published_ms < to_ms and first is None:
                continue
            if first is None:
                first = message.position
                if not cursor.acknowledged(first) or first[:2] > cursor.passed:
                    return None
            if cursor.acknowledged(message.position):
                again.add(1, message.events)
    return None if first is None else Target(partition, first, again)


async def reset(admin: Admin, topic: str, subscription: str, target: Target) -> None:
    """Move the cursor to before the target's entry. The broker disconnects the subscription's consumers."""
    ledger, entry, _ = target.first
    body = {"ledgerId": ledger, "entryId": entry, "partitionIndex": target.partition, "isExcluded": False}
    await admin.post(f"{topic_path(topic)}/subscription/{subscription}/resetcursor", body)
