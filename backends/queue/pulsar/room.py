"""Whether the backlog in Pulsar may grow: what the broker said last, and what was sent since."""

from __future__ import annotations

from tracardi_lite.errors import Full

RETRY_AFTER_S = 5.0


class Room:
    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._known = 0
        self._since = 0
        self._before_poll = 0

    @property
    def scarce(self) -> bool:
        """Worth asking the broker again soon."""
        return self._known + self._since > self._bytes_max * 0.8

    def check(self) -> None:
        """Raise ``Full`` when the bound is reached; the last message may have gone over it."""
        if self._known + self._since >= self._bytes_max:
            raise Full("queue", "the backlog is as large as it may be", RETRY_AFTER_S)

    def sent(self, size: int) -> None:
        self._since += size

    def polling(self) -> None:
        """The broker is about to be asked: what is sent from now on may be missing in its answer."""
        self._before_poll = self._since

    def polled(self, backlog: int) -> None:
        self._known = backlog
        self._since -= self._before_poll
        self._before_poll = 0
