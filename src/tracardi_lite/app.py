"""The composition root: the one room with a door to every other.

Opens the backends, starts the parts that the role asks for, and closes them in the reverse order: readiness goes false,
the port closes, requests finish, the worker drains and flushes, acknowledgements are written, backends close. All of it
within ``SHUTDOWN_TIMEOUT``; what isn't done by then comes again from the queue.
"""

from __future__ import annotations

import asyncio
import errno
import gc
import secrets
import signal
import socket
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from functools import partial
from typing import TypeVar
from uuid import uuid4

import msgspec
import structlog
import uvloop
from aiohttp import web
from msgspec import Struct

from tracardi_lite import __version__, data_dir, logs, wiring
from tracardi_lite.admin import AdminContext, add_admin_routes, for_administrators
from tracardi_lite.clock import SystemClock
from tracardi_lite.errors import Full, Misconfigured, TryLater
from tracardi_lite.install import IDENTITY_SECRET, InstallReport, install
from tracardi_lite.intake import server
from tracardi_lite.intake.admission import Admission
from tracardi_lite.intake.bindings import Bindings
from tracardi_lite.intake.collector import Collector
from tracardi_lite.intake.door import Door, InFlight
from tracardi_lite.intake.express import Lane
from tracardi_lite.intake.health import Health
from tracardi_lite.intake.refusals import Refusals
from tracardi_lite.intake.site import Site
from tracardi_lite.intake.sources import Sources
from tracardi_lite.lifecycle.keeper import Keeper
from tracardi_lite.metrics import Metrics
from tracardi_lite.pipeline.event_types import EventTypes, load_custom
from tracardi_lite.pipeline.merging.keys import key_finder
from tracardi_lite.pipeline.profile import expand
from tracardi_lite.pipeline.rules.dry_run import Desk
from tracardi_lite.pipeline.rules.live import LiveRules, compliance_key, switches
from tracardi_lite.pipeline.user_agent import is_bot
from tracardi_lite.pipeline.worker import Worker
from tracardi_lite.ports.cache import Cache
from tracardi_lite.ports.queue import Queue
from tracardi_lite.ports.registry import Registry
from tracardi_lite.ports.store import Store
from tracardi_lite.protocol.identity import Identity
from tracardi_lite.provision import embedded
from tracardi_lite.settings import Settings
from tracardi_lite.settings.schema import DEFAULT_MERGING_SECRET
from tracardi_lite.tracker import asset
from tracardi_lite.waiting import Patience, ready

T = TypeVar("T")

log = structlog.get_logger(__name__)

Announce = Callable[[Settings, InstallReport, str | None], None]
"""(settings, what the installation did, address) → tells the operator; called once, when requests are answered, or,
with None for the address, when the start failed after an installation that made a password."""

REFUSALS_EVERY_S = 1.0
MAINTAIN_EVERY_S = 30.0
GLANCE_S = 3.0
# Room that closing the backends gets out of SHUTDOWN_TIMEOUT.
CLOSING_S = 2.0
BACKLOG = 1024
# A server allocates a lot and keeps little: rarer collections cost less, and what start-up made never dies.
GC_THRESHOLDS = (20_000, 50, 100)


class Parts(Struct):
    """What a role is made of."""

    settings: Settings
    clock: SystemClock
    metrics: Metrics
    health: Health
    registry: Registry
    queue: Queue
    store: Store
    cache: Cache
    refusals: Refusals
    worker: Worker | None
    rules: LiveRules | None
    """Of the worker."""


def run(settings: Settings, announce: Announce) -> int:
    """Serve until SIGTERM or SIGINT. 0 after an orderly end, 1 when a part failed.

    Raises Misconfigured (or another TracardiLiteError) when it can't start.
    """
    with logs.configure(settings.logging_level, settings.logging_format):
        return uvloop.run(_serve(settings, announce))


async def _serve(settings: Settings, announce: Announce) -> int:
    stop = _stop_on_signals()
    async with AsyncExitStack() as stack:
        # Before anything is made: a port that is taken is the commonest reason why a first start fails.
        listening = _listen(settings)
        stack.callback(listening.close)
        data_dir.prepare(settings)
        registry = await stack.enter_async_context(wiring.open_registry(settings))
        patience = Patience(settings.wait_for_dependencies, SystemClock(), stop)
        report = await _when_ready("registry", settings, patience, lambda: install(settings, registry))
        try:
            parts = await _open(settings, registry, stack, patience)
            site = await _site(parts, patience)
            stack.push_async_callback(site.close)
            try:
                # Of two processes that bind one port at the same time, the second learns of it here; from uvloop,
                # which listens for itself too, nobody would.
                listening.listen(BACKLOG)
            except OSError as error:
                raise _cannot_listen(settings, listening.getsockname()[1], error) from error
            await site.open(listening, BACKLOG)
        except BaseException:
            if report.password is not None:
                # It is kept nowhere in clear: unsaid now, nobody would ever know it.
                announce(settings, report, None)
            raise

        drain = asyncio.Event()
        tasks = {asyncio.create_task(_housekeeping(parts), name="housekeeping")}
        if parts.worker is not None:
            tasks.add(asyncio.create_task(parts.worker.run(drain), name="worker"))
            tasks.add(asyncio.create_task(parts.worker.repointer.run(drain), name="repointer"))
            keeper = Keeper(parts.store, settings, parts.clock, str(uuid4()))
            tasks.add(asyncio.create_task(keeper.run(drain), name="lifecycle"))
        if parts.rules is not None:
            tasks.add(asyncio.create_task(parts.rules.run(drain), name="rules"))
        gc.collect()
        gc.freeze()
        gc.set_threshold(*GC_THRESHOLDS)
        parts.health.state = "serving"
        announce(settings, report, _address(listening))
        log.info("started", version=__version__, role=settings.role, address=_address(listening))

        stopping = asyncio.create_task(stop.wait(), name="stop")
        await asyncio.wait({stopping, *tasks}, return_when=asyncio.FIRST_COMPLETED)
        code = 0
        for task in tasks:
            if task.done():
                code = 1
                log.error("part_failed", part=task.get_name(), exc_info=task.exception())
        stopping.cancel()
        code |= await _close(parts, site, tasks, drain)
    log.info("stopped")
    return code


