"""Errors as the protocol answers them: ``{"detail": …}`` with a status, for the admin routes only.

A decorator and not a middleware, so that the collector's path does not pay for it. What is no ``TracardiLiteError`` is
a bug and is left to the server: a logged traceback and 500.
"""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from typing import TypeAlias

from aiohttp import hdrs, web

from tracardi_lite.admin.answers import json_answer
from tracardi_lite.errors import BadInput, TryLater

RequestHandler: TypeAlias = Callable[[web.Request], Awaitable[web.StreamResponse]]


def answers_errors(handler: RequestHandler) -> RequestHandler:
    """Turn ``BadInput`` into its status, ``TryLater`` into 503 with Retry-After, unreadable bodies into 400 and 413."""

    async def answer(request: web.Request) -> web.StreamResponse:
        try:
            return await handler(request)
        except BadInput as error:
            return _bad_input(error)
        except TryLater as error:
            return json_answer(
                {"detail": f"Unavailable, try again later: {error}"}, 503, _retry_after(error.retry_after_s)
            )
        except web.HTTPRequestEntityTooLarge as error:
            return json_answer({"detail": error.text or "The body is too large."}, 413)
        except web.RequestPayloadError:
            return json_answer({"detail": "The body can't be read."}, 400)

    return answer


def _bad_input(error: BadInput) -> web.Response:
    headers: dict[str, str] = {}
    if error.status == 401:
        headers[hdrs.WWW_AUTHENTICATE] = "Bearer"
    if error.retry_after_s is not None:
        headers |= _retry_after(error.retry_after_s)
    return json_answer({"detail": error.detail}, error.status, headers)


def _retry_after(seconds: float) -> dict[str, str]:
    return {hdrs.RETRY_AFTER: str(max(1, math.ceil(seconds)))}
