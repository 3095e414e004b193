"""A start whose registry goes away again between two of its questions."""

from __future__ import annotations

from asyncio import Event
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import msgspec
import pytest

from tracardi_lite import app, data_dir, settings, waiting, wiring
from tracardi_lite.clock import SystemClock
from tracardi_lite.errors import Unavailable
from tracardi_lite.install import install
from tracardi_lite.waiting import Patience


class Flickering:
    """A registry that is away the first time that it is asked for something."""

    def __init__(self, registry: Any) -> None:
        self._registry = registry
        self.refused: set[str] = set()

    def __getattr__(self, name: str) -> Callable[..., Awaitable[Any]]:
        async def ask(*arguments: Any, **options: Any) -> Any:
            if name not in self.refused:
                self.refused.add(name)
                raise Unavailable("registry", "connection refused")
            return await getattr(self._registry, name)(*arguments, **options)

        return ask


@pytest.mark.parametrize(("role", "asked"), [("api", {"secret"}), ("worker", {"secret", "rules_revision", "rules"})])
async def test_it_is_waited_for_each_time(
    role: str, asked: set[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(waiting, "PAUSE_S", 0.001)
    chosen = settings.load({"data_dir": str(tmp_path), "role": role}, {}).settings
    data_dir.prepare(chosen)
    async with AsyncExitStack() as stack:
        registry = await stack.enter_async_context(wiring.open_registry(chosen))
        await install(chosen, registry)
        served = msgspec.structs.replace(chosen, registry_url="mysql://elsewhere/tracardi")
        flickering, patience = Flickering(registry), Patience(30, SystemClock(), Event())
        parts = await app._open(served, flickering, stack, patience)  # type: ignore[arg-type]
        site = await app._site(parts, patience)
        await site.close()
    assert flickering.refused == asked
