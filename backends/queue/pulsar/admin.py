"""Pulsar's admin REST API, as much as is needed. It answers stats, sets policy and resets cursors; the hot path does
without it."""

from __future__ import annotations

import ssl
from typing import Any
from urllib.parse import quote

import aiohttp
import msgspec

from tracardi_lite import tls
from tracardi_lite.errors import Unavailable
from tracardi_lite.settings import Settings

TIMEOUT_S = 10.0
ANSWER_BYTES_MAX = 64 << 20


class AdminError(Unavailable):
    """The API answered, and not what was hoped for."""

    def __init__(self, status: int, path: str, text: str) -> None:
        super().__init__("queue", f"Pulsar's admin API answers {status} to {path}: {text[:200]}", 5.0)
        self.status = status


class Admin:
    def __init__(self, url: str, settings: Settings) -> None:
        self._url = f"{url}/admin/v2/"
        self._headers = {"Content-Type": "application/json"}
        if settings.pulsar_auth_token:
            self._headers["Authorization"] = f"Bearer {settings.pulsar_auth_token}"
        self._tls: ssl.SSLContext | bool = True
        if url.startswith("https:"):
            self._tls = tls.context(settings, "pulsar")
        self._session: aiohttp.ClientSession | None = None

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def get(self, path: str, **query: str) -> Any:
        """The JSON answer; None for 404 and 204."""
        return await self._call("GET", path, None, query, none_for=(404,))

    async def put(self, path: str, body: object = None) -> bool:
        """False when it was there already (409)."""
        return await self._call("PUT", path, body, {}, none_for=(409,)) is not None

    async def post(self, path: str, body: object = None) -> None:
        await self._call("POST", path, body, {})

    async def delete(self, path: str, **query: str) -> None:
        await self._call("DELETE", path, None, query, none_for=(404,))

    async def _call(
        self, method: str, path: str, body: object, query: dict[str, str], none_for: tuple[int, ...] = ()
    ) -> Any:
        if self._session is None:
            self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(TIMEOUT_S), headers=self._headers)
        data = b"" if body is None else msgspec.json.encode(body)
        try:
            async with self._session.request(
                method, self._url + path, data=data, params=query, ssl=self._tls
            ) as answer:
                content = await answer.read()
                if answer.status in none_for:
                    return None
                if answer.status >= 400:
                    raise AdminError(answer.status, path, content.decode(errors="replace"))
                if method != "GET":
                    return True
                return msgspec.json.decode(content) if content else None
        except (TimeoutError, aiohttp.ClientError, OSError, msgspec.DecodeError) as error:
            if fault := tls.fault("queue", "pulsar", error, "pulsar_api"):
                raise fault from error
            reason = str(error) or type(error).__name__
            raise Unavailable("queue", f"Pulsar's admin API (PULSAR_API): {reason}") from error


def topic_path(topic: str) -> str:
    """``persistent://tenant/namespace/topic`` as the API's paths want it."""
    kind, _, rest = topic.partition("://")
    return "/".join((kind, *(quote(part, safe="") for part in rest.split("/"))))
