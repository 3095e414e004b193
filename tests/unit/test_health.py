"""Health that names its parts: which of them decide about readiness."""

from __future__ import annotations

import pytest

from tracardi_lite.errors import Unavailable
from tracardi_lite.intake.health import Health
from tracardi_lite.testing.clock import FakeClock


async def fine() -> None:
    return


async def away() -> None:
    raise Unavailable("cache", "Redis: connection refused")


@pytest.mark.parametrize(("needed", "ready"), [(True, False), (False, True)])
async def test_a_part_that_can_be_done_without_is_reported_and_does_not_decide(needed: bool, ready: bool) -> None:
    health = Health(FakeClock())
    health.state = "serving"
    health.add("queue", fine)
    health.add("cache", away, needed=needed)
    is_ready, report = await health.check()
    assert is_ready is ready
    assert report["parts"] == {"queue": "ok", "cache": "Redis: connection refused"}
    assert report.get("failing") == (["cache"] if needed else None)
