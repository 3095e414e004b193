"""The registry port: what people configure and who may. Event sources, redirects, rules, users, tokens, secrets, locks.

Small, relational, changed by hand: read through caches on the hot path (``intake.sources``, ``pipeline.rules.live``),
which serve on, marked stale, when it is away. Errors: ``Unavailable``; ``BadInput`` for what can't be saved.
"""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Any, Protocol, Self

from msgspec import Struct, field

SOURCE_TYPES = (
    "rest",
    "webhook",
    "redirect",
    "javascript",
    "imap",
    "mqtt",
    "queue",
    "kafka",
    "pulsar",
    "internal",
)


class Named(Struct):
    id: str
    name: str = ""


class EventSource(Struct, kw_only=True):
    """docs/event-sources.md; field for field the protocol's."""

    id: str
    name: str = ""
    type: list[str] = field(default_factory=lambda: ["rest"])
    bridge: Named | None = None
    enabled: bool = True
    transitional: bool = False
    channel: str = ""
    config: dict[str, Any] | None = None
    """``static_profile_id`` (rest); ``generate_profile``, ``sticky_session``, ``replace_profile_id`` (webhook)."""
    description: str = ""
    tags: list[str] = []
    groups: list[str] = []
    timestamp: str | None = None
    manual: str | None = None
    locked: bool = False
    requires_consent: bool = False
    permanent_profile_id: bool = False
    synchronize_profiles: bool = True
    returns_profile: bool = False
    production: bool = False
    running: bool = False


class Redirect(Struct, kw_only=True):
    """``/redirect/{id}``: register one event of ``event_type``, then answer 307 to ``url``."""

    id: str
    name: str = ""
    description: str = ""
    source: Named
    url: str
    event_type: str
    props: dict[str, Any] = {}
    """A template: strings such as ``payload@params.name``, ``payload@body.a.b`` or ``session@id`` are replaced by what
    they point at."""
    tags: list[str] = []


RULE_KINDS = ("validation", "reshaping", "mapping", "to-profile", "identification", "compliance")
"""In the order in which they act on an event."""

RULES_MAX = 1000
"""Rules of all kinds in one context. Each worker holds all of them, compiled."""


class Rule(Struct, kw_only=True):
    """docs/rules.md: what is to be done with events of a type. What ``spec`` may hold depends on the kind, and is
    checked by who saves it (``pipeline.rules``): the registry keeps it."""

    kind: str
    id: str
    """Unique among the rules of its kind."""
    name: str = ""
    description: str = ""
    event_type: str = ""
    """\"\" or ``*``: all types."""
    source: str = ""
    """The id of an event source; \"\": all."""
    enabled: bool = True
    order: int = 0
    """Rules of a kind act in this order; equal ones by name, then id."""
    condition: str = ""
    """A where-text; \"\": always."""
    tags: list[str] = []
    """For people."""
    spec: dict[str, Any] = {}


class User(Struct, kw_only=True):
    id: str
    """The login, an e-mail address."""
    name: str = ""
    roles: list[str] = field(default_factory=lambda: ["admin"])
    enabled: bool = True


class Registry(Protocol):
    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    async def migrate(self) -> list[str]:
        """Bring the schema to this version, under a lock; what was done, one line each ([] when nothing)."""
        ...

    async def ping(self) -> None: ...

    # sources and redirects
    async def source(self, id: str) -> EventSource | None: ...
    async def sources(self, query: str = "", limit: int = 1000) -> list[EventSource]: ...
    async def save_source(self, source: EventSource) -> None:
        """Create or replace. ``BadInput`` 422 for an unknown type."""
        ...

    async def seed_source(self, source: EventSource) -> bool:
        """Create it, once: False, and nothing done, if it is there or was seeded before and has been deleted since."""
        ...

    async def delete_source(self, id: str) -> EventSource | None: ...
    async def redirect(self, id: str) -> Redirect | None: ...
    async def redirects(self, limit: int = 1000) -> list[Redirect]: ...
    async def save_redirect(self, redirect: Redirect) -> None: ...
    async def delete_redirect(self, id: str) -> bool: ...

    # rules
    async def rule(self, kind: str, id: str) -> Rule | None: ...
    async def rules(self, kind: str = "", query: str = "", limit: int = RULES_MAX) -> list[Rule]:
        """Of one kind, or (``""``) of all, in the order in which they act; with ``query``, those whose name, id, event
        type, description or tags contain it."""
        ...

    async def rules_revision(self) -> int:
        """A number that every change of a rule makes larger: one cheap read tells that nothing has changed."""
        ...

    async def save_rule(self, rule: Rule) -> None:
        """Create or replace. ``BadInput`` 422 for an unknown kind or an impossible id, 409 beyond ``RULES_MAX``."""
        ...

    async def delete_rule(self, kind: str, id: str) -> Rule | None:
        """The rule as it was; None when there was none."""
        ...

    # users and tokens
    async def user(self, id: str) -> User | None: ...
    async def users(self) -> list[User]: ...
    async def create_user(self, user: User, password: str) -> bool:
        """Create-if-absent; False, and nothing changed, when there is one with this login."""
        ...

    async def save_user(self, user: User, password: str | None) -> None:
        """Create or change. Password stored as argon2id; None keeps the one there is; another one ends the user's
        tokens. Logins are the same in any case of letters."""
        ...

    async def authenticate(self, id: str, password: str, place: str = "") -> User | None:
        """The user, if the password is theirs. Takes the same time for an unknown user.

        Counts failures: ``BadInput`` 429 with ``retry_after_s`` after too many for this login from ``place`` (where the
        attempt comes from, as far as that can be told), and after very many for it from everywhere.
        """
        ...

    async def issue_token(self, user_id: str, ttl_s: int) -> str:
        """A new random bearer token; only its hash is stored."""
        ...

    async def check_token(self, token: str, ttl_s: int) -> User | None:
        """Whose it is, if it lives; pushes its expiry to now + ``ttl_s``."""
        ...

    async def revoke_token(self, token: str) -> bool: ...

    # the installation's own state
    async def secret(self, name: str, make: Callable[[], str]) -> list[str]:
        """The values of a secret, newest first; made create-if-absent, so all processes agree."""
        ...

    async def rotate_secret(self, name: str, value: str) -> None:
        """Put a new value in front; the old ones still verify."""
        ...

    async def locked(self, key: str, value: str) -> str:
        """Write a setting that can't change later, if absent; the value that holds."""
        ...

    async def decided(self, key: str) -> str | None:
        """What ``locked`` holds for a key; None when nothing was written."""
        ...
