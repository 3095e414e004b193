"""Word of moves within one process. Listeners read from a list that all share, so one that never asks costs nothing."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from itertools import islice

HEARD_MAX = 10_000
"""Announcements that wait for a listener; one that is further behind has missed some."""


class Words:
    """What was said last, and how much ever."""

    def __init__(self) -> None:
        self.count = 0
        self._last: deque[str] = deque(maxlen=HEARD_MAX)

    def say(self, keys: Sequence[str]) -> None:
        self._last.extend(keys)
        self.count += len(keys)

    def since(self, count: int) -> list[str] | None:
        """What was said after the first ``count``; None: some of it is forgotten."""
        behind = self.count - count
        if behind > len(self._last):
            return None
        return list(islice(self._last, len(self._last) - behind, None))

    def ear(self) -> Ear:
        return Ear(self)


class Ear:
    def __init__(self, words: Words) -> None:
        self._words = words
        self._heard = words.count

    def heard(self) -> Sequence[str] | None:
        if self._words.count == self._heard:
            return ()
        news = self._words.since(self._heard)
        self._heard = self._words.count
        return news
