"""Which profile id stands for which now, as far as this client has been told."""

from __future__ import annotations

_KEPT = 10_000
"""Ids remembered; the server resolves a forgotten one all the same."""


class Aliases:
    """Bounded: the entries learned longest ago go first."""

    def __init__(self, kept: int = _KEPT) -> None:
        self._kept = kept
        self._next: dict[str, str] = {}

    def learn(self, sent: str, answered: str) -> None:
        """The server answered a call for ``sent`` with ``answered``."""
        if answered in self._next:
            # The newest answer is right: whatever was thought to have replaced `answered` is outdated, and a chain
            # that leads back here would never end.
            del self._next[answered]
        self._next.pop(sent, None)
        if sent != answered:
            self._next[sent] = answered
            if len(self._next) > self._kept:
                del self._next[next(iter(self._next))]

    def survivor(self, id: str) -> str:
        """The id to send for ``id``."""
        seen = set()
        while id in self._next and id not in seen:
            seen.add(id)
            id = self._next[id]
        return id
