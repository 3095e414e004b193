"""What a visitor brings from another domain, as the door takes it."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from msgspec import UNSET, Raw

from tracardi_lite.clock import SystemClock
from tracardi_lite.errors import Unavailable
from tracardi_lite.intake import steps
from tracardi_lite.intake.passes import passed_profile
from tracardi_lite.intake.sources import Sources
from tracardi_lite.ports.registry import EventSource


class Rules:
    away = False

    async def source(self, id: str) -> EventSource | None:
        if self.away:
            raise Unavailable("registry", "away")
        known = {"shop": EventSource(id="shop"), "closed": EventSource(id="closed", enabled=False)}
        return known.get(id)


def sources(rules: Rules | None = None) -> Sources:
    return Sources(rules or Rules(), SystemClock(), 2.0)  # type: ignore[arg-type]


def context(handed: object) -> Raw:
    return Raw(msgspec.json.encode({"time": {"tz": "UTC"}, "tracardi": {"pass": handed}}))


async def test_a_profile_from_a_source_of_ours_is_passed_on() -> None:
    assert await steps.run(passed_profile(context({"profile": "p9", "source": "shop"}), sources())) == "p9"


@pytest.mark.parametrize(
    "handed",
    [
        {"profile": "p9", "source": "unknown"},
        {"profile": "p9", "source": "closed"},
        {"profile": "p9", "source": "@internal-1"},
        {"profile": "", "source": "shop"},
        {"profile": "p" * 257, "source": "shop"},
        {"profile": 9, "source": "shop"},
        {"profile": "p9"},
        None,
        "p9",
    ],
)
async def test_anything_else_is_passed_over(handed: Any) -> None:
    assert await steps.run(passed_profile(context(handed), sources())) is None


async def test_a_call_without_a_pass_costs_no_decoding() -> None:
    assert await steps.run(passed_profile(UNSET, sources())) is None
    assert await steps.run(passed_profile(Raw(b'{"page":"x"}'), sources())) is None


async def test_a_registry_that_is_away_costs_the_pass_and_not_the_call() -> None:
    rules = Rules()
    rules.away = True
    assert await steps.run(passed_profile(context({"profile": "p9", "source": "shop"}), sources(rules))) is None
