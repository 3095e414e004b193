"""What rules would do to an event: before, after, and what each of them did or why it did nothing.

The event goes through the very functions that a worker calls, on records that exist only here. Nothing is stored, and
nothing is looked up: who asks brings the profile.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from typing import Any

import msgspec
from msgspec import Struct, field

from tracardi_lite.errors import BadInput
from tracardi_lite.pipeline import apply, events
from tracardi_lite.pipeline import profile as profiles
from tracardi_lite.pipeline.decode import Incoming
from tracardi_lite.pipeline.event_types import EventTypes, normalise_type
from tracardi_lite.pipeline.rules.consents import Standing
from tracardi_lite.pipeline.rules.ruleset import ALL, RuleSet, Switches, compile_rule, compile_rules, event_type
from tracardi_lite.pipeline.rules.touch import Trace, touched
from tracardi_lite.pipeline.rules.view import View
from tracardi_lite.pipeline.type_book import TypeBook
from tracardi_lite.pipeline.work import Work
from tracardi_lite.ports import store
from tracardi_lite.ports.queue import Message
from tracardi_lite.ports.registry import RULE_KINDS, Rule
from tracardi_lite.ports.store import Verdict
from tracardi_lite.protocol.envelope import Head
from tracardi_lite.protocol.payload import Payload, decode_payload

# Of a profile that is brought; the rest (ids, counts, times, watermark) is a new profile's.
_GIVEN = frozenset({"primary_id", "traits", "segments", "interests", "consents", "aux", "data"})
SESSION, PROFILE = "dry-run-session", "dry-run-profile"


class Trial(Struct, forbid_unknown_fields=True):
    """What to try: an event as clients send it, and what surrounds it."""

    event: dict[str, Any]
    source: str = "default"
    context: dict[str, Any] = {}
    """The call's, which becomes the session's."""
    profile: dict[str, Any] = {}
    """Fields of the profile's record that are there already; a new profile's stand beside them."""
    rules: list[Rule] = field(default_factory=list)
    """Tried together with the stored ones, in place of those of the same kind and id. They need not be saved."""


class Outcome(Struct):
    """What one rule did."""

    kind: str
    id: str
    name: str
    matched: bool
    why: str


class State(Struct):
    event: dict[str, Any]
    profile: dict[str, Any]


class Result(Struct):
    before: State
    """As they would be without any rule."""
    after: State
    rules: list[Outcome]
    session: dict[str, Any] | None = None
    """The context that a new session would get, if a rule reshapes it."""


class Desk:
    """Where rules are checked and tried, with the types, the key and the switches of an installation."""

    def __init__(
        self, types: EventTypes | None = None, key: bytes = b"dry run", switches: Switches | None = None
    ) -> None:
        self.types = types or EventTypes()
        self._key = key
        self._switches = switches or Switches()

    def check(self, rule: Rule) -> None:
        """Raises ``RuleFault``, a ``BadInput`` 422 with the place of the fault, for a rule that can't be obeyed."""
        compile_rule(rule, self._key)

    def dry_run(self, stored: Sequence[Rule], trial: Trial, now_ms: int) -> Result:
        """Raises ``BadInput`` 422 for an event that the door would refuse, or a rule of the trial that is broken."""
        for rule in trial.rules:
            self.check(rule)
        tried = {(rule.kind, rule.id): rule for rule in (*stored, *trial.rules)}
        compiled = compile_rules(tried.values(), self._key, self._switches)
        incoming = _incoming(trial, now_ms)
        before, _, _ = self._run(RuleSet(), incoming, trial)
        after, trace, session = self._run(compiled, incoming, trial)
        return Result(before, after, self._outcomes(list(tried.values()), compiled, trace, incoming), session)

    def _run(self, rules: RuleSet, incoming: Incoming, trial: Trial) -> tuple[State, Trace, dict[str, Any] | None]:
        head, trace = incoming.head, Trace()
        book = TypeBook(self.types, rules)
        work = Work(incoming, profile_id=PROFILE, session_id=SESSION)
        sent = incoming.payload.events[0]
        facts = book[sent.type]
        chosen = facts.rules.of(head.source) if facts.rules is not None else None
        if chosen is not None:
            work.touches = {0: touched(chosen, View(facts.type, sent, incoming.payload, head), trace)}
        profile = _profile(trial, head.received_ms)
        session = apply.open_session(apply.Slot("session", SESSION, "", None, None), work)
        work.shared = events.share(
            work,
            session=session,
            primary_id=profile["primary_id"],
            visits=max(1, profiles.visit_count(profile)),
            context=None,
            partition="",
        )
        standing = Standing(profile) if rules.guards_consents else None
        events.build(work, book, work.shared, standing)
        [item] = work.items
        item.verdict = Verdict(store.Outcome.STORED)
        slot = apply.Slot("profile", PROFILE, "", None, profile, [work])
        try:
            apply.fold_profile(slot, book, {SESSION: session})
        except (TypeError, ValueError, AttributeError, KeyError) as error:
            # A stored profile has its shape; one that somebody typed need not.
            raise BadInput(422, [{"type": "value_error", "loc": ["body", "profile"], "msg": "No profile."}]) from error
        record: dict[str, Any] = msgspec.json.decode(item.write.doc) if item.write is not None else {}
        return State(record, profile), trace, item.touch.session if item.touch is not None else None

    def _outcomes(self, rules: list[Rule], compiled: RuleSet, trace: Trace, incoming: Incoming) -> list[Outcome]:
        steps = {(step.rule.kind, step.rule.id): step for step in trace.steps}
        broken = {(rule.kind, rule.id): fault for rule, fault in compiled.broken}
        type, source = normalise_type(incoming.payload.events[0].type), incoming.head.source
        outcomes = []
        for rule in sorted(rules, key=lambda rule: (RULE_KINDS.index(rule.kind), rule.order, rule.name, rule.id)):
            key = (rule.kind, rule.id)
            if key in steps:
                matched, why = steps[key].matched, steps[key].why
            else:
                matched, why = False, self._why_not(rule, type, source) or f"it is broken: {broken[key]}"
            outcomes.append(Outcome(rule.kind, rule.id, rule.name, matched, why))
        return outcomes

    def _why_not(self, rule: Rule, type: str, source: str) -> str:
        if not rule.enabled:
            return "it is disabled"
        if off := self._switches.off(rule.kind):
            return f"{off} is no"
        if event_type(rule) not in (ALL, type):
            return f"it is for events of type {event_type(rule)}"
        if rule.source and rule.source != source:
            return f"it is for events of source {rule.source}"
        return ""


