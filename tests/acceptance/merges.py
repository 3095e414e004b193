"""A merge by one process, seen by another: once it stands in the store, no answer may name the profile that is gone.

Nothing waits here after the merge is visible: the very next call is judged.
"""

from __future__ import annotations

import asyncio
import random

from tests.acceptance.oracle import Oracle
from tests.acceptance.program import Failed
from tracardi_lite.client import AsyncClient, Event

WITHIN_S = 30.0


async def is_answered_at_once(oracle: Oracle, door: AsyncClient, seed: int, *, rounds: int) -> None:
    random_ = random.Random(seed)
    for number in range(rounds):
        await _one(oracle, door, f"{seed}-{number}", f"joe-{random_.getrandbits(64):x}@example.com")


async def _one(oracle: Oracle, door: AsyncClient, name: str, mail: str) -> None:
    sign_up = [("sign-up", {"email": {"main": mail}})]
    older = await _profile_of(door, f"older-{name}", *sign_up)
    await _meaning(oracle, f"p:{older}", older)
    younger = await _profile_of(door, f"younger-{name}", ("page-view", {}))
    await _meaning(oracle, f"p:{younger}", younger)
    assert older != younger
    # The door knows the younger one by heart now, and the worker learns that it is nobody of its own.
    assert await _profile_of(door, f"younger-{name}", *sign_up) == younger
    await _meaning(oracle, f"p:{younger}", older, door, f"younger-{name}")
    answers = [
        await _profile_of(door, f"younger-{name}", ("page-view", {})),
        await _profile_of(door, f"new-{name}", ("page-view", {}), profile=younger),
    ]
    assert answers == [older, older], f"merged in the store, and still answered: {younger}"


async def _profile_of(
    door: AsyncClient, session: str, *events: tuple[str, dict[str, object]], profile: str = ""
) -> str:
    sent = [Event(type, properties) for type, properties in events]
    receipt = await door.send(sent, session_id=session, profile_id=profile or None)
    assert receipt.profile_id is not None
    return receipt.profile_id


async def _meaning(oracle: Oracle, key: str, target: str, door: AsyncClient | None = None, session: str = "") -> None:
    """Waits until the store says that this is what a key means, as closely as it can be watched. With a door, it is
    asked all the time, so that it remembers what was true a moment ago."""
    deadline = asyncio.get_running_loop().time() + WITHIN_S
    while True:
        [entry] = await oracle.store.lookup([key])
        if entry is not None and entry.target == target:
            return
        if asyncio.get_running_loop().time() > deadline:
            raise Failed(f"{key} means {entry}, not {target}, after {WITHIN_S:g} s")
        if door is not None:
            await _profile_of(door, session, ("page-view", {}))
