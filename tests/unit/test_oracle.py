"""The acceptance tests' judge catches each kind of wrong: a judge that can't convict proves nothing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from tests.acceptance.load import Event, Load
from tests.acceptance.oracle import Judgement
from tracardi_lite.ports.queue import Totals

Case = dict[str, Any]


def fair() -> Case:
    """Two answered events of one session, one without an answer that was not stored, all in order."""
    load = Load(list, seed=1)
    for nonce in ("a", "b"):
        load.obligations[nonce] = Event(nonce, "thing-done", {"nonce": nonce}, f"id-{nonce}", "s", "p", "task")
    load.perhaps["c"] = Event("c", "thing-done", {"nonce": "c"}, "id-c")
    load.profiles["s"] = {"p"}
    events = [
        {
            "id": f"id-{nonce}",
            "type": "thing-done",
            "source": {"id": "default"},
            "session": {"id": "s"},
            "profile": {"id": "p"},
            "properties": {"nonce": nonce},
        }
        for nonce in ("a", "b")
    ]
    events += [
        {"id": kind, "type": kind, "source": {"id": "@internal"}, "session": {"id": "s"}, "profile": {"id": "p"}}
        for kind in ("profile-created", "session-opened", "visit-started")
    ]
    profile = {"id": "p", "stats": {"counters": {"events": 2}}, "metadata": {"time": {"visit": {"count": 1}}}}
    return {
        "load": load,
        "events": events,
        "profiles": [profile],
        "sessions": [{"id": "s", "profile": {"id": "p"}}],
        "totals": Totals(received=2, stored=2),
    }


def violations(case: Case) -> str:
    load = case.pop("load")
    return "\n".join(Judgement(**case).violations((load,)))


def test_a_fair_outcome_is_acquitted() -> None:
    assert violations(fair()) == ""


def test_an_event_without_an_answer_may_be_stored_once() -> None:
    case = fair()
    case["events"].append({**case["events"][0], "id": "id-c", "properties": {"nonce": "c"}})
    case["profiles"][0]["stats"]["counters"]["events"] = 3
    case["totals"] = Totals(received=3, stored=3)
    assert violations(case) == ""


WRONGS: dict[str, Callable[[Case], object]] = {
    "lost: ": lambda case: case["events"].pop(0),
    "stored 2 times": lambda case: case["events"].append({**case["events"][0], "id": "another"}),
    "event id id-a is stored 2 times": lambda case: case["events"].append(case["events"][0]),
    "never sent": lambda case: case["events"].append({**case["events"][0], "properties": {"nonce": "x"}}),
    "properties differ": lambda case: case["events"][0]["properties"].update(more=1),
    "sent with id id-a": lambda case: case["events"][0].update(id="made-up"),
    "sent as thing-done": lambda case: case["events"][0].update(type="other"),
    "answered session s and profile p": lambda case: case["events"][0].update(profile={"id": "q"}),
    "session s has the profiles ['p', 'q']": lambda case: case["load"].profiles["s"].add("q"),
    "session s names the profile {'p'}, which is not stored": lambda case: case["profiles"].clear(),
    "session s is not stored": lambda case: case["sessions"].clear(),
    "2 profile records for 1 ids": lambda case: case["profiles"].append(case["profiles"][0]),
    "2 session records for 1 ids": lambda case: case["sessions"].append(case["sessions"][0]),
    "profile p counts 3 events and has 2": lambda case: case["profiles"][0]["stats"]["counters"].update(events=3),
    "profile p was created 0 times": lambda case: case["events"].pop(2),
    "session s was opened 2 times": lambda case: case["events"].append({**case["events"][3], "id": "again"}),
    "profile p counts 1 visits, and 0 were started": lambda case: case["events"].pop(4),
    "the ledger does not add up: 3 came, 2 went": lambda case: case.update(totals=Totals(received=3, stored=2)),
    "the ledger says 3 stored, the store has 2": lambda case: case.update(totals=Totals(received=3, stored=3)),
    "unexpected answer: 500": lambda case: case["load"].unexpected.append("500: oops"),
}


@pytest.mark.parametrize("wrong", WRONGS)
def test_each_wrong_is_found(wrong: str) -> None:
    case = fair()
    WRONGS[wrong](case)
    assert wrong in violations(case)
