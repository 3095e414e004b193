"""The collector: ``/track``, ``/collect`` and ``/redirect``. What is answered with 2xx is durably queued.

The hot path is ``track``: read, decode, admit, publish, answer, with no middleware around it. Every refusal is a 4xx
with a JSON ``detail``, every overload a 503 with Retry-After, and both are counted.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Coroutine
from time import perf_counter
from typing import Any, TypeVar

import structlog
from aiohttp import hdrs, web

from tracardi_lite.errors import BadInput, Full, TryLater
from tracardi_lite.intake import answer, webhook
from tracardi_lite.intake.admission import Admission, Visitor
from tracardi_lite.intake.decode import Decoded, EventError, all_refused, decode, not_an_object
from tracardi_lite.intake.headers import readable
from tracardi_lite.intake.passes import passed_profile
from tracardi_lite.intake.refusals import Refusals
from tracardi_lite.intake.sources import Gate, Sources
from tracardi_lite.metrics import Metrics
from tracardi_lite.ports.queue import Publication, Queue
from tracardi_lite.ports.registry import Registry
from tracardi_lite.protocol.envelope import Head, encode_head
from tracardi_lite.protocol.identity import Identity
from tracardi_lite.protocol.ids import event_id
from tracardi_lite.settings import Settings

log = structlog.get_logger(__name__)

Read = TypeVar("Read")
Handler = Callable[[web.Request], Awaitable[web.Response]]

SENSITIVE = frozenset({"authorization", "cookie", "proxy-authorization"})
TRACK_TYPES = ("rest", "javascript")
SESSION_COOKIE = "tracardi-session-id"
JSON_TYPE = "application/json"
# What curl -d says of any body. A form never begins with a brace.
CURL_TYPE = "application/x-www-form-urlencoded"
HEADERS_KEPT_MAX = 64
BODY_GUESS = 64 * 1024
RETRY_AFTER_MAX_S = 60
# When a request began (perf_counter), and how many bytes of ``in_flight_max`` it holds.
START = web.RequestKey("start", float)
HELD = web.RequestKey("held", int)
CLASSES = ("", "1xx", "2xx", "3xx", "4xx", "5xx")


class Collector:
    """The collector's handlers, over what they need. ``is_bot`` and ``find_key`` come from the pipeline's rules."""

    def __init__(
        self,
        settings: Settings,
        queue: Queue,
        registry: Registry,
        sources: Sources,
        admission: Admission,
        identity: Identity,
        refusals: Refusals,
        metrics: Metrics,
        *,
        is_bot: Callable[[str], bool],
        find_key: webhook.FindKey,
    ) -> None:
        self._settings = settings
        self._queue = queue
        self._registry = registry
        self._sources = sources
        self._admission = admission
        self._identity = identity
        self._refusals = refusals
        self._metrics = metrics
        self._in_flight = metrics.in_flight_bytes
        self._is_bot = is_bot
        self._find_key = find_key
        self._in_flight_max = settings.in_flight_max
        self._ip_header = settings.use_x_forwarded_ip

    def routes(self) -> list[web.RouteDef]:
        track = self._guarded(self.track, "track")
        collect = self._guarded(self.collect, "collect")
        redirect = self._guarded(self.redirect, "redirect")
        routes = [route(path, track) for path in ("/track", "/track/") for route in (web.post, web.put)]
        for path in ("/collect/{event_type}/{source_id}", "/collect/{event_type}/{source_id}/{session_id}"):
            routes += [web.post(path, collect), web.get(path, collect, allow_head=False)]
        for path in ("/redirect/{redirect_id}", "/redirect/{redirect_id}/{session_id}"):
            routes += [web.route(method, path, redirect) for method in ("GET", "POST", "PUT", "DELETE")]
        return routes

    # --- handlers ---

    async def track(self, request: web.Request) -> web.Response:
        body = await self._read(request)
        if not _is_json(request.headers.get(hdrs.CONTENT_TYPE), body):
            raise not_an_object()
        call = decode(body, self._settings.event_max)
        events = call.payload.events
        if not events:
            return web.Response(body=b"null", content_type="application/json", headers=self._headers(request))
        gate = await self._gate(request, call.payload.source.id, len(events), *TRACK_TYPES)
        profile_less = request.query.get("profile_less", "").lower() in ("true", "1", "yes", "on")
        return await self._take(request, call, body, gate, profile_less=profile_less)

    async def collect(self, request: web.Request) -> web.Response:
        event_type = request.match_info["event_type"]
        session = request.match_info.get("session_id", "").strip()
        gate = await self._gate(request, request.match_info["source_id"].strip(), 1, "webhook")
        properties = await self._properties(request)
        who = webhook.stand(gate, session, event_type, properties, self._identity, self._find_key)
        payload = webhook.payload_of(gate.id, event_type, properties, who.session, who.profile)
        call = decode(payload, self._settings.event_max)
        return await self._take(request, call, payload, who.gate, profile_less=who.profile_less)

    async def redirect(self, request: web.Request) -> web.Response:
        redirect = await self._registry.redirect(request.match_info["redirect_id"])
        if redirect is None:
            raise BadInput(404, f"Unknown redirect '{request.match_info['redirect_id'][:100]}'.")
        gate = await self._gate(request, redirect.source.id, 1, "redirect")
        session = request.match_info.get("session_id") or readable(request.cookies.get(SESSION_COOKIE, ""))
        try:
            posted = await self._properties(request) if request.can_read_body else {}
        except BadInput:
            # The visitor must get where the link leads, whatever was posted along.
            posted = {}
        known = session if session and await self._admission.knows(session) else ""
        query = webhook.query_properties(request)
        properties = webhook.redirect_properties(redirect, query, posted, session or None)
        payload = webhook.payload_of(gate.id, redirect.event_type, properties, known, tags=redirect.tags)
        call = decode(payload, self._settings.event_max)
        await self._take(request, call, payload, gate, profile_less=not known)
        return web.Response(
            status=307, headers={hdrs.LOCATION: redirect.url, hdrs.CACHE_CONTROL: "no-store", **self._headers(request)}
        )

    # --- steps ---

    async def _properties(self, request: web.Request) -> dict[str, Any]:
        """A webhook's event properties: the query of a GET, the body of anything else."""
        if request.method == hdrs.METH_GET:
            return webhook.query_properties(request)
        if request.content_type == webhook.MULTIPART_TYPE:
            return await self._arrived(request, webhook.multipart_properties(request))
        return webhook.body_properties(request.content_type, await self._read(request))

    async def _read(self, request: web.Request) -> bytes:
        """The whole body, decompressed, within every bound."""
        body = await self._arrived(request, request.read())
        if request.content_length != len(body):
            self._hold(request, len(body))
        return body

    async def _arrived(self, request: web.Request, reading: Coroutine[Any, Any, Read]) -> Read:
        """What ``reading`` makes of the body, within every bound (size, memory of all that is in flight, time).

        What it takes of ``in_flight_max`` is held until the request is answered.
        """
        length = request.content_length
        try:
            # A body of unannounced or compressed length is only known when it is read: until then it counts as small.
            self._hold(request, BODY_GUESS if length is None else length)
        except Full:
            reading.close()
            raise
        try:
            if request.content.is_eof():
                return await reading
            async with asyncio.timeout(self._settings.request_timeout):
                return await reading
        except TimeoutError as error:
            raise BadInput(408, f"The body did not arrive within {self._settings.request_timeout:g} s.") from error
        except web.HTTPRequestEntityTooLarge as error:
            raise BadInput(413, f"The body is larger than {self._settings.body_max} bytes.") from error
        except web.RequestPayloadError as error:
            raise BadInput(400, "The body can't be read: broken Content-Encoding or transfer.") from error

    def _hold(self, request: web.Request, size: int) -> None:
        """Count ``size`` bytes as in flight for this request, instead of what it held; Full when that is too much."""
        more = size - request[HELD]
        if more > 0 and self._in_flight.value + more > self._in_flight_max:
            raise Full("intake", "too many bodies in flight")
        self._in_flight.value += more
        request[HELD] = size

    async def _gate(self, request: web.Request, id: str, events: int, *types: str) -> Gate:
        """The source, open for this call; whatever is refused here is counted with its events."""
        try:
            gate = self._sources.peek(id)
            if gate is None:
                gate = await self._sources.get(id)
            gate.admit(*types)
            if self._settings.disallow_bot_traffic:
                agent = request.headers.get(hdrs.USER_AGENT)
                if agent is not None and self._is_bot(agent):
                    self._refusals.add("bot", events)
                    raise BadInput(401, "Traffic from bot is not allowed.")
        except BadInput as error:
            if error.status == 401 and error.detail != "Traffic from bot is not allowed.":
                self._refusals.add("source", events)
            raise
        return gate

    async def _take(
        self, request: web.Request, call: Decoded, body: bytes, gate: Gate, *, profile_less: bool
    ) -> web.Response:
        """Admit, publish, answer. When this returns, the events that the answer accepts are durable."""
        events = call.payload.events
        if len(events) > self._settings.events_per_call_max:
            self._refusals.add("too_many", len(events))
            raise BadInput(413, f"{len(events)} events in one call; at most {self._settings.events_per_call_max}.")
        if call.errors:
            self._count_errors(call.errors)
            if len(call.errors) == len(events):
                raise all_refused(call.errors)
        head = await self._admission.admit(call, gate, self._visitor(request), profile_less=profile_less)
        if head.profile is not None:
            head.passed = await passed_profile(call.payload.context, self._sources)
        start = perf_counter()
        await self._queue.publish(
            Publication(head.profile or head.id, encode_head(head), body, len(events) - len(call.errors))
        )
        self._metrics.publish_seconds.observe(perf_counter() - start)
        return web.Response(
            body=answer.track_body(head, call.errors, self._debugged(call, head)),
            status=self._status(call),
            content_type="application/json",
            headers=self._headers(request),
        )

    def _count_errors(self, errors: list[EventError]) -> None:
        for error in errors:
            self._refusals.add(error.reason, 1)

    @staticmethod
    def _status(call: Decoded) -> int:
        if call.errors:
            return 226
        options = call.payload.options
        return 201 if options is not None and options.queue else 200

    def _debugged(self, call: Decoded, head: Head) -> list[str]:
        """The ids of the accepted events, for callers that may see them (§1.4 ``debugger``)."""
        options = call.payload.options
        if not self._settings.track_debug or options is None or not options.debugger:
            return []
        refused = set(head.skip)
        return [
            event.id or event_id(head.id, index)
            for index, event in enumerate(call.payload.events)
            if index not in refused
        ]

    def _visitor(self, request: web.Request) -> Visitor:
        headers: dict[str, str] = {}
        for name, value in request.headers.items():
            name = name.lower()
            if name not in SENSITIVE and len(headers) < HEADERS_KEPT_MAX:
                headers[name] = readable(value)
        return Visitor(self._ip(request), headers)

    def _ip(self, request: web.Request) -> str | None:
        if self._ip_header:
            # The first hop of a list is the client, as the proxy that we are told to trust wrote it.
            forwarded = request.headers.get(self._ip_header, "").partition(",")[0].strip()
            if forwarded:
                return readable(forwarded)[:64]
        return request.remote

    @staticmethod
    def _headers(request: web.Request) -> dict[str, str]:
        headers = answer.cors(request)
        headers["X-Process-Time"] = f"{perf_counter() - request[START]:.6f}"
        context = request.headers.get("X-Context")
        if context is not None:
            headers["X-Context"] = context
        return headers

    def _guarded(self, handler: Handler, route: str) -> Handler:
        """Turn errors into answers and count what happened. The only wrapper that the hot path has."""
        metrics = self._metrics
        requests, seconds, unavailable = metrics.requests, metrics.request_seconds, metrics.unavailable
        in_flight = self._in_flight

        async def guarded(request: web.Request) -> web.Response:
            start = request[START] = perf_counter()
            request[HELD] = 0
            try:
                response = await handler(request)
            except BadInput as error:
                response = answer.json_answer({"detail": error.detail}, error.status, self._headers(request))
                if error.status in (408, 413):
                    # The rest of the body is not worth reading.
                    response.force_close()
            except TryLater as error:
                unavailable.add(error.part)
                wait = max(1, min(RETRY_AFTER_MAX_S, math.ceil(error.retry_after_s)))
                headers = {**self._headers(request), hdrs.RETRY_AFTER: str(wait)}
                response = answer.json_answer({"detail": f"Try again in {wait} s: {error}"}, 503, headers)
            except (web.HTTPException, asyncio.CancelledError, ConnectionError):
                raise
            except Exception:
                log.exception("request_failed", path=request.path)
                response = answer.json_answer(
                    {"detail": "Internal error; nothing was taken. The server's log has the cause."},
                    500,
                    self._headers(request),
                )
            finally:
                in_flight.value -= request[HELD]
            requests.add(route, CLASSES[response.status // 100])
            seconds.observe(perf_counter() - start)
            return response

        return guarded


def _is_json(kind: str | None, body: bytes) -> bool:
    """No type at all is read as JSON, as in the original: old clients rely on it."""
    if kind is None or kind == JSON_TYPE:
        return True
    kind = kind.partition(";")[0].rstrip().lower()
    return kind.endswith("json") or (kind == CURL_TYPE and body.lstrip()[:1] == b"{")
