"""The rules of the registry, compiled, and in step with it: what a worker runs beside its lanes.

Asked for is one number (``rules_revision``), every half of ``rules_cache_ttl``; the rules are read, and compiled in a
thread, only when it has grown. So a change acts within the time that the setting says, and costs the lanes nothing.

While the registry is away the last rules serve on, ``stale``; a stored rule that can't be compiled is left out, with an
error in the log that names it, once per revision. Bounds: ``RULES_MAX`` rules, one read and one compilation at a time.
"""

from __future__ import annotations

import asyncio
import contextlib
import secrets
from collections.abc import Callable
from functools import partial

import structlog

from tracardi_lite.clock import Clock
from tracardi_lite.errors import TryLater
from tracardi_lite.metrics import Metrics
from tracardi_lite.pipeline.rules.ruleset import RuleSet, Switches, compile_rules
from tracardi_lite.ports.registry import Registry
from tracardi_lite.settings import Settings

log = structlog.get_logger(__name__)

PERIOD_MIN_S = 0.1
COMPLIANCE_SECRET = "field-hashing"  # noqa: S105 - its name, not the secret
"""The registry's secret that keys compliance's hashes. Never rotated: a hash has to stay the same for ever."""


def switches(settings: Settings) -> Switches:
    """Which kinds of rules the settings let act."""
    return Switches(
        validation=settings.enable_event_validation,
        reshaping=settings.enable_event_reshaping,
        mapping=settings.enable_event_mapping,
        identification=settings.enable_identification_point,
    )


async def compliance_key(registry: Registry) -> bytes:
    """The key of the installation's hashes, made when first asked for. Raises ``Unavailable``."""
    return (await registry.secret(COMPLIANCE_SECRET, partial(secrets.token_urlsafe, 32)))[-1].encode()


class LiveRules:
    """``await load()``, then ``run`` beside the worker."""

    def __init__(
        self, registry: Registry, settings: Settings, clock: Clock, metrics: Metrics, use: Callable[[RuleSet], None]
    ) -> None:
        self._registry = registry
        self._switches = switches(settings)
        self._period_s = max(PERIOD_MIN_S, settings.rules_cache_ttl / 2)
        self._clock = clock
        self._metrics = metrics
        self._use = use
        self._key: bytes | None = None
        self._revision = -1
        self._wake = asyncio.Event()
        self.stale = False
        """The registry was away when last asked."""

    async def load(self) -> None:
        """Take the rules as they are now. Raises ``Unavailable``: a worker does not start without knowing its rules."""
        # Before the rules: what was read is then at least this revision's, and a later change is seen as one.
        revision = await self._registry.rules_revision()
        if revision == self._revision:
            return
        if self._key is None:
            self._key = await compliance_key(self._registry)
        rules = await self._registry.rules()
        compiled = await asyncio.to_thread(compile_rules, rules, self._key, self._switches)
        for rule, fault in compiled.broken:
            log.error("rule_broken", kind=rule.kind, rule=rule.id, reason=str(fault), fix="save it anew or delete it")
        self._use(compiled)
        self._revision = revision
        self._metrics.rules_active.value = len(compiled.rules)
        self._metrics.rules_broken.value = len(compiled.broken)
        log.info("rules_loaded", revision=revision, active=len(compiled.rules), broken=len(compiled.broken))

    def changed(self) -> None:
        """A rule was changed by this very process: look at once."""
        self._wake.set()

    async def run(self, stop: asyncio.Event) -> None:
        """Keep the rules in step until ``stop``. Ends by itself only then."""
        stopping = asyncio.create_task(stop.wait())
        try:
            while not stop.is_set():
                await self._pause(stopping)
                if not stop.is_set():
                    await self._follow()
        finally:
            stopping.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await stopping

    async def _pause(self, stopping: asyncio.Task[bool]) -> None:
        timer = asyncio.create_task(self._clock.sleep(self._period_s))
        waking = asyncio.create_task(self._wake.wait())
        try:
            await asyncio.wait({timer, waking, stopping}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            timer.cancel()
            waking.cancel()
            await asyncio.gather(timer, waking, return_exceptions=True)
        self._wake.clear()

    async def _follow(self) -> None:
        try:
            await self.load()
        except TryLater as error:
            if not self.stale:
                log.warning("rules_stale", reason=str(error))
            self.stale = True
        except Exception:
            # A record that nobody of ours wrote, or a bug. The rules that are there are better than no worker.
            if not self.stale:
                log.exception("rules_unreadable", fix="list them with `tracardi-lite rules list`")
            self.stale = True
        else:
            if self.stale:
                log.info("rules_fresh")
            self.stale = False
        self._metrics.rules_stale.value = int(self.stale)
