"""The collector: ``/track``, ``/collect`` and ``/redirect``. What is answered with 2xx is durably queued.

These are aiohttp's handlers, with no middleware around them; the plainest and most frequent call, an uncompressed
``POST /track``, mostly doesn't come here (``express``). What happens to a call is the door's; here it is read and
answered. Every refusal is a 4xx with a JSON ``detail``, every overload a 503 with Retry-After, and both are counted.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from time import perf_counter
from typing import Any, TypeVar

import structlog
from aiohttp import hdrs, web

from tracardi_lite.errors import BadInput, Full, TryLater
from tracardi_lite.intake import answer, steps, webhook
from tracardi_lite.intake.admission import Admission
from tracardi_lite.intake.compression import expanded
from tracardi_lite.intake.decode import Decoded, decode
from tracardi_lite.intake.door import Admitted, Door, Incoming, InFlight
from tracardi_lite.intake.headers import readable
from tracardi_lite.intake.sources import Gate
from tracardi_lite.metrics import Metrics
from tracardi_lite.ports.queue import Queue
from tracardi_lite.ports.registry import Registry
from tracardi_lite.protocol.identity import Identity
from tracardi_lite.settings import Settings

log = structlog.get_logger(__name__)

Read = TypeVar("Read")
Handler = Callable[[web.Request], Awaitable[web.Response]]

SESSION_COOKIE = "tracardi-session-id"
BODY_GUESS = 64 * 1024
# When a request began (perf_counter), and how many bytes of ``in_flight_max`` it holds.
START = web.RequestKey("start", float)
HELD = web.RequestKey("held", int)


class Collector:
    """The collector's handlers, over what they need. ``find_key`` comes from the pipeline's rules."""

    def __init__(
        self,
        settings: Settings,
        queue: Queue,
        registry: Registry,
        door: Door,
        admission: Admission,
        identity: Identity,
        in_flight: InFlight,
        metrics: Metrics,
        *,
        find_key: webhook.FindKey,
    ) -> None:
        self._settings = settings
        self._queue = queue
        self._registry = registry
        self._door = door
        self._admission = admission
        self._identity = identity
        self._in_flight = in_flight
        self._metrics = metrics
        self._find_key = find_key

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
        profile_less = request.query.get("profile_less", "").lower() in ("true", "1", "yes", "on")
        incoming = Incoming(await self._read(request), _headers_of(request), request.remote, profile_less)
        admitted = await steps.run(self._door.track(incoming))
        if admitted is None:
            return self._respond(request, answer.Reply(200, b"null"))
        await self._publish(admitted)
        return self._respond(request, answer.Reply(*self._door.answer(admitted)))

    async def collect(self, request: web.Request) -> web.Response:
        event_type = request.match_info["event_type"]
        session = request.match_info.get("session_id", "").strip()
        headers = _headers_of(request)
        gate = await steps.run(self._door.gate(request.match_info["source_id"].strip(), headers, 1, "webhook"))
        properties = await self._properties(request)
        who = webhook.stand(gate, session, event_type, properties, self._identity, self._find_key)
        payload = webhook.payload_of(gate.id, event_type, properties, who.session, who.profile)
        call = decode(payload, self._settings.event_max)
        admitted = await self._take(request, headers, call, payload, who.gate, profile_less=who.profile_less)
        return self._respond(request, answer.Reply(*self._door.answer(admitted)))

    async def redirect(self, request: web.Request) -> web.Response:
        redirect = await self._registry.redirect(request.match_info["redirect_id"])
        if redirect is None:
            raise BadInput(404, f"Unknown redirect '{request.match_info['redirect_id'][:100]}'.")
        headers = _headers_of(request)
        leads: dict[str, str] = {hdrs.LOCATION: redirect.url, hdrs.CACHE_CONTROL: "no-store"}
        if request.method == hdrs.METH_HEAD:
            # Somebody who looks where the link leads, a preview or a scanner: no visit.
            await steps.run(self._door.gate(redirect.source.id, headers, 0, "redirect"))
            return web.Response(status=307, headers={**leads, **answer.common(request.headers, request[START])})
        gate = await steps.run(self._door.gate(redirect.source.id, headers, 1, "redirect"))
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
        await self._take(request, headers, call, payload, gate, profile_less=not known)
        return web.Response(status=307, headers={**leads, **answer.common(request.headers, request[START])})

    # --- steps ---

    async def _properties(self, request: web.Request) -> dict[str, Any]:
        """A webhook's event properties: the query of a GET, the body of anything else."""
        if request.method == hdrs.METH_GET:
            return webhook.query_properties(request)
        if request.content_type == webhook.MULTIPART_TYPE:
            if hdrs.CONTENT_ENCODING in request.headers:
                raise BadInput(415, "A multipart form is not taken compressed.")
            return await self._arrived(request, webhook.multipart_properties(request))
        return webhook.body_properties(request.content_type, await self._read(request))

    async def _read(self, request: web.Request) -> bytes:
        """The whole body, decompressed, within every bound."""
        body = await self._arrived(request, request.read())
        encoding = request.headers.get(hdrs.CONTENT_ENCODING)
        if encoding is not None:
            body = expanded(body, encoding, self._settings.body_max)
        if request.content_length != len(body):
            self._hold(request, len(body))
        return body

    async def _arrived(self, request: web.Request, reading: Coroutine[Any, Any, Read]) -> Read:
        """What ``reading`` makes of the body, within every bound (size, memory of all that is in flight, time).

        What it takes of ``in_flight_max`` is held until the request is answered.
        """
        length = request.content_length
        too_large = BadInput(413, f"The body is larger than {self._settings.body_max} bytes.")
        try:
            if length is not None and length > self._settings.body_max:
                # Said at once: the sender may be spared most of it.
                raise too_large
            # A body of unannounced or compressed length is only known when it is read: until then it counts as small.
            self._hold(request, BODY_GUESS if length is None else length)
        except (BadInput, Full):
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
            raise too_large from error
        except web.RequestPayloadError as error:
            raise BadInput(400, "The body can't be read: a broken transfer.") from error

    def _hold(self, request: web.Request, size: int) -> None:
        """Count ``size`` bytes as in flight for this request, instead of what it held; Full when that is too much."""
        self._in_flight.take(size - request[HELD])
        request[HELD] = size

    async def _take(
        self,
        request: web.Request,
        headers: Mapping[str, str],
        call: Decoded,
        body: bytes,
        gate: Gate,
        *,
        profile_less: bool,
    ) -> Admitted:
        """Admit and publish. When this returns, the events that the answer accepts are durable."""
        visitor = self._door.visitor(headers, request.remote)
        admitted = await steps.run(self._door.take(call, body, gate, visitor, profile_less=profile_less))
        await self._publish(admitted)
        return admitted

    async def _publish(self, admitted: Admitted) -> None:
        start = perf_counter()
        await self._queue.publish(admitted.publication)
        self._metrics.publish_seconds.observe(perf_counter() - start)

    @staticmethod
    def _respond(request: web.Request, reply: answer.Reply) -> web.Response:
        response = web.Response(
            body=reply.body,
            status=reply.status,
            content_type="application/json",
            headers={**answer.common(request.headers, request[START]), **reply.headers},
        )
        if reply.close:
            response.force_close()
        return response

    def _guarded(self, handler: Handler, route: str) -> Handler:
        """Turn errors into answers and count what happened. The only wrapper around a handler."""
        metrics = self._metrics

        async def guarded(request: web.Request) -> web.Response:
            start = request[START] = perf_counter()
            request[HELD] = 0
            try:
                response = await handler(request)
            except (web.HTTPException, asyncio.CancelledError, ConnectionError):
                raise
            except Exception as error:
                if isinstance(error, TryLater):
                    metrics.unavailable.add(error.part)
                elif not isinstance(error, BadInput):
                    log.exception("request_failed", path=request.path)
                response = self._respond(request, answer.refusal(error))
            finally:
                self._in_flight.give_back(request[HELD])
            metrics.requests.add(route, answer.CLASSES[response.status // 100])
            metrics.request_seconds.observe(perf_counter() - start)
            return response

        return guarded


def _headers_of(request: web.Request) -> dict[str, str]:
    return {name.lower(): readable(value) for name, value in request.headers.items()}