def _stop_on_signals() -> asyncio.Event:
    """Set by the first SIGTERM or SIGINT; a second one of the same kind ends the process at once."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()

    def begin(number: signal.Signals) -> None:
        stop.set()
        loop.remove_signal_handler(number)
        signal.signal(number, signal.SIG_DFL)

    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, begin, number)
    return stop


async def _when_ready(part: str, settings: Settings, patience: Patience, attempt: Callable[[], Awaitable[T]]) -> T:
    """Servers may start together with us; what is embedded answers or fails at once."""
    if embedded(getattr(settings, f"{part}_url")):
        return await attempt()
    return await patience.ready(part, attempt)


async def _answers(part: str, ping: Callable[[], Awaitable[None]]) -> None:
    """A server that has no room is there, and recovers without a restart."""
    try:
        await ping()
    except Full as error:
        log.warning("going_on_without", part=part, reason=error.reason)


async def _glance(part: str, ping: Callable[[], Awaitable[None]]) -> None:
    """What can be done without for a while is not waited for: the door stays open. That it is away is said."""
    try:
        async with asyncio.timeout(GLANCE_S):
            await ready(part, ping, 0.0, SystemClock(), asyncio.Event())
    except TimeoutError:
        log.warning("going_on_without", part=part, reason=f"no answer within {GLANCE_S:g} s")
    except TryLater as error:
        log.warning("going_on_without", part=part, reason=error.reason)


async def _open(settings: Settings, registry: Registry, stack: AsyncExitStack, patience: Patience) -> Parts:
    clock, metrics = SystemClock(), Metrics()
    if settings.apm and settings.auto_profile_merging == DEFAULT_MERGING_SECRET:
        log.warning(
            "default_merging_secret", fix="fine for a trial; before real customers come, set AUTO_PROFILE_MERGING"
        )
    queue = await _when_ready(
        "queue", settings, patience, lambda: stack.enter_async_context(wiring.open_queue(settings))
    )
    store = await stack.enter_async_context(wiring.open_store(settings))
    if settings.role == "worker" and not embedded(settings.store_url):
        await patience.ready("store", partial(_answers, "store", store.ping))
    else:
        await _glance("store", store.ping)
    cache = await stack.enter_async_context(wiring.open_cache(settings))
    await _glance("cache", cache.ping)
    health = Health(clock)
    health.add("cache", cache.ping, needed=False)
    health.add("queue", queue.ping)
    worker = rules = None
    if settings.role != "api":
        worker = Worker(queue, store, cache, settings, clock, _event_types(settings), metrics)
        rules = LiveRules(registry, settings, clock, metrics, worker.book.use)
        # It was there a moment ago, and may be away again: a start that waits, waits each time.
        await _when_ready("registry", settings, patience, rules.load)
        health.add("store", store.ping)

        async def working() -> None:
            assert worker is not None
            if problem := worker.stats.problem(clock.monotonic()):
                raise TryLater("worker", problem)

        health.add("worker", working)
    return Parts(settings, clock, metrics, health, registry, queue, store, cache, Refusals(), worker, rules)


def _event_types(settings: Settings) -> EventTypes:
    custom = load_custom(settings.event_types_file) if settings.event_types_file else []
    return EventTypes(custom=custom)


async def _site(parts: Parts, patience: Patience) -> Site:
    """Health and metrics for every role; the collector, the admin API and the tracker for an API."""
    settings, registry = parts.settings, parts.registry
    app = web.Application(client_max_size=settings.body_max)

    async def metrics() -> bytes:
        try:
            totals, backlog = await parts.queue.totals(rough=True), await parts.queue.backlog(rough=True)
        except TryLater:
            # The page without the ledger says more than no page.
            return parts.metrics.render()
        return parts.metrics.render(totals, backlog)

    instance = str(uuid4())
    hashing = await _when_ready("registry", settings, patience, lambda: compliance_key(registry))
    sources = Sources(parts.registry, parts.clock, settings.source_cache_ttl, check=settings.enable_event_source_check)
    admin = AdminContext(
        settings=settings,
        registry=parts.registry,
        store=parts.store,
        queue=parts.queue,
        clock=parts.clock,
        version=__version__,
        instance=instance,
        source_changed=sources.forget,
        rules=Desk(_event_types(settings), hashing, switches(settings)),
        rules_changed=parts.rules.changed if parts.rules is not None else _nobody_asks,
        whole_profile=_whole_profile,
    )
    make_lane = None
    if settings.role != "worker":
        new = partial(secrets.token_urlsafe, 32)
        secret = await _when_ready("registry", settings, patience, lambda: registry.secret(IDENTITY_SECRET, new))
        identity = Identity(secret)
        bindings = Bindings(
            parts.store,
            parts.cache,
            parts.clock,
            parts.metrics,
            settings.directory_cache_size,
            profile_ttl_s=settings.keep_profile_in_cache_for,
            session_ttl_s=settings.keep_session_in_cache_for,
        )
        admission = Admission(identity, bindings, parts.clock, instance)
        door = Door(settings, sources, admission, parts.refusals, is_bot)
        in_flight = InFlight(parts.metrics.in_flight_bytes, settings.in_flight_max)
        collector = Collector(
            settings,
            parts.queue,
            parts.registry,
            door,
            admission,
            identity,
            in_flight,
            parts.metrics,
            find_key=key_finder(_event_types(settings)),
        )
        make_lane = partial(Lane, settings, door, parts.queue, in_flight, parts.metrics, parts.clock)
        app.add_routes(collector.routes())
        add_admin_routes(app, admin)
        server.add_tracker_routes(app, asset, settings.tracker_dir)
    if settings.metrics_public:
        server.add_health_routes(app, parts.health, metrics)
    else:
        server.add_health_routes(app, parts.health, metrics, lambda handler: for_administrators(admin, handler))
    server.finish(app)
    return Site(app, max(1.0, settings.shutdown_timeout / 2), make_lane)


def _nobody_asks() -> None:
    """Rules that were changed on a process without a worker."""


def _whole_profile(document: bytes) -> bytes:
    return msgspec.json.encode(expand(msgspec.json.decode(document)))


def _listen(settings: Settings) -> socket.socket:
    """The listening socket. A worker's port is only for its health and metrics: when it is taken, any other will do."""
    port = settings.worker_port if settings.role == "worker" else settings.port
    try:
        return _bound(settings, port)
    except OSError as error:
        if error.errno == errno.EADDRINUSE and settings.role == "worker":
            log.warning("port_taken", port=port, using="a free one")
            return _bound(settings, 0)
        raise _cannot_listen(settings, port, error) from error


