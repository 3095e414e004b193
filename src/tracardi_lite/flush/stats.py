"""What a worker has done and how it fares: plain numbers, read by metrics and by readiness.

Counters only grow, over the life of the process; the durable ledger is the queue's (``Totals``). "Since" fields are
monotonic seconds, None while all is well.
"""

from __future__ import annotations

from msgspec import Struct, field

from tracardi_lite.flush.batch import REASONS

# Trouble shorter than this is what retries are for; readiness turns false after it.
GRACE_S = 5.0


class WorkerStats(Struct):
    flushes: dict[str, int] = field(default_factory=lambda: dict.fromkeys(REASONS, 0))
    """Batches by the reason that closed them."""
    messages: int = 0
    """Acknowledged."""
    stored: int = 0
    duplicates: int = 0
    not_saved: int = 0
    dead: int = 0
    """Events that went to the dead letters."""
    system_events: int = 0
    """Stored system events; they are in no other counter."""
    system_events_lost: int = 0
    """Ones that the store will never take; logged, not kept."""
    profile_writes: int = 0
    session_writes: int = 0
    conflicts: int = 0
    """Compare-and-set writes that met a newer record and were applied again."""
    retries: int = 0
    """Store calls repeated because the store was away or said "not now"."""
    nacks: int = 0
    """Messages put back because they failed by themselves."""
    lease_losses: int = 0
    """Acknowledgements refused because the partition had moved."""
    waiting_messages: int = 0
    """Taken from the queue and not yet acknowledged: a gauge."""
    waiting_events: int = 0
    waiting_bytes: int = 0
    last_write: float | None = None
    """Monotonic time of the last durable write to the store."""
    store_down_since: float | None = None
    queue_down_since: float | None = None
    braked_since: float | None = None
    running: bool = False

    def problem(self, now: float) -> str | None:
        """What keeps this worker from being ready, naming the part; None when it is ready."""
        if not self.running:
            return "worker: not running"
        if self.braked_since is not None:
            return f"worker: stopped for {now - self.braked_since:.0f} s, most events can never be stored"
        for part, since in (("store", self.store_down_since), ("queue", self.queue_down_since)):
            if since is not None and now - since > GRACE_S:
                return f"{part}: failing for {now - since:.0f} s"
        return None
