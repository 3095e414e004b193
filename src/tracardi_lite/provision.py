"""Installing in servers that are not ours: who may, what is made there, and what a dry run says of it.

``install`` brings the registry to what the settings need, and every start does that. Here is the rest, which only the
operator's ``tracardi-lite install`` does: topics, templates, first partitions and policies (``ports.provision``).
"""

from __future__ import annotations

from typing import Any

from tracardi_lite import wiring
from tracardi_lite.errors import Misconfigured
from tracardi_lite.install import EMBEDDED, check_merging, planned
from tracardi_lite.ports.provision import Provisioned
from tracardi_lite.settings import Settings


def embedded(url: str) -> bool:
    """Whether a backend is part of this process, and answers or fails at once."""
    return url.partition(":")[0] in EMBEDDED


def check_allowed(settings: Settings) -> None:
    """Servers that others use too are not changed by accident, nor with a secret that everybody knows."""
    check_merging(settings)
    if all(map(embedded, (settings.queue_url, settings.store_url, settings.registry_url))):
        return
    if not settings.installation_token:
        raise Misconfigured(
            "installation_token",
            "is not set, and what would be installed is not only in this machine's data directory.",
            "Choose one, and give it to install and to the servers as INSTALLATION_TOKEN.",
        )


async def provision(settings: Settings, *, dry_run: bool) -> list[str]:
    """Make what queue and store need; a line for each change. The queue goes first: it refuses more often."""
    lines: list[str] = []
    parts: list[tuple[str, Any]] = [("queue", wiring.open_queue(settings)), ("store", wiring.open_store(settings))]
    for name, part in parts:
        if isinstance(part, Provisioned):
            lines += [f"{name}: {line}" for line in await part.provision(dry_run=dry_run)]
        elif not dry_run:
            # Opened once, so that its files are there and a disk that can't hold them is found out now.
            async with part:
                pass
    return lines


async def plan(settings: Settings) -> list[str]:
    """What ``install`` would do, everywhere; nothing is changed."""
    registry = wiring.open_registry(settings)
    missing = await registry.provision(dry_run=True) if isinstance(registry, Provisioned) else []
    lines = [f"registry: {line}" for line in missing]
    if not missing:
        async with registry:
            lines += [f"registry: {line}" for line in await planned(settings, registry)]
    return lines + await provision(settings, dry_run=True)
