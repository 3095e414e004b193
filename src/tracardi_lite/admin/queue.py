"""The queue as people see it: backlog, dead letters, ledger."""

from __future__ import annotations

from datetime import UTC, datetime

import msgspec
from aiohttp import web
from msgspec import Raw, Struct

from tracardi_lite.admin.answers import json_answer, nothing
from tracardi_lite.admin.context import AdminContext, Route
from tracardi_lite.admin.inputs import number
from tracardi_lite.errors import BadInput
from tracardi_lite.ports.queue import DeadLetter, Publication, Queue
from tracardi_lite.protocol.envelope import Head, decode_head, encode_head

NAMESPACE, TOPIC = "system", "functions"
"""The one topic that there is, by Tracardi's names."""

LETTERS_MAX = 100
BODY_SHOWN_MAX = 64 << 10
"""Bytes of a letter's body that are put in a list; of a larger one only its size is told."""

SCAN_PAGE = 50
SCAN_MAX = 10_000
"""Letters looked through for an id, oldest first: the port lists them and does not find them."""


async def backlog(context: AdminContext, request: web.Request) -> web.Response:
    """Messages (not batches) that wait, per partition and subscription."""
    if (request.match_info["namespace"], request.match_info["topic"]) != (NAMESPACE, TOPIC):
        raise BadInput(404, f"There is no such topic; the one there is: /queue/{NAMESPACE}/{TOPIC}/backlog")
    rows = await context.queue.backlog()
    shown = [{"partition": row.partition, "subscription": row.subscription, "count": row.messages} for row in rows]
    return json_answer({"total": sum(row.messages for row in rows), "backlog": shown})


# --- dead letters ---


class Letter(Struct):
    """A dead letter as it is listed."""

    id: str
    reason: str
    died: str
    events: int
    indices: list[int] | None
    tries: int
    key: str
    message: Head | None
    """None when it can't be decoded, which then is why it is here."""
    body: Raw | None
    """The payload, when it is JSON and not too large to list."""
    body_bytes: int


async def list_letters(context: AdminContext, request: web.Request) -> web.Response:
    """Oldest first; ``after`` is the last id of the page before."""
    limit = number(request, "limit", 20, 1, LETTERS_MAX)
    letters = await context.queue.dead_letters(limit, request.query.get("after", ""))
    totals = await context.queue.totals()
    return json_answer(
        {
            "total": totals.dead,
            "result": [_listed(letter) for letter in letters],
            "more_to_load": len(letters) == limit,
        }
    )


async def replay_letter(context: AdminContext, request: web.Request) -> web.Response:
    """Sends the letter's events again, under the same message id: what was stored meanwhile stays as it is."""
    letter = await find_letter(context.queue, request.match_info["id"])
    if letter is None:
        return nothing()
    if not await context.queue.take_dead_letter(letter.id, replay=replay_of(letter)):
        return nothing()
    return json_answer({"id": letter.id, "events": letter.events, "replayed": True})


async def delete_letter(context: AdminContext, request: web.Request) -> web.Response:
    if not await context.queue.take_dead_letter(request.match_info["id"], replay=None):
        return nothing()
    return json_answer(True)


async def find_letter(queue: Queue, id: str) -> DeadLetter | None:
    """One letter by id. Raises ``BadInput`` 409 if it is not among the ``SCAN_MAX`` oldest."""
    after = ""
    for _ in range(SCAN_MAX // SCAN_PAGE):
        letters = await queue.dead_letters(SCAN_PAGE, after)
        for letter in letters:
            if letter.id == id:
                return letter
        if len(letters) < SCAN_PAGE:
            return None
        after = letters[-1].id
    raise BadInput(409, f"It is not among the {SCAN_MAX} oldest letters: replay or delete older ones first.")


def replay_of(letter: DeadLetter) -> Publication:
    """The letter as a message again: only what died of it is processed.

    Raises ``BadInput`` 422 for a head that no door wrote: it would die again.
    """
    head = _head(letter)
    if head is None:
        raise BadInput(422, "The message's head can't be read, so it would only die again. It can be deleted.")
    if letter.indices is not None:
        head.only = letter.indices
    return Publication(key=letter.key, head=encode_head(head), body=letter.body, events=letter.events, replay=True)


def _head(letter: DeadLetter) -> Head | None:
    try:
        return decode_head(letter.head)
    except msgspec.DecodeError:
        return None


def _listed(letter: DeadLetter) -> Letter:
    return Letter(
        id=letter.id,
        reason=letter.reason,
        died=datetime.fromtimestamp(letter.died_ms / 1000, UTC).isoformat(timespec="milliseconds"),
        events=letter.events,
        indices=letter.indices,
        tries=letter.tries,
        key=letter.key,
        message=_head(letter),
        body=_json(letter.body),
        body_bytes=len(letter.body),
    )


def _json(body: bytes) -> Raw | None:
    if len(body) > BODY_SHOWN_MAX:
        return None
    try:
        # Raw alone would not look inside, and one bad body would spoil the whole answer.
        msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return Raw(body)


# --- the ledger ---


async def ledger(context: AdminContext, request: web.Request) -> web.Response:
    """What became of every event since the installation, over all processes, and whether it adds up."""
    totals = await context.queue.totals()
    refused = dict(totals.refused)
    rejected = {"not_saved": totals.rejected} | refused
    came = totals.received + sum(refused.values()) + totals.replayed
    went = totals.stored + totals.duplicate + sum(rejected.values()) + totals.dead_lettered + totals.pending
    return json_answer(
        {
            "received": totals.received + sum(refused.values()),
            "replayed": totals.replayed,
            "stored": totals.stored,
            "duplicate": totals.duplicate,
            "rejected": {"total": sum(rejected.values()), "by_reason": rejected},
            "dead_lettered": totals.dead_lettered,
            "dead": totals.dead,
            "pending": totals.pending,
            "difference": came - went,
            "adds_up": came == went,
        }
    )


ROUTES = [
    Route("GET", "/queue/{namespace}/{topic}/backlog", backlog),
    Route("GET", "/dead-letters", list_letters),
    Route("POST", "/dead-letters/{id}/replay", replay_letter),
    Route("DELETE", "/dead-letters/{id}", delete_letter),
    Route("GET", "/ledger", ledger),
]
