"""The events that the server adds (§3.7): ``profile-created``, ``session-opened``, ``visit-started``.

They stand a moment before the client's, and their source is the internal one. Ids are derived from what they tell of
(and from the message that claimed its key, so that a profile made anew after a deletion is told of again): a
redelivery, or a race between two workers, makes one of them. They are nobody's received events and stand in no ledger.

A message that holds ``visit-ended`` makes none.
"""

from __future__ import annotations

from collections.abc import Sequence

from tracardi_lite.pipeline.events import build_system
from tracardi_lite.pipeline.type_book import TypeBook
from tracardi_lite.pipeline.work import Item, Shared, Work
from tracardi_lite.protocol.ids import derive_uuid

PROFILE_CREATED = "profile-created"
SESSION_OPENED = "session-opened"
VISIT_STARTED = "visit-started"
VISIT_ENDED = "visit-ended"

INTERNAL_SOURCE = "@internal-8c9f1d7e60b2a4f35d01"
"""Ids that begin with ``@`` can't come in through the door."""

# How long before the message each stands, in ms, so that they sort in the order in which they make sense.
_BEFORE_MS = {PROFILE_CREATED: 3000, SESSION_OPENED: 2000, VISIT_STARTED: 1000}


def profile_created(work: Work, book: TypeBook, shared: Shared) -> Item:
    assert work.profile_id is not None
    assert work.profile_entry is not None
    return _make(PROFILE_CREATED, (work.profile_id, work.profile_entry.message), {}, book, shared)


def session_opened(work: Work, book: TypeBook, shared: Shared) -> Item:
    assert work.session_id is not None
    assert work.session_entry is not None
    return _make(SESSION_OPENED, (work.session_id, work.session_entry.message), {}, book, shared)


def visit_started(work: Work, ordinal: int, book: TypeBook, shared: Shared) -> Item:
    """``ordinal``: which visit of its session it is, 1 for the first."""
    assert work.session_id is not None
    assert work.session_entry is not None
    triggers = list(dict.fromkeys(item.type for item in work.items))
    names = (work.session_id, work.session_entry.message, str(ordinal))
    return _make(VISIT_STARTED, names, {"trigger-event-types": triggers}, book, shared)


def _make(type: str, names: Sequence[str], properties: dict[str, object], book: TypeBook, shared: Shared) -> Item:
    at_ms = shared.received_ms - _BEFORE_MS[type]
    return build_system(type, derive_uuid(type, *names), at_ms, properties, INTERNAL_SOURCE, book, shared)
