"""What rules cost a worker: ``python -m bench.rules``. Ratios to the same events without a rule; no server is needed.

Measured is the pure part of the pipeline, where rules act: a decoded message is looked at, its events' records are made
and applied to the profile. Time is the processor's, so that a busy machine does not count. Each case takes turns with
the case without rules; a figure is the median of its rounds, and the ratio that of the rounds' ratios.
"""

from __future__ import annotations

import itertools
import statistics
import sys
import time
from collections.abc import Iterator
from typing import Any

import msgspec

from tracardi_lite.pipeline import apply
from tracardi_lite.pipeline.decode import decode
from tracardi_lite.pipeline.event_types import EventTypes
from tracardi_lite.pipeline.events import build, look, share
from tracardi_lite.pipeline.profile import new_profile
from tracardi_lite.pipeline.rules.consents import Standing
from tracardi_lite.pipeline.rules.ruleset import RuleSet, compile_rules
from tracardi_lite.pipeline.type_book import TypeBook
from tracardi_lite.pipeline.work import Work
from tracardi_lite.ports.queue import Message
from tracardi_lite.ports.registry import RULE_KINDS, RULES_MAX, Rule
from tracardi_lite.ports.store import STORED
from tracardi_lite.protocol.envelope import Head, encode_head

ROUNDS = 31
MESSAGES = 400
RECEIVED_MS = 1_800_000_000_000

EVENT: dict[str, Any] = {
    "type": "order-viewed",
    "properties": {
        "id": "o-17",
        "total": 99.5,
        "email": "joe@example.com",
        "items": [{"sku": f"A-{n}", "name": "a thing of some kind", "quantity": n, "price": 9.95} for n in range(8)],
    },
    "context": {"page": {"url": "https://shop.example/orders/17", "title": "Order 17"}},
}

SPECS: dict[str, dict[str, Any]] = {
    "validation": {
        "json_schema": {
            "event@properties": {
                "type": "object",
                "required": ["id", "total", "items"],
                "properties": {
                    "total": {"type": "number", "minimum": 0},
                    "items": {
                        "type": "array",
                        "items": {
                            "required": ["sku"],
                            "properties": {"sku": {"type": "string", "pattern": "^[A-Z]-[0-9]+$"}},
                        },
                    },
                },
            }
        }
    },
    "reshaping": {
        "properties": {"order": "event@properties.id", "items": "event@properties.items", "source": "source@id"}
    },
    "mapping": {"traits": {"total": "order.total", "id": "order.id"}, "tags": ["orders"]},
    "to-profile": {
        "ops": [{"to": "traits.last_total", "from": "properties.total"}, {"to": "traits.n", "op": "increment"}]
    },
    "identification": {"fields": {"email": "emm"}},
    "compliance": {"fields": [{"field": "event@properties.email", "action": "hash", "consents": ["marketing"]}]},
}


def cases() -> Iterator[tuple[str, RuleSet]]:
    """What is measured, and with which rules."""
    others = [
        Rule(kind=kind, id=str(n), event_type=f"type-{n}", spec=SPECS[kind])
        for n, kind in zip(range(RULES_MAX), itertools.cycle(RULE_KINDS), strict=False)
    ]
    without_consents = [rule for rule in others if rule.kind != "compliance"]
    yield f"{len(without_consents)} rules, none for this type", compile_rules(without_consents)
    yield f"{RULES_MAX} rules, none for this type, some on consents", compile_rules(others)
    elsewhere = [Rule(kind=kind, id=kind, event_type=EVENT["type"], source="other", spec=SPECS[kind]) for kind in SPECS]
    yield f"{len(elsewhere)} rules for this type, of another source", compile_rules(elsewhere)
    held = Rule(
        kind="mapping", id="m", event_type=EVENT["type"], condition="properties.total > 1000", spec=SPECS["mapping"]
    )
    yield "1 mapping whose condition does not hold", compile_rules([held])
    every = [Rule(kind=kind, id=kind, event_type=EVENT["type"], spec=SPECS[kind]) for kind in SPECS]
    for rule in every:
        yield f"1 {rule.kind}", compile_rules([rule], b"key")
    yield "one of each", compile_rules(every, b"key")


def messages() -> list[Message]:
    body = msgspec.json.encode({"source": {"id": "shop"}, "events": [EVENT] * 5})
    head = Head(id="m", received_ms=RECEIVED_MS, source="shop", session=None, profile="p")
    return [Message("p", encode_head(head), body, 5, "s", (n,), 0) for n in range(MESSAGES)]


def once(sent: list[Message], book: TypeBook) -> float:
    """Seconds of processor time for all messages."""
    profile = new_profile("p", RECEIVED_MS)
    slot = apply.Slot("profile", "p", "", None, profile)
    began = time.process_time()
    for message in sent:
        work = Work(decode(message), profile_id="p")
        look(work, book)
        shared = share(work, session=None, primary_id=None, visits=1, context={}, partition="2027-1")
        build(work, book, shared, Standing(profile) if book.rules.guards_consents else None)
        for item in work.items:
            item.verdict = STORED
        slot.works = [work]
        apply.fold_profile(slot, book, {})
    return time.process_time() - began


def main() -> None:
    types, sent = EventTypes(), messages()
    plain = TypeBook(types)
    once(sent, plain)
    print("| rules | µs per event | without rules | ratio |\n|---|---:|---:|---:|")
    for name, rules in cases():
        assert not rules.broken, rules.broken
        book = TypeBook(types, rules)
        mine: list[float] = []
        bare: list[float] = []
        once(sent, book)
        for round in range(ROUNDS):
            # Which of the two goes first changes, lest one always meets the warmer cache.
            for which in (book, plain) if round % 2 else (plain, book):
                (mine if which is book else bare).append(once(sent, which))
        per_event = 1e6 / (MESSAGES * 5)
        with_us, without_us = statistics.median(mine) * per_event, statistics.median(bare) * per_event
        ratio = statistics.median(one / other for one, other in zip(mine, bare, strict=True))
        print(f"| {name} | {with_us:.1f} | {without_us:.1f} | {ratio:.2f} |")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