def _cannot_listen(settings: Settings, port: int, error: OSError) -> Misconfigured:
    if error.errno != errno.EADDRINUSE:
        return Misconfigured("host", f"can't listen on {settings.host}: {error.strerror}.")
    return Misconfigured(
        "port",
        f"{settings.host}:{port} is in use.",
        "Choose another with --port, or share it among processes of this program with --reuse-port on each.",
    )


def _bound(settings: Settings, port: int) -> socket.socket:
    family, kind, proto, _, address = socket.getaddrinfo(
        settings.host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    listening = socket.socket(family, kind, proto)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if settings.reuse_port:
            listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        listening.bind(address)
        listening.setblocking(False)
    except OSError:
        listening.close()
        raise
    return listening


def _address(listening: socket.socket) -> str:
    host, port = listening.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


async def _housekeeping(parts: Parts) -> None:
    """What happens now and then: refusals into the ledger, retention. Faults here are logged and tried again."""
    next_maintain = parts.clock.monotonic() + MAINTAIN_EVERY_S
    while True:
        await parts.clock.sleep(REFUSALS_EVERY_S)
        try:
            await parts.refusals.hand_over(parts.queue.note_refused)
            if parts.clock.monotonic() >= next_maintain:
                next_maintain = parts.clock.monotonic() + MAINTAIN_EVERY_S
                await parts.queue.maintain()
        except TryLater as error:
            log.warning("housekeeping_put_off", reason=str(error))


async def _close(parts: Parts, site: Site, tasks: set[asyncio.Task[None]], drain: asyncio.Event) -> int:
    """Stop accepting, finish requests, drain the worker. 1 when something had to be left to redelivery."""
    settings, clock = parts.settings, parts.clock
    parts.health.state = "stopping"
    if settings.shutdown_delay:
        await clock.sleep(settings.shutdown_delay)
    deadline = clock.monotonic() + settings.shutdown_timeout - CLOSING_S
    await site.close()
    drain.set()
    code = 0
    for task in tasks:
        if task.get_name() == "housekeeping":
            task.cancel()
    _, late = await asyncio.wait(tasks, timeout=max(0.1, deadline - clock.monotonic()))
    for task in late:
        code = 1
        log.error("part_not_drained", part=task.get_name(), fix="raise SHUTDOWN_TIMEOUT; the queue has what is left")
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    try:
        await parts.refusals.hand_over(parts.queue.note_refused)
    except TryLater as error:
        log.warning("refusals_not_counted", reason=str(error))
    return code
