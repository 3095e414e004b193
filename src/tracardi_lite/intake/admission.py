"""Admission: everything that the door decides before a call is queued. No bytes are written and none re-encoded.

``Admission`` takes a decoded call and gives the message's head, or raises BadInput (4xx) or TryLater (503). Which
profile a call belongs to is decided by the table in ARCHITECTURE.md ("Door").
"""

from __future__ import annotations

from msgspec import Struct

from tracardi_lite.clock import Clock
from tracardi_lite.errors import BadInput
from tracardi_lite.intake.bindings import Bindings, Unknown
from tracardi_lite.intake.decode import Decoded
from tracardi_lite.intake.sources import Gate
from tracardi_lite.intake.steps import Steps
from tracardi_lite.protocol.envelope import SAVE_ALL, SAVE_EVENTS, SAVE_PROFILE, SAVE_SESSION, Head
from tracardi_lite.protocol.identity import Identity
from tracardi_lite.protocol.ids import message_ids
from tracardi_lite.protocol.payload import PayloadOptions


class Visitor(Struct):
    """What the transport knows of a call's sender."""

    ip: str | None
    headers: dict[str, str]
    """Lower-cased names; without the sensitive ones. The message keeps it: nobody else may."""


class Admission:
    def __init__(self, identity: Identity, bindings: Bindings, clock: Clock, instance: str) -> None:
        self._identity = identity
        self._bindings = bindings
        self._clock = clock
        self._instance = instance
        self._message_id = message_ids()
        # Sessions that come without an id get one of ours.
        self._session_id = message_ids()

    def admit(self, call: Decoded, gate: Gate, visitor: Visitor, *, profile_less: bool = False) -> Steps[Head]:
        """The head of the message for this call, its profile and session decided."""
        payload = call.call
        session = payload.session.id if payload.session is not None else ""
        sent = payload.profile.id if payload.profile is not None else ""
        head = Head(
            id=self._message_id(),
            received_ms=self._clock.now_ms(),
            source=gate.id,
            channel=gate.channel,
            session=session or None,
            profile=None,
            save=_save(payload.options, gate.transitional),
            ip=visitor.ip,
            headers=visitor.headers,
            instance=self._instance,
            skip=[error.index for error in call.errors],
        )
        if profile_less:
            return head
        if gate.static:
            if not sent:
                raise BadInput(
                    422,
                    [
                        {
                            "type": "missing",
                            "loc": ["body", "profile", "id"],
                            "msg": "The event source has static profile ids: profile.id is required",
                            "url": None,
                        }
                    ],
                )
            head.static = True
            head.profile = sent
            head.session = session or self._session_id()
            self._bindings.remember(f"s:{head.session}", sent)
            return head
        if session:
            yield from self._by_session(head, session, sent)
        else:
            head.session = self._session_id()
            yield from self._by_profile(head, sent)
        if sent and head.profile != sent:
            head.sent_profile = sent
        return head

    async def knows(self, session: str) -> bool:
        """Whether a session was seen before: by this process, or by the directory."""
        key = f"s:{session}"
        if self._bindings.peek(key) is not None:
            return True
        try:
            (profile,) = await self._bindings.resolve([key])
        except Unknown:
            return False
        return profile is not None

    def _by_session(self, head: Head, session: str, sent: str) -> Steps[None]:
        """The session's profile wins; a session that nobody knows takes the sent one, or one derived from it."""
        key = f"s:{session}"
        bound = self._bindings.peek(key)
        known: str | None = None
        if bound is None:
            keys = [key, f"p:{sent}"] if sent else [key]
            try:
                answers = yield self._bindings.resolve(keys)
            except Unknown:
                answers = [None] * len(keys)
            # Another request of this session may have been answered while this one waited.
            bound = self._bindings.peek(key) or answers[0]
            known = answers[1] if sent else None
        if bound is None:
            if known is not None:
                bound = known
            elif sent and self._identity.issued(sent):
                bound = sent
            else:
                bound = self._identity.derive(session)
                head.issued = True
            self._bindings.remember(key, bound)
        head.profile = bound

    def _by_profile(self, head: Head, sent: str) -> Steps[None]:
        """Without a session only the sent profile can tell; without either, everything is new."""
        if sent:
            key = f"p:{sent}"
            known = self._bindings.peek(key)
            if known is None:
                try:
                    (known,) = yield self._bindings.resolve([key])
                except Unknown:
                    known = None
            if known is None and self._identity.issued(sent):
                known = sent
            if known is not None:
                head.profile = known
        if head.profile is None:
            head.profile = self._identity.issue()
            head.issued = True
        assert head.session is not None
        self._bindings.remember(f"s:{head.session}", head.profile)


def _save(options: PayloadOptions | None, transitional: bool) -> int:
    """What of a call is kept (§1.4); a transitional source keeps the profile only (§2)."""
    save = SAVE_ALL
    if options is not None:
        if options.save_profile is False:
            save &= ~SAVE_PROFILE
        if options.save_session is False:
            save &= ~SAVE_SESSION
        if options.save_events is False or options.save_event is False:
            save &= ~SAVE_EVENTS
    if transitional:
        save &= ~(SAVE_SESSION | SAVE_EVENTS)
    return save
