"""The door: from a request's body to what is published and answered, whatever transport brought it.

``track`` is the hot path: decode, find the source, admit. It is written as ``Steps``, since a call of a source and a
session that this process knows waits for nothing before the queue. Who calls publishes what it gives, and answers with
``answer`` when that is durable.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from msgspec import Struct

from tracardi_lite.errors import BadInput, Full
from tracardi_lite.intake import answer
from tracardi_lite.intake.admission import Admission, Visitor
from tracardi_lite.intake.decode import Decoded, all_refused, decode, not_an_object
from tracardi_lite.intake.headers import client_address
from tracardi_lite.intake.passes import passed_profile
from tracardi_lite.intake.refusals import Refusals
from tracardi_lite.intake.sources import Gate, Sources
from tracardi_lite.intake.steps import Steps
from tracardi_lite.metrics import Gauge
from tracardi_lite.ports.queue import Publication
from tracardi_lite.protocol.envelope import Head, encode_head
from tracardi_lite.protocol.ids import event_id
from tracardi_lite.settings import Settings

SENSITIVE = frozenset({"authorization", "cookie", "proxy-authorization"})
TRACK_TYPES = ("rest", "javascript")
JSON_TYPE = "application/json"
# What curl -d says of any body. A form never begins with a brace.
CURL_TYPE = "application/x-www-form-urlencoded"
HEADERS_KEPT_MAX = 64


class Incoming(Struct):
    """A call to ``/track`` as it arrived, decompressed."""

    body: bytes
    headers: Mapping[str, str]
    """Lower-cased names, readable values, the last of each name."""
    remote: str | None
    """The peer's address."""
    profile_less: bool = False


class Admitted(Struct):
    """A call that may be published. Only then is it answered."""

    decoded: Decoded
    head: Head
    publication: Publication


class InFlight:
    """The bodies that were taken and are not durable yet, in bytes: a bound in memory for all requests together."""

    def __init__(self, gauge: Gauge, bytes_max: int) -> None:
        self._gauge = gauge
        self._bytes_max = bytes_max

    def take(self, size: int) -> None:
        """Count ``size`` more (or less, when negative); raise ``Full`` when that is too much."""
        if size > 0 and self._gauge.value + size > self._bytes_max:
            raise Full("intake", "too many bodies in flight")
        self._gauge.value += size

    def give_back(self, size: int) -> None:
        self._gauge.value -= size


class Door:
    """``is_bot`` comes from the pipeline's rules."""

    def __init__(
        self,
        settings: Settings,
        sources: Sources,
        admission: Admission,
        refusals: Refusals,
        is_bot: Callable[[str], bool],
    ) -> None:
        self._sources = sources
        self._admission = admission
        self._refusals = refusals
        self._is_bot = is_bot if settings.disallow_bot_traffic else None
        self._event_max = settings.event_max
        self._events_max = settings.events_per_call_max
        self._ip_header = settings.use_x_forwarded_ip.lower()
        self._debug = settings.track_debug

    def track(self, incoming: Incoming) -> Steps[Admitted | None]:
        """What to publish for a call; None when it has no events. Raises BadInput or TryLater."""
        headers = incoming.headers
        if not _is_json(headers.get("content-type"), incoming.body):
            raise not_an_object()
        decoded = decode(incoming.body, self._event_max)
        events = decoded.count
        if not events:
            return None
        gate = yield from self.gate(decoded.call.source.id, headers, events, *TRACK_TYPES)
        visitor = self.visitor(headers, incoming.remote)
        return (yield from self.take(decoded, incoming.body, gate, visitor, profile_less=incoming.profile_less))

    def gate(self, id: str, headers: Mapping[str, str], events: int, *types: str) -> Steps[Gate]:
        """The source, open for this call; whatever is refused here is counted with its events."""
        try:
            gate = self._sources.peek(id)
            if gate is None:
                gate = yield self._sources.get(id)
                assert gate is not None
            gate.admit(*types)
        except BadInput as error:
            if error.status == 401:
                self._refusals.add("source", events)
            raise
        if self._is_bot is not None and self._is_bot(headers.get("user-agent", "")):
            self._refusals.add("bot", events)
            raise BadInput(401, "Traffic from bot is not allowed.")
        return gate

    def take(
        self, decoded: Decoded, body: bytes, gate: Gate, visitor: Visitor, *, profile_less: bool
    ) -> Steps[Admitted]:
        """Admit a call that has passed the gate."""
        events = decoded.count
        if events > self._events_max:
            self._refusals.add("too_many", events)
            raise BadInput(413, f"{events} events in one call; at most {self._events_max}.")
        if decoded.errors:
            for error in decoded.errors:
                self._refusals.add(error.reason, 1)
            if len(decoded.errors) == events:
                raise all_refused(decoded.errors)
        head = yield from self._admission.admit(decoded, gate, visitor, profile_less=profile_less)
        if head.profile is not None:
            head.passed = yield from passed_profile(decoded.call.context, self._sources)
        publication = Publication(head.profile or head.id, encode_head(head), body, events - len(decoded.errors))
        return Admitted(decoded, head, publication)

    def answer(self, admitted: Admitted) -> tuple[int, bytes]:
        """Status and body of a call that is durable (§1.5)."""
        decoded = admitted.decoded
        options = decoded.call.options
        status = 200
        if decoded.errors:
            status = 226
        elif options is not None and options.queue:
            status = 201
        return status, answer.track_body(admitted.head, decoded.errors, self._debugged(decoded, admitted.head))

    def visitor(self, headers: Mapping[str, str], remote: str | None) -> Visitor:
        kept = {name: value for name, value in headers.items() if name not in SENSITIVE}
        if len(kept) > HEADERS_KEPT_MAX:
            kept = dict(list(kept.items())[:HEADERS_KEPT_MAX])
        return Visitor(client_address(headers, remote, self._ip_header), kept)

    def _debugged(self, decoded: Decoded, head: Head) -> list[str]:
        """The ids of the accepted events, for callers that may see them (§1.4 ``debugger``)."""
        options = decoded.call.options
        if not self._debug or options is None or not options.debugger:
            return []
        refused = set(head.skip)
        return [id or event_id(head.id, index) for index, id in enumerate(decoded.ids()) if index not in refused]


def _is_json(kind: str | None, body: bytes) -> bool:
    """No type at all is read as JSON, as in the original: old clients rely on it."""
    if kind is None or kind == JSON_TYPE:
        return True
    kind = kind.partition(";")[0].rstrip().lower()
    return kind.endswith("json") or (kind == CURL_TYPE and body.lstrip()[:1] == b"{")
