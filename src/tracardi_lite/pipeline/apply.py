"""What accepted events do to their profile and session: pure folds over a record's messages, in order.

A fold starts from the record as it was read and can be done again from a newer one, when a compare-and-set write has
failed: each message is judged by the record's own watermark. A message changes a record if any of its events was
accepted, or if the record is to be made from it.
"""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import UNSET, Struct, field

from tracardi_lite.pipeline import context as contexts
from tracardi_lite.pipeline import profile as profiles
from tracardi_lite.pipeline import session as sessions
from tracardi_lite.pipeline import watermark
from tracardi_lite.pipeline.event_parts import decode_object, mapped
from tracardi_lite.pipeline.mapping import apply_to_profile
from tracardi_lite.pipeline.merging.identification import Found, Identification
from tracardi_lite.pipeline.rules import touch as rules
from tracardi_lite.pipeline.system_events import VISIT_ENDED
from tracardi_lite.pipeline.type_book import TypeBook
from tracardi_lite.pipeline.values import parse_time
from tracardi_lite.pipeline.work import Item, Work
from tracardi_lite.ports.store import Kind, Record, RecordWrite

_encode = msgspec.json.Encoder().encode
_decode = msgspec.json.Decoder(dict[str, Any]).decode


VISITS_NOTED = 16
"""Latest visits of a session whose first message is noted: more than can begin before a message is redelivered."""


class Slot(Struct):
    """One profile or session while a batch works on it."""

    kind: Kind
    id: str
    partition: str
    record: Record | None
    """As stored; None: to be made."""
    doc: dict[str, Any] | None
    """As it will be; None only until the message that makes it is met."""
    works: list[Work] = field(default_factory=list)
    """The messages that touch it, in order."""
    dirty: bool = False
    keys: dict[str, Found] = field(default_factory=dict)
    """Merge keys that a profile has got from these messages, to be claimed before it is written, by hash."""

    @classmethod
    def of(cls, kind: Kind, key: tuple[str, str], record: Record | None) -> Slot:
        return cls(kind, *key, record, None if record is None else _decode(record.doc))

    def restart(self, record: Record) -> None:
        """Forget what was folded: somebody else has changed the record."""
        self.record, self.doc, self.dirty = record, _decode(record.doc), False
        self.keys.clear()

    def knows(self, work: Work) -> bool:
        """Whether the message is in the record already."""
        message = work.incoming.message
        return self.doc is not None and watermark.applied(self.doc, message.key, message.stream, message.position)

    def mark(self, work: Work) -> None:
        assert self.doc is not None
        message = work.incoming.message
        watermark.mark_applied(self.doc, message.key, message.stream, message.position)
        self.dirty = True

    def write(self) -> RecordWrite:
        assert self.doc is not None
        owner = self.doc.get("profile") if self.kind == "session" else None
        return RecordWrite(
            kind=self.kind,
            id=self.id,
            partition=self.partition,
            doc=_encode(self.doc),
            version=None if self.record is None else self.record.version,
            update_ms=parse_time(self.doc["metadata"]["time"]["update"]) or 0,
            profile=owner["id"] if owner else None,
        )


def open_profile(slot: Slot, work: Work) -> dict[str, Any]:
    """The profile's document, made from this message if there is none."""
    if slot.doc is None:
        sent = work.incoming.payload.profile
        metadata = decode_object(sent.metadata) if sent is not None else None
        slot.doc = profiles.new_profile(slot.id, work.incoming.head.received_ms, metadata=metadata)
        work.opens_profile = True
    return slot.doc


def open_session(slot: Slot, work: Work) -> dict[str, Any]:
    """The session's document, made from this message if there is none."""
    if slot.doc is None:
        head, payload = work.incoming.head, work.incoming.payload
        slot.doc = sessions.new_session(
            slot.id,
            profile=work.profile_id,
            at_ms=head.received_ms,
            ip=head.ip,
            headers=head.headers,
            channel=head.channel,
            context=decode_object(work.session_context),
            properties=decode_object(payload.properties),
            metadata=decode_object(payload.session.metadata) if payload.session is not None else None,
        )
        work.opens_session = True
    return slot.doc


def fold_session(slot: Slot, close_after_s: float) -> None:
    """Take the slot's messages into the session, and note which of them began its visits."""
    assert slot.doc is not None
    for work in slot.works:
        if slot.knows(work):
            continue
        types = {item.type for item in work.accepted}
        makes = work.opens_session and slot.record is None
        if not types and not makes:
            continue
        head, payload = work.incoming.head, work.incoming.payload
        ends = VISIT_ENDED in types
        starts = not makes and not ends and sessions.visit_starts(slot.doc, head.received_ms, close_after_s)
        if not makes or ends:
            sessions.touch_session(
                slot.doc,
                head.received_ms,
                context=_telling(work.session_context),
                properties=decode_object(payload.properties),
                starts_visit=starts,
                ends_visit=ends,
            )
        if makes or starts:
            _note_visit(slot.doc, work)
        if work.profile_id is not None:
            slot.doc["profile"] = {"id": work.profile_id}
        slot.mark(work)


