"""Settings that are each fine and not fine together, and texts of a certain form. Pure.

A check names the key that is most likely the wrong one, and says the other's value, so that either can be changed.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from msgspec import Struct

from tracardi_lite.settings.schema import Settings
from tracardi_lite.settings.values import size

_TENANT = re.compile(r"[a-z0-9][a-z0-9_-]{0,62}")
"""It becomes part of index, topic and file names, in all of which these letters are allowed."""

_HEADER = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]*")
"""An HTTP field name (RFC 9110 §5.6.2), or empty."""

_URL = re.compile(r"[a-z][a-z0-9+.-]*:.*", re.IGNORECASE)

_NODE = re.compile(r"(https?://)?([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]{1,5})?(/[A-Za-z0-9._~/-]*)?")
"""A node of a cluster. Credentials have settings of their own, since URLs end up in logs."""


class Contradiction(Struct, frozen=True):
    key: str
    text: str
    other: str = ""
    """The key that it stands against, if any."""
    moot: bool = False
    """It only has no effect: worth a stop where somebody asked for it, and not where it is the default."""


def contradictions(settings: Settings) -> Iterator[Contradiction]:
    """What does not go together; nothing if all is well."""
    s = settings
    if s.event_max > s.body_max:
        text = f"an event can't be larger than the body it comes in; body_max is {size(s.body_max)}"
        yield Contradiction("event_max", text, "body_max")
    if s.body_max > s.in_flight_max:
        text = f"a body this large would always get 503; in_flight_max is {size(s.in_flight_max)}"
        yield Contradiction("body_max", text, "in_flight_max")
    if s.body_max > s.queue_bytes_max:
        text = f"a body this large would never fit the queue; queue_bytes_max is {size(s.queue_bytes_max)}"
        yield Contradiction("body_max", text, "queue_bytes_max")
    if s.queue_retention_bytes > s.queue_bytes_max:
        text = f"more is kept than the queue may use; queue_bytes_max is {size(s.queue_bytes_max)}"
        yield Contradiction("queue_retention_bytes", text, "queue_bytes_max")
    if s.bulk_idle > s.bulk_timeout:
        text = f"never acts, since bulk_timeout ({s.bulk_timeout:g} s) comes first; 0 turns it off"
        yield Contradiction("bulk_idle", text, "bulk_timeout", moot=True)
    if s.retry_delay > s.retry_delay_max:
        text = f"the first pause is longer than the longest; retry_delay_max is {s.retry_delay_max:g} s"
        yield Contradiction("retry_delay", text, "retry_delay_max")
    if 0 < s.retention_cold_after < s.retention_warm_after:
        text = f"cold comes before warm; retention_warm_after is {s.retention_warm_after} s"
        yield Contradiction("retention_cold_after", text, "retention_warm_after")
    for key in ("queue_url", "store_url"):
        if s.role != "all" and getattr(s, key).partition(":")[0].lower() == "memory":
            text = f"memory: lives inside one process, and with role {s.role} nobody would have the other half"
            yield Contradiction(key, text, "role")
    yield from _forms(s)


def _forms(s: Settings) -> Iterator[Contradiction]:
    if not s.host.strip():
        yield Contradiction("host", "expected an address or a host name; 0.0.0.0 listens on all")
    if not _TENANT.fullmatch(s.tenant_name):
        text = "expected lower-case letters, digits, - and _, at most 63, a letter or digit first"
        yield Contradiction("tenant_name", text)
    if not _HEADER.fullmatch(s.use_x_forwarded_ip):
        yield Contradiction("use_x_forwarded_ip", "expected the name of a header, such as x-forwarded-for")
    for node in s.elastic_host.split(",") if s.elastic_host else ():
        if not _NODE.fullmatch(node.strip()) or node.strip().isdigit():
            yield Contradiction("elastic_host", "expected host, host:port or http(s)://host:port, separated by commas")
            break
    for key in ("queue_url", "store_url", "cache_url", "registry_url"):
        if not _URL.fullmatch(getattr(s, key)):
            yield Contradiction(key, "expected a URL, such as sqlite: or memory:")