def _incoming(trial: Trial, now_ms: int) -> Incoming:
    body = {"source": {"id": trial.source}, "events": [trial.event], "context": trial.context}
    try:
        payload: Payload = decode_payload(msgspec.json.encode(body))
    except msgspec.DecodeError as error:
        text = str(error).replace("$.events[0]", "$.event")
        raise BadInput(422, [{"type": "value_error", "loc": ["body", "event"], "msg": text}]) from error
    event = payload.events[0]
    if not normalise_type(event.type):
        raise BadInput(422, [{"type": "value_error", "loc": ["body", "event", "type"], "msg": "It is empty."}])
    for part in ("properties", "context"):
        if trial.event.get(part) is not None and not isinstance(trial.event[part], dict):
            raise BadInput(422, [{"type": "dict_type", "loc": ["body", "event", part], "msg": "Expected an object."}])
    head = Head(id="dry-run", received_ms=now_ms, source=trial.source, session=SESSION, profile=PROFILE)
    message = Message("dry-run", b"", b"", 1, "", (0,), now_ms)
    return Incoming(message, head, payload, [0])


def _profile(trial: Trial, now_ms: int) -> dict[str, Any]:
    made = profiles.new_profile(PROFILE, now_ms)
    for key in _GIVEN & trial.profile.keys():
        value = trial.profile[key]
        if value is not None:
            made[key] = {**made[key], **deepcopy(value)} if type(made[key]) is type(value) is dict else value
    return made
