"""The queue on Apache Pulsar: for when one machine is not enough. Needs the extra ``pulsar``; see docs/pulsar.md."""

from __future__ import annotations

from tracardi_lite.backends.queue.pulsar.names import addresses, names
from tracardi_lite.backends.queue.pulsar.queue import PulsarQueue
from tracardi_lite.clock import Clock, SystemClock
from tracardi_lite.settings import Settings

__all__ = ["PulsarQueue", "open_queue"]


def open_queue(url: str, settings: Settings, *, clock: Clock | None = None) -> PulsarQueue:
    """``pulsar://host:6650[,host…]``, ``pulsar+ssl://…``, or ``pulsar:`` for what PULSAR_HOST names."""
    service, admin = addresses(url, settings)
    return PulsarQueue(service, admin, names(settings), settings, clock or SystemClock())
