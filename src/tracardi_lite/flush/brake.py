"""The brake on dead letters: when most events can never be stored, the fault is ours, not theirs.

A mapping gone wrong would otherwise empty the queue into the dead letters at full speed. Over a window of recent
events, more than half of them dead (and enough of them to tell) engages the brake: consuming stops, health says so,
and one batch a minute is let through to find out whether it is over.

Pure: outcomes and times are handed in. The window is at least ``WINDOW`` events and less than that plus one batch.
"""

from __future__ import annotations

from collections import deque

WINDOW = 1000
ENOUGH = 100
SHARE = 0.5
PROBE_EVERY_S = 60.0


class Brake:
    def __init__(self) -> None:
        self._recent: deque[tuple[int, int]] = deque()
        self._events = 0
        self._dead = 0
        self.engaged_since: float | None = None
        """Monotonic seconds; None while everything is allowed."""
        self._probe_at = 0.0

    def note(self, events: int, dead: int, now: float) -> bool:
        """Enter a batch's outcome. True when this engaged the brake."""
        assert 0 <= dead <= events
        if not events:
            return False
        if self.engaged_since is not None:
            if dead <= events * SHARE:
                self._release()
            return False
        self._recent.append((events, dead))
        self._events += events
        self._dead += dead
        while self._events - self._recent[0][0] >= WINDOW:
            old_events, old_dead = self._recent.popleft()
            self._events -= old_events
            self._dead -= old_dead
        if self._events >= ENOUGH and self._dead > self._events * SHARE:
            self.engaged_since = now
            self._probe_at = now + PROBE_EVERY_S
            return True
        return False

    def permit(self, now: float) -> float:
        """0: go on (taking the probe, if engaged). Otherwise: ask again in that many seconds."""
        if self.engaged_since is None:
            return 0.0
        if now >= self._probe_at:
            self._probe_at = now + PROBE_EVERY_S
            return 0.0
        return self._probe_at - now

    def _release(self) -> None:
        self.engaged_since = None
        self._recent.clear()
        self._events = self._dead = 0
