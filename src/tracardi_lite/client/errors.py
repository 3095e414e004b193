"""What can go wrong for a sender, chosen by what the sender does next."""

from __future__ import annotations

from collections.abc import Sequence

from msgspec import Struct

from tracardi_lite.client.wire import Event
from tracardi_lite.errors import TracardiLiteError


class Undelivered(Struct, frozen=True):
    """Events that the client has given up on, whole, so that they can be kept and sent again.

    They keep their ids: those that had arrived after all (an answer that was lost) are not counted twice.
    """

    events: tuple[Event, ...]
    session_id: str | None
    profile_id: str | None
    reason: str
    status: int | None = None
    """The last HTTP status; None when there was no answer."""


class ClientError(TracardiLiteError):
    """Root of what this client raises on purpose."""


class BufferFull(ClientError):
    """There was no room for the event, which is not taken: slow down, drop it, or keep it elsewhere."""


class Refused(ClientError):
    """The server will never take this call (4xx): fix the source id, the payload or the address."""

    def __init__(self, status: int, detail: object) -> None:
        super().__init__(f"HTTP {status}: {detail}")
        self.status = status
        self.detail = detail


class AttemptFailed(ClientError):
    """``attempt`` got no answer, or one that says not now. Whoever called it decides whether there is another."""

    def __init__(self, reason: str, *, status: int | None, retry_after_s: float | None, perhaps_taken: bool) -> None:
        super().__init__(reason)
        self.status = status
        """None: there was no answer."""
        self.retry_after_s = retry_after_s
        self.perhaps_taken = perhaps_taken
        """False: the server never saw it, or said that it did not take it. Otherwise only the ids of events and session
        make another attempt harmless."""


class DeliveryFailed(ClientError):
    """Events were given up on; ``undelivered`` has them."""

    def __init__(self, undelivered: Sequence[Undelivered]) -> None:
        self.undelivered = tuple(undelivered)
        count = sum(len(part.events) for part in self.undelivered)
        reasons = "; ".join(sorted({part.reason for part in self.undelivered}))
        super().__init__(f"{count} event{'s' if count != 1 else ''} not delivered: {reasons}")