def begun_visit(session: dict[str, Any] | None, work: Work) -> int:
    """Which of its session's visits the message has begun, 1 for the first; 0: none.

    The stored session is the judge, since messages that came by different keys may be worked on at once; so visits
    are told of and counted only after it is stored, and again, without effect, when the message is redelivered.
    """
    if session is None:
        return 0
    ordinal = session["metadata"]["system"]["aux"].get("begun", {}).get(work.place, 0)
    return ordinal if type(ordinal) is int else 0


def _note_visit(session: dict[str, Any], work: Work) -> None:
    begun = session["metadata"]["system"]["aux"].setdefault("begun", {})
    begun[work.place] = sessions.visits(session)
    while len(begun) > VISITS_NOTED:
        del begun[next(iter(begun))]


def fold_profile(
    slot: Slot,
    book: TypeBook,
    session_of: dict[str, dict[str, Any]],
    identification: Identification | None = None,
) -> None:
    """Take the slot's messages into the profile. ``session_of``: session documents by id. ``identification``: what
    makes merge keys of them; None: nothing does."""
    assert slot.doc is not None
    for work in slot.works:
        if slot.knows(work):
            continue
        accepted = work.accepted
        makes = work.opens_profile and slot.record is None
        session = session_of.get(work.session_id) if work.session_id is not None else None
        if not accepted and not makes and not begun_visit(session, work):
            continue
        _apply(slot, work, accepted, session, book, identification)
        slot.mark(work)
    if slot.dirty:
        profiles.refresh_derived(slot.doc)


def _apply(
    slot: Slot,
    work: Work,
    accepted: list[Item],
    session: dict[str, Any] | None,
    book: TypeBook,
    identification: Identification | None,
) -> None:
    profile = slot.doc
    assert profile is not None
    head, payload = work.incoming.head, work.incoming.payload
    identifying: list[Item] = []
    # What a rule may yet take away must not leave a key behind.
    wait = any(item.touch is not None and item.touch.late for item in accepted)
    if begun_visit(session, work):
        profiles.visit(profile, head.received_ms, contexts.timezone(decode_object(payload.context)))
    if payload.profile is not None and payload.profile.ids:
        profiles.add_ids(profile, payload.profile.ids)
    profiles.count_events(profile, [item.type for item in accepted if item.write is not None])
    if session is not None and accepted:
        # Before the events, of which one may know better: it would last until the next call otherwise.
        place = contexts.geo(_telling(payload.context))
        profiles.take_place(profile, place, head.received_ms / 1000, accepted[0].id)
    for item in accepted:
        event = payload.events[item.index]
        facts = book[event.type]
        at_ms = head.received_ms if item.write is None else item.write.insert_ms
        if item.touch is not None:
            parts = sessions.session_event_part(session) if session is not None else {}
            rules.fold(profile, item.touch, facts.entry, parts, at_ms / 1000, item.id)
        elif facts.entry is not None and facts.entry.ops:
            whole = mapped(facts, event)
            if session is not None:
                parts = sessions.session_event_part(session)
                whole = {**parts, **whole, "device": {**parts["device"], **whole.get("device", {})}}
            whole["context"] = decode_object(event.context)
            apply_to_profile(profile, facts.entry, whole, at_ms / 1000, item.id)
        else:
            continue
        if identification is not None and not wait:
            identification.gather(profile, slot.keys, item.type, item.touch.points if item.touch is not None else ())
        else:
            identifying.append(item)
    for item in accepted:
        if item.touch is not None and item.touch.late:
            rules.comply(profile, item.touch, head.received_ms / 1000, item.id)
    if identification is not None:
        for item in identifying:
            identification.gather(profile, slot.keys, item.type, item.touch.points if item.touch is not None else ())
    profiles.touch(profile, head.received_ms)


def _telling(context: msgspec.Raw | msgspec.UnsetType | dict[str, Any]) -> Any:
    """A hit's context, decoded only if it can tell what a session may still lack, or where the customer is."""
    if context is UNSET:
        return None
    if isinstance(context, dict):
        return context
    raw = bytes(context)
    return decode_object(context) if b'"utm"' in raw or b'"location"' in raw else None
