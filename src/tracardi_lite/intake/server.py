"""The HTTP application: which routes there are, and what every answer has in common.

There is no middleware: what the collector needs it does itself, the admin API has its own wrapper, and what is left
(CORS on everything, JSON for unknown paths) is done by one response signal and one catch-all route.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

from aiohttp import HttpVersion11, hdrs, web

from tracardi_lite.intake import answer
from tracardi_lite.intake.headers import readable
from tracardi_lite.intake.health import Health
from tracardi_lite.intake.http1 import SERVER

Asset = Callable[[str], tuple[bytes, str, str] | None]
"""A file name → (content, content type, entity tag) of the built-in tracker's files."""

TRACKER_TYPES = {".js": "text/javascript", ".html": "text/html", ".css": "text/css", ".map": "application/json"}
TRACKER_CACHE = "public, max-age=300"


Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def _open(handler: Handler) -> Handler:
    return handler


def add_health_routes(
    app: web.Application,
    health: Health,
    metrics: Callable[[], Awaitable[bytes]],
    protect: Callable[[Handler], Handler] = _open,
) -> None:
    """``protect`` goes around ``/metrics``, where not everybody may see it."""

    async def live(request: web.Request) -> web.Response:
        return answer.json_answer({"status": "live"})

    async def ready(request: web.Request) -> web.Response:
        is_ready, report = await health.check()
        return answer.json_answer(report, 200 if is_ready else 503, None if is_ready else {hdrs.RETRY_AFTER: "5"})

    async def exposition(request: web.Request) -> web.StreamResponse:
        return web.Response(
            body=await metrics(), headers={hdrs.CONTENT_TYPE: "text/plain; version=0.0.4; charset=utf-8"}
        )

    app.router.add_get("/health/live", live)
    app.router.add_get("/health/ready", ready)
    app.router.add_get("/metrics", protect(exposition))
    for method in ("GET", "POST", "PUT", "DELETE"):
        app.router.add_route(method, "/healthcheck", _healthcheck)


async def _healthcheck(request: web.Request) -> web.Response:
    """The original's echo, without what must not be echoed."""
    if request.method == hdrs.METH_GET:
        return answer.json_answer("")
    try:
        body = (await request.read()).decode("utf-8", "replace")
    except web.HTTPRequestEntityTooLarge:
        return answer.json_answer({"detail": "The body is too large."}, 413)
    except web.RequestPayloadError:
        return answer.json_answer({"detail": "The body can't be read."}, 400)
    headers = {
        name.lower(): readable(value)
        for name, value in request.headers.items()
        if name.lower() not in ("authorization", "cookie")
    }
    try:
        parsed: object = answer.decode(body)
    except (ValueError, RecursionError):
        parsed = None
    return answer.json_answer({"headers": headers, "json": parsed, "body": body})


def add_tracker_routes(app: web.Application, asset: Asset, directory: str) -> None:
    """``/tracker/``: the operator's own build when ``TRACKER_DIR`` has the file, else ours."""
    root = Path(directory).resolve() if directory else None

    async def tracker(request: web.Request) -> web.StreamResponse:
        name = request.match_info.get("name") or "index.html"
        if root is not None:
            path = (root / name).resolve()
            if path.is_relative_to(root) and path.is_file():
                kind = TRACKER_TYPES.get(path.suffix)
                headers = {hdrs.CACHE_CONTROL: TRACKER_CACHE} | ({hdrs.CONTENT_TYPE: kind} if kind else {})
                return web.FileResponse(path, headers=headers)
        found = asset(name)
        if found is None:
            return answer.json_answer({"detail": "Not Found"}, 404)
        content, kind, tag = found
        headers = {hdrs.CACHE_CONTROL: TRACKER_CACHE, hdrs.ETAG: tag, hdrs.CONTENT_TYPE: kind}
        if request.headers.get(hdrs.IF_NONE_MATCH) == tag:
            return web.Response(status=304, headers=headers)
        return web.Response(body=content, headers=headers)

    app.router.add_get("/tracker", tracker)
    app.router.add_get("/tracker/{name:.*}", tracker)


def finish(app: web.Application) -> None:
    """Add what must come last: preflight for every path, JSON for unknown ones, what every answer carries."""
    app.router.add_route("*", "/{path:.*}", _nowhere)
    for route in app.router.routes():
        # There is no other way to say it once for all routes.
        route._expect_handler = _expect
    app.on_response_prepare.append(_complete)


async def _expect(request: web.Request) -> None:
    """aiohttp's own repeats what was expected, and fails with a 500 when that is not UTF-8."""
    if request.version >= HttpVersion11:
        if request.headers[hdrs.EXPECT].lower() != "100-continue":
            raise web.HTTPExpectationFailed
        # Not counted: aiohttp takes a writer that has written for a response that has begun.
        await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        request.writer.output_size = 0


async def _nowhere(request: web.Request) -> web.Response:
    if request.method == hdrs.METH_OPTIONS:
        return answer.preflight(request)
    allowed = set()
    for resource in request.app.router.resources():
        if resource is not request.match_info.route.resource:
            # The resolver gives the methods of a resource whose path fits and whose method doesn't.
            _, methods = await resource.resolve(request)
            allowed |= methods
    if allowed:
        return answer.json_answer(
            {"detail": "Method Not Allowed"}, 405, {hdrs.ALLOW: ", ".join(sorted(allowed - {hdrs.METH_HEAD}))}
        )
    return answer.json_answer({"detail": "Not Found"}, 404)


async def _complete(request: web.BaseRequest, response: web.StreamResponse) -> None:
    # Instead of the versions of Python and aiohttp, which are nobody's business.
    response.headers[hdrs.SERVER] = SERVER
    if hdrs.ORIGIN in request.headers and hdrs.ACCESS_CONTROL_ALLOW_ORIGIN not in response.headers:
        response.headers.update(answer.cors(request.headers))
