"""Requests and their errors: the one module that knows the client library.

``call`` answers with a status and the body's bytes; every status is an answer, and only silence (refused, reset, timed
out, TLS) is an exception: ``Unavailable``. ``ask`` is for calls that succeed or the whole operation can't: it decodes,
and turns statuses into errors. Requests are tried on another node when one is silent, never on the same; pauses are the
caller's. Bounds: ``elastic_max_conn`` connections to a node, ``elastic_query_timeout`` seconds for an answer.
"""

from __future__ import annotations

import asyncio
import base64
import gzip
from collections.abc import Collection, Mapping
from typing import Any, ClassVar, TypeVar, cast
from urllib.parse import urlsplit

import msgspec
from aiohttp.abc import AbstractStreamWriter
from aiohttp.payload import BytesPayload, Payload
from elastic_transport import (
    AiohttpHttpNode,
    AsyncTransport,
    HttpHeaders,
    NodeConfig,
    SerializationError,
    Serializer,
    TransportError,
)
from elastic_transport.client_utils import DEFAULT, DefaultType, basic_auth_to_header, parse_cloud_id
from msgspec import Struct

from tracardi_lite import tls
from tracardi_lite.errors import BadInput, Full, Misconfigured, Unavailable
from tracardi_lite.settings import Settings

T = TypeVar("T")

JSON = "application/json"
NDJSON = "application/x-ndjson"

_PIECE_BYTES = 256 << 10
_COMPRESS_MIN = 1024
_GZIP_LEVEL = 1
"""Of a bulk of JSON it saves nearly what the highest level saves, at a fifth of the time."""
_NODES_TRIED_MAX = 3
_REASON_MAX = 400
"""Characters of a reason: Elasticsearch repeats pieces of the document in them."""

encode = msgspec.json.Encoder().encode


class Cause(Struct):
    """Elasticsearch's description of an error."""

    type: str = ""
    reason: str | None = None
    caused_by: Cause | None = None

    def __str__(self) -> str:
        parts = [f"{self.type}: {self.reason}"]
        inner = self.caused_by
        while inner is not None and len(parts) < 3:
            parts.append(f"{inner.type}: {inner.reason}")
            inner = inner.caused_by
        return "; ".join(parts)[:_REASON_MAX]


class _Failure(Struct):
    error: Cause | str = ""


class Answer(Struct):
    status: int
    body: bytes

    @property
    def cause(self) -> Cause:
        """What it says is wrong; from whoever answers (proxies too), so of any shape."""
        try:
            error = msgspec.json.decode(self.body, type=_Failure).error
        except msgspec.DecodeError:
            error = ""
        if isinstance(error, Cause):
            return error
        return Cause(reason=error or f"status {self.status}: {self.body[:200].decode(errors='replace')}")


class _Bytes(Serializer):
    """Bodies go out and come in as bytes; who asked knows best what to decode."""

    mimetype: ClassVar[str] = JSON

    def loads(self, data: bytes) -> Any:
        return data

    def dumps(self, data: Any) -> bytes:
        assert isinstance(data, bytes)
        return data


class _Body(BytesPayload):
    """A body that is written piece by piece, so that the loop gets its turn, and without copies.

    aiohttp would write large bytes whole, with a warning, and copy a file's twice: a worker sends 2 KB for each event.
    """

    def __init__(self, value: bytes) -> None:
        Payload.__init__(self, value)
        self._size = len(value)

    async def write(self, writer: AbstractStreamWriter) -> None:
        await self.write_with_length(writer, None)

    async def write_with_length(self, writer: AbstractStreamWriter, content_length: int | None) -> None:
        body = memoryview(self._value)[:content_length]
        for start in range(0, len(body), _PIECE_BYTES):
            await writer.write(body[start : start + _PIECE_BYTES])


class _Node(AiohttpHttpNode):
    async def perform_request(  # type: ignore[override]
        self,
        method: str,
        target: str,
        body: bytes | None = None,
        headers: HttpHeaders | None = None,
        request_timeout: DefaultType | float | None = DEFAULT,
    ) -> Any:
        sent = cast(bytes, _Body(body)) if body is not None and len(body) > _PIECE_BYTES else body
        return await super().perform_request(method, target, sent, headers, request_timeout)

    def _log_request(self, *arguments: object, **options: object) -> None:
        """Nothing: the library would decode every body for it, and customers' data does not belong in logs."""


