"""What a worker knows of one message while it works on its batch.

Filled step by step, in the order of the pipeline: decode, identify, load, events, fold, write. A batch that is tried
again keeps what is settled (the verdicts) and redoes the rest.
"""

from __future__ import annotations

from typing import Any

from msgspec import Raw, Struct, UnsetType, field

from tracardi_lite.pipeline.decode import Incoming
from tracardi_lite.pipeline.rules.touch import Touch
from tracardi_lite.ports.queue import Tally
from tracardi_lite.ports.store import Entry, EventWrite, Outcome, Verdict
from tracardi_lite.protocol.envelope import SAVE_EVENTS, SAVE_PROFILE, SAVE_SESSION


class Shared(Struct):
    """What the events of one message have in common, encoded."""

    message: str
    received_ms: int
    partition: str
    source: str
    session: str | None
    profile: str | None
    visits: int
    """The profile's visits, this message's included; decides the journey state of some types."""
    source_part: bytes
    meta_open: bytes
    """From ``,"metadata":{`` to before the times."""
    times: bytes
    meta_close: bytes
    """From after the times to the validity."""
    common: bytes
    """session, profile, request, os, app, utm."""
    device: dict[str, Any]
    device_part: bytes


class Item(Struct):
    """One of a message's events on its way into the store."""

    index: int
    """Its place in the body's ``events[]``; -1 for a system event."""
    type: str
    id: str
    write: EventWrite | None
    """None: not to be stored."""
    verdict: Verdict | None = None
    touch: Touch | None = None
    """The event under its rules; None when no rule touches it."""

    @property
    def accepted(self) -> bool:
        """Whether it takes effect: stored by this message, or wanted unstored."""
        if self.write is None:
            return True
        return self.verdict is not None and self.verdict.outcome in (Outcome.STORED, Outcome.SAME)


class Work(Struct):
    incoming: Incoming
    touches: dict[int, Touch] | None = None
    """The events that rules touch, by their place in the body; None when there are none."""
    # identify
    profile_id: str | None = None
    """Whom it applies to, aliases resolved; None: no profile, or one that is not to be saved."""
    profile_entry: Entry | None = None
    session_id: str | None = None
    """None: no session, or one that is not to be saved."""
    session_entry: Entry | None = None
    # events
    shared: Shared | None = None
    """What its events have in common; None until they are built."""
    items: list[Item] = field(default_factory=list)
    repeated: int = 0
    """Events whose id an earlier event of this message has."""
    system: list[Item] = field(default_factory=list)
    # fold
    opens_profile: bool = False
    """Its profile's record is to be made from this message."""
    opens_session: bool = False
    # the end
    dead: str = ""
    """Why the whole message died, if it did."""
    lost: str = ""
    """Why one of its records can't be written though its events could."""

    @property
    def session_context(self) -> Raw | UnsetType | dict[str, Any]:
        """The context of the call, which is the session's, as it came or as a rule has reshaped it."""
        for touch in self.touches.values() if self.touches is not None else ():
            if touch.session is not None:
                return touch.session
        return self.incoming.payload.context

    @property
    def saves_profile(self) -> bool:
        head = self.incoming.head
        return head.profile is not None and bool(head.save & SAVE_PROFILE)

    @property
    def saves_session(self) -> bool:
        head = self.incoming.head
        # Without a profile a call is an event and nothing else.
        return head.session is not None and head.profile is not None and bool(head.save & SAVE_SESSION)

    @property
    def saves_events(self) -> bool:
        return bool(self.incoming.head.save & SAVE_EVENTS)

    @property
    def place(self) -> str:
        """Where the message stands, for ever; a replay of it stands elsewhere."""
        message = self.incoming.message
        return f"{message.stream}@{'.'.join(map(str, message.position))}"

    @property
    def accepted(self) -> list[Item]:
        """Its own events that take effect."""
        return [item for item in self.items if item.accepted]

    def tally(self) -> Tally:
        """What became of the message's events."""
        tally = Tally(duplicate=self.repeated)
        for item in self.items:
            if item.write is None:
                tally.rejected += 1
                continue
            assert item.verdict is not None
            match item.verdict.outcome:
                case Outcome.STORED | Outcome.SAME:
                    tally.stored += 1
                case Outcome.EXISTS:
                    tally.duplicate += 1
                case _:
                    tally.dead += 1
        return tally
