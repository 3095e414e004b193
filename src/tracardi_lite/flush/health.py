"""How a worker fares, for readiness: decided by what it has lately achieved, not by configuration.

Times are monotonic seconds, None while all is well. Counts of what was done are metrics, and durably the ledger's.
"""

from __future__ import annotations

from msgspec import Struct

# Trouble shorter than this is what retries are for; readiness turns false after it.
GRACE_S = 5.0


class WorkerHealth(Struct):
    running: bool = False
    last_write: float | None = None
    """When the store last took something for good."""
    store_down_since: float | None = None
    queue_down_since: float | None = None
    braked_since: float | None = None
    waiting_messages: int = 0
    """Taken from the queue and not yet settled."""
    waiting_events: int = 0
    waiting_bytes: int = 0

    def problem(self, now: float) -> str | None:
        """What keeps the worker from being ready, naming the part; None when it is ready."""
        if not self.running:
            return "worker: not running"
        if self.braked_since is not None:
            return f"worker: braked for {now - self.braked_since:.0f} s, most events can never be stored"
        for part, since in (("store", self.store_down_since), ("queue", self.queue_down_since)):
            if since is not None and now - since > GRACE_S:
                return f"{part}: failing for {now - since:.0f} s"
        return None