class Connection:
    def __init__(self, url: str, settings: Settings) -> None:
        nodes = _nodes(url, settings)
        self._compress = settings.elastic_http_compress
        self._where = ", ".join(f"{node.scheme}://{node.host}:{node.port}" for node in nodes)
        self.timeout_s = settings.elastic_query_timeout
        raw = _Bytes()
        self._transport = AsyncTransport(
            nodes,
            node_class=_Node,
            # By its full name, too: the library has one of its own for it, which copies a bulk's body twice.
            serializers={JSON: raw, NDJSON: raw, "application/*": raw, "text/*": raw},
            max_retries=min(len(nodes) - 1, _NODES_TRIED_MAX),
            retry_on_status=(),
            max_dead_node_backoff=5.0,
            meta_header=False,
        )

    async def close(self) -> None:
        await self._transport.close()

    async def call(
        self, method: str, target: str, body: object = None, *, kind: str = JSON, timeout_s: float | None = None
    ) -> Answer:
        """``body``: bytes as they are, or anything that is JSON. ``target``: path and query, quoted where needed."""
        headers = {"accept": JSON}
        data: bytes | None = None
        if body is not None:
            data = body if isinstance(body, bytes) else encode(body)
            headers["content-type"] = kind
        if self._compress:
            headers["accept-encoding"] = "gzip"
            if data is not None and len(data) >= _COMPRESS_MIN:
                # In a thread: it takes milliseconds and lets go of the lock.
                data = await asyncio.to_thread(gzip.compress, data, _GZIP_LEVEL)
                headers["content-encoding"] = "gzip"
        try:
            answer = await self._transport.perform_request(
                method, target, body=data, headers=headers, request_timeout=timeout_s or self.timeout_s
            )
        except (TransportError, SerializationError) as error:
            if fault := tls.fault("store", "elastic", error):
                raise fault from error
            raise Unavailable("store", f"Elasticsearch at {self._where} does not answer: {error.message}") from error
        return Answer(answer.meta.status, answer.body or b"")

    async def ask(
        self,
        type: type[T],
        method: str,
        target: str,
        body: object = None,
        *,
        missing: T | None = None,
        timeout_s: float | None = None,
    ) -> T:
        """The decoded answer; ``missing``, if given, for 404. Raises as ``fail`` does."""
        answer = await self.call(method, target, body, timeout_s=timeout_s)
        if answer.status == 404 and missing is not None:
            return missing
        fail(answer)
        try:
            return msgspec.json.decode(answer.body, type=type)
        except msgspec.DecodeError as error:
            raise Unavailable("store", f"not an answer of Elasticsearch: {error}") from error

    async def do(
        self,
        method: str,
        target: str,
        body: object = None,
        *,
        fine: Collection[int] = (),
        timeout_s: float | None = None,
    ) -> Answer:
        """For what is done for its effect: raises as ``fail`` does, but for the statuses that are ``fine``."""
        answer = await self.call(method, target, body, timeout_s=timeout_s)
        if answer.status not in fine:
            fail(answer)
        return answer


def fail(answer: Answer) -> None:
    """Nothing for a success; ``BadInput`` for what can't succeed, ``Full`` for a disk, else ``Unavailable``."""
    if answer.status < 300:
        return
    cause = answer.cause
    if "flood-stage" in str(cause):
        raise Full("store", f"Elasticsearch has no disk space left: {cause}", 10.0)
    if answer.status in (400, 413, 422):
        raise BadInput(422, f"the store can't do this: {cause}")
    raise Unavailable("store", f"Elasticsearch answers {answer.status}: {cause}")


def _nodes(url: str, settings: Settings) -> list[NodeConfig]:
    return [
        NodeConfig(
            scheme=scheme,
            host=host,
            port=port,
            path_prefix=path,
            headers=HttpHeaders(_authorization(settings)),
            connections_per_node=settings.elastic_max_conn,
            request_timeout=settings.elastic_query_timeout,
            http_compress=False,  # done above, at a level that suits
            ssl_context=tls.context(settings, "elastic") if scheme == "https" else None,
        )
        for scheme, host, port, path in _addresses(url, settings)
    ]


def _addresses(url: str, settings: Settings) -> list[tuple[str, str, int, str]]:
    """(scheme, host, port, path) of each node: from the URL, else the cloud id, else ``elastic_host``."""
    scheme, _, rest = url.partition(":")
    hosts = rest.strip("/")
    default = scheme.partition("+")[2] or settings.elastic_scheme
    if "@" in hosts:
        raise Misconfigured("store_url", "it holds credentials.", "Set elastic_http_auth_password or elastic_api_key.")
    if not hosts and settings.elastic_cloud_id:
        try:
            cloud = parse_cloud_id(settings.elastic_cloud_id)
        except ValueError as error:
            raise Misconfigured("elastic_cloud_id", str(error), "Copy it from the deployment's page.") from error
        if cloud.es_address is None:
            raise Misconfigured("elastic_cloud_id", "it names no Elasticsearch.", "Copy it from the deployment's page.")
        host, port = cloud.es_address
        return [("https", host, port or 443, "")]
    found = []
    for node in (hosts or settings.elastic_host or "127.0.0.1").split(","):
        text = node.strip()
        parts = urlsplit(text if "://" in text else f"{default}://{text}")
        try:
            port = parts.port or settings.elastic_port
        except ValueError as error:
            raise Misconfigured("elastic_host", f"{text!r}: {error}.", "Write host:port.") from error
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise Misconfigured("elastic_host", f"{text!r} is no node.", "Write host, host:port or https://host:port.")
        found.append((parts.scheme, parts.hostname, port, parts.path.rstrip("/")))
    return found


def _authorization(settings: Settings) -> Mapping[str, str]:
    if settings.elastic_api_key:
        key = settings.elastic_api_key
        if settings.elastic_api_key_id:
            key = base64.b64encode(f"{settings.elastic_api_key_id}:{key}".encode()).decode()
        return {"authorization": f"ApiKey {key}"}
    if settings.elastic_http_auth_password:
        user = settings.elastic_http_auth_username, settings.elastic_http_auth_password
        return {"authorization": basic_auth_to_header(user)}
    return {}
