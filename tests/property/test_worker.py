"""Any messages, any faults, in any order: what is left behind is as if nothing had gone wrong."""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Struct

from tests.rig import Rig
from tracardi_lite.errors import Unavailable
from tracardi_lite.ports.store import EventWrite, Outcome, RecordWrite, Verdict
from tracardi_lite.protocol.identity import Identity
from tracardi_lite.testing.faults import Crash, Fault

CALLS = ["lookup", "claim", "get", "create_events", "put", "repoint", "ack", "nack", "release"]
IDENTITY = Identity(["a secret for tests"])


class Hit(Struct):
    """One call of a visitor."""

    visitor: int
    types: tuple[str, ...]
    door: str
    """What the door answered: the session's derived profile, another that it issued, or one that was sent."""
    id: int | None
    """Of the first event, if the client gives one: small, so that calls repeat each other's."""
    pause_s: int


hits = st.builds(
    Hit,
    visitor=st.integers(0, 3),
    types=st.lists(st.sampled_from(["page-view", "sign-up", "visit-ended", "custom"]), min_size=1, max_size=4).map(
        tuple
    ),
    door=st.sampled_from(["derived", "derived", "derived", "issued", "sent"]),
    id=st.none() | st.integers(0, 5),
    pause_s=st.sampled_from([0, 0, 1, 1000, 2000]),
)
faults = st.builds(
    Fault,
    call=st.sampled_from(CALLS),
    error=st.builds(Crash) | st.builds(Unavailable, st.just("store"), st.just("away"), st.just(0.001)),
    when=st.sampled_from(["before", "after"]),
    skip=st.integers(0, 6),
    times=st.integers(1, 2),
)


async def send(rig: Rig, hit: Hit, number: int, at_ms: int) -> None:
    session = f"s{hit.visitor}"
    profile = {
        "derived": IDENTITY.derive(session),
        "issued": f"issued-{number}",
        "sent": f"sent-{hit.visitor % 2}",
    }[hit.door]
    events: list[dict[str, Any]] = [
        {"type": type, "properties": {"n": f"{number}-{i}"}} for i, type in enumerate(hit.types)
    ]
    if hit.id is not None:
        events[0]["id"] = f"mine-{hit.visitor}-{hit.id}"
    await rig.send(
        events=events,
        session=session,
        profile=profile,
        received_ms=at_ms,
        issued=hit.door != "sent",
        message=f"message-{number}",
    )


async def everything(hits: list[Hit], faults: list[Fault], refusals: int, repeat: int, workers: int) -> None:
    async with Rig(workers=workers, bulk_idle=0.001, retry_delay=0.01, retry_delay_max=0.01, bulk_size=7) as rig:
        rig.faults.add(*faults)
        left = refusals

        def refuse(write: EventWrite | RecordWrite) -> Verdict | None:
            nonlocal left
            left -= 1
            return Verdict(Outcome.RETRY, "busy") if left >= 0 and left % 2 else None

        rig.faults.refuse = refuse
        rig.faults.repeat = lambda message: repeat and hash(message.position) % repeat == 0
        at_ms = 1_800_000_000_000
        for number, hit in enumerate(hits):
            at_ms += hit.pause_s * 1000 + 1
            await send(rig, hit, number, at_ms)
        await rig.drain()
        await check(rig, hits)


async def check(rig: Rig, hits: list[Hit]) -> None:
    await rig.audit()
    assert not await rig.queue.dead_letters()

    # Each event once: those without an id of their own all, the others once per id.
    wanted: Counter[str] = Counter()
    for number, hit in enumerate(hits):
        for index in range(len(hit.types)):
            if index or hit.id is None:
                wanted[f"{number}-{index}"] += 1
    events = await rig.events()
    stored = Counter(event["properties"]["n"] for event in events if not event["id"].startswith("mine-"))
    assert stored == wanted
    named = Counter(event["id"] for event in events if event["id"].startswith("mine-"))
    assert named == {f"mine-{hit.visitor}-{hit.id}": 1 for hit in hits if hit.id is not None}

    # One session, one profile; every id that was ever answered leads to a profile.
    owners: dict[str, set[str]] = {}
    for event in await rig.records("event"):
        owners.setdefault(event["session"]["id"], set()).add(event["profile"]["id"])
    assert all(len(profiles) == 1 for profiles in owners.values()), owners
    profiles = {profile["id"] for profile in await rig.records("profile")}
    for session in await rig.records("session"):
        assert session["profile"]["id"] in profiles


@settings(max_examples=120)
@given(
    st.lists(hits, min_size=1, max_size=12),
    st.lists(faults, max_size=6),
    st.integers(0, 12),
    st.sampled_from([0, 1, 2, 3]),
    st.integers(1, 3),
)
def test_faults_leave_no_trace(hits: list[Hit], faults: list[Fault], refusals: int, repeat: int, workers: int) -> None:
    asyncio.run(everything(hits, faults, refusals, repeat, workers))
