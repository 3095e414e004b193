"""Making dead letters: a message, or some of its events, with the reason, replayable as it came.

Ids are made of the message alone: when it was published, then a digest of its place in its log and of what died. So
they sort by time, and a message that is redelivered and dies again replaces its letter. Reasons are bounded, since they
may quote a server's answer.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import blake2b

from tracardi_lite.ports.queue import DeadLetter, Message

REASON_LENGTH_MAX = 2000


def whole(message: Message, reason: str, now_ms: int) -> DeadLetter:
    """The letter for a message of which nothing more can be done."""
    return _letter(message, reason, now_ms, message.events, None)


def some(message: Message, deaths: Sequence[tuple[int, str]], now_ms: int) -> list[DeadLetter]:
    """Letters for (index, reason) pairs of one message's events: one per distinct reason."""
    by_reason: dict[str, list[int]] = {}
    for index, reason in deaths:
        by_reason.setdefault(reason, []).append(index)
    return [_letter(message, reason, now_ms, len(indices), indices) for reason, indices in by_reason.items()]


def none(message: Message, reason: str, now_ms: int) -> DeadLetter:
    """A letter that tells of a loss beside the events, all of which are settled: a replay of it does nothing."""
    return _letter(message, reason, now_ms, 0, [])


def _letter(message: Message, reason: str, now_ms: int, events: int, indices: list[int] | None) -> DeadLetter:
    what = repr((message.stream, message.position, indices)).encode("utf-8", "surrogatepass")
    digest = blake2b(what, digest_size=8).hexdigest()
    return DeadLetter(
        id=f"{message.published_ms:013d}-{digest}",
        key=message.key,
        head=message.head,
        body=message.body,
        events=events,
        reason=reason[:REASON_LENGTH_MAX],
        died_ms=now_ms,
        indices=indices,
        tries=message.tries,
    )
