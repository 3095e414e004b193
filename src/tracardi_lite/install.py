"""What a registry needs before anything can be served: schema, secret, locked settings, a source, an administrator.

Run at every start and by ``tracardi-lite install``; every step is create-if-absent, so that processes that start
together make one of each, and a second run changes nothing.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets

from msgspec import Struct, field

from tracardi_lite.errors import BadInput, Misconfigured
from tracardi_lite.pipeline.merging.identification import merging_of
from tracardi_lite.ports.registry import EventSource, Named, Registry, User
from tracardi_lite.settings import Settings
from tracardi_lite.settings.schema import DEFAULT_MERGING_SECRET

IDENTITY_SECRET = "identity"  # noqa: S105  # its name, not its value
"""The secret that ``protocol.identity`` issues profile ids with."""

LOCKED = (
    "tenant_name",
    "queue_partitions",
    "event_partitioning",
    "profile_partitioning",
    "session_partitioning",
    "log_partitioning",
)
"""Settings that records already written depend on: what the first start had holds for ever."""

EMBEDDED = frozenset({"sqlite", "memory"})
"""Backends that come with the program: trials, where the default secret of merging does."""
MERGING_SECRET_CHARS_MIN = 20

ANEW = "or begin anew with an empty data directory, or, where they are servers, an empty registry, queue and store"

MERGING_FINGERPRINT = "auto_profile_merging_fingerprint"

DEFAULT_ADMIN = "admin@localhost"
PASSWORD_CHARS_MIN = 8
REST_BRIDGE = Named(id="778ded05-4ff3-4e08-9a86-72c0195fa95d", name="REST API Bridge")

_EMAIL = re.compile(r"[^@\s]+@[^@\s]+")


class InstallReport(Struct):
    """What an installation did. ``password`` was generated in this run and is shown nowhere else, ever."""

    lines: list[str] = field(default_factory=list)
    """One sentence per change; [] when everything was there."""
    username: str | None = None
    """The administrator that was made or given."""
    password: str | None = None


async def install(
    settings: Settings,
    registry: Registry,
    *,
    username: str | None = None,
    password: str | None = None,
    token: str | None = None,
) -> InstallReport:
    """Bring ``registry`` (entered) to what ``settings`` need.

    With a username or password, that administrator is made, or gets the password; otherwise ``admin@localhost`` with a
    generated one, if there is no administrator. ``token``, if given, has to be ``INSTALLATION_TOKEN``.

    Raises ``BadInput`` (403 token or login, 422 password) before anything is changed, ``Misconfigured`` for a setting
    that can't change any more, ``Unavailable``.
    """
    if token is not None:
        _check_token(settings, token)
    _check_login(username, password)
    check_merging(settings)
    report = InstallReport(lines=await registry.migrate())
    for key, wanted in _decisions(settings):
        _check_decision(key, wanted, await registry.locked(key, wanted))
    await _make_secret(registry, report)
    if await registry.seed_source(default_source()):
        report.lines.append("made the open REST event source: default")
    if username is not None or password is not None:
        await _given_admin(registry, report, username or DEFAULT_ADMIN, password)
    else:
        await _first_admin(registry, report)
    return report


def default_source() -> EventSource:
    return EventSource(
        id="default",
        name="Open REST source",
        type=["rest"],
        bridge=REST_BRIDGE,
        channel="Web",
        description="Made at installation. Takes events from anybody; delete or disable it when you have your own.",
        groups=["REST"],
        tags=["rest"],
    )


def check_merging(settings: Settings) -> None:
    """Raises ``Misconfigured`` for settings of merging that can't be served with."""
    merging_of(settings)
    secret = settings.auto_profile_merging
    if secret != DEFAULT_MERGING_SECRET:
        if len(secret) < MERGING_SECRET_CHARS_MIN:
            raise Misconfigured(
                "auto_profile_merging",
                f"has {len(secret)} characters.",
                f"Give at least {MERGING_SECRET_CHARS_MIN}: `openssl rand -hex 16` makes 32.",
            )
        return
    for key in ("store_url", "registry_url"):
        scheme = getattr(settings, key).partition(":")[0].lower()
        if settings.apm and scheme not in EMBEDDED:
            raise Misconfigured(
                "auto_profile_merging",
                f"is the default, which everybody knows, and {key} is {scheme}: no trial any more.",
                "Choose a secret of at least 20 characters, the same on every process and for ever "
                "(`openssl rand -hex 16` makes one), or turn merging off with APM=no.",
            )


def _check_token(settings: Settings, token: str) -> None:
    if not settings.installation_token:
        raise BadInput(403, "Installation forbidden: INSTALLATION_TOKEN is not set.")
    if not hmac.compare_digest(settings.installation_token.encode(), token.encode("utf-8", "surrogatepass")):
        raise BadInput(403, "Installation forbidden: wrong installation token.")


def _check_login(username: str | None, password: str | None) -> None:
    if username is not None and not _EMAIL.fullmatch(username.strip()):
        raise BadInput(403, "The username has to be an e-mail address.")
    if password is not None and len(password) < PASSWORD_CHARS_MIN:
        raise BadInput(422, f"The password needs at least {PASSWORD_CHARS_MIN} characters.")


def _decisions(settings: Settings) -> list[tuple[str, str]]:
    """What is decided once: names in the registry, and what the settings say now."""
    found = [(key, str(getattr(settings, key))) for key in LOCKED]
    if settings.apm:
        # As a fingerprint: the registry need not know it, nor any message show it.
        wanted = hashlib.sha256(f"merging:{settings.auto_profile_merging}".encode()).hexdigest()
        found.append((MERGING_FINGERPRINT, wanted))
    return found


def _check_decision(key: str, wanted: str, holds: str) -> None:
    if holds == wanted:
        return
    if key == MERGING_FINGERPRINT:
        raise Misconfigured(
            "auto_profile_merging",
            "is another than when this installation was made; with it, nobody who comes back would be recognised.",
            f"Set it to what it was, {ANEW}.",
        )
    raise Misconfigured(
        key,
        f"is {wanted}, but was {holds} when this installation was made, and can't change.",
        f"Set it to {holds}, {ANEW}.",
    )


async def planned(settings: Settings, registry: Registry) -> list[str]:
    """What ``install`` without a login would do to a registry whose schema is up to date; raises as it does."""
    check_merging(settings)
    lines = []
    for key, wanted in _decisions(settings):
        holds = await registry.decided(key)
        if holds is None:
            lines.append("fix the merging secret" if key == MERGING_FINGERPRINT else f"fix {key} as {wanted}")
        else:
            _check_decision(key, wanted, holds)
    if not any("admin" in user.roles for user in await registry.users()):
        lines.append(f"make the administrator {DEFAULT_ADMIN} with a generated password")
    return lines


async def _make_secret(registry: Registry, report: InstallReport) -> None:
    mine = secrets.token_urlsafe(32)
    if await registry.secret(IDENTITY_SECRET, lambda: mine) == [mine]:
        report.lines.append("made the secret that profile ids are issued with")


async def _given_admin(registry: Registry, report: InstallReport, username: str, password: str | None) -> None:
    user = await registry.user(username)
    report.username = username
    if password is None:
        if user is None:
            await _create_admin(registry, report, username)
        return
    if user is None:
        user = User(id=username, name=username.partition("@")[0], roles=["admin"])
        report.lines.append(f"made the administrator {username}")
    else:
        if user.enabled and "admin" in user.roles and await _has_password(registry, username, password):
            return
        user.enabled = True
        user.roles = user.roles if "admin" in user.roles else [*user.roles, "admin"]
        report.lines.append(f"set the password of {username}")
    await registry.save_user(user, password)


async def _has_password(registry: Registry, username: str, password: str) -> bool:
    try:
        return await registry.authenticate(username, password) is not None
    except BadInput:
        # Locked after too many wrong guesses: setting it is what the operator asked for.
        return False


async def _first_admin(registry: Registry, report: InstallReport) -> None:
    if not any("admin" in user.roles for user in await registry.users()):
        await _create_admin(registry, report, DEFAULT_ADMIN)


async def _create_admin(registry: Registry, report: InstallReport, username: str) -> None:
    password = secrets.token_urlsafe(12)
    user = User(id=username, name=username.partition("@")[0], roles=["admin"])
    # Create-if-absent: of two processes that start together, only one shows a password, and it is the right one.
    if await registry.create_user(user, password):
        report.username, report.password = username, password
        report.lines.append(f"made the administrator {username} with a generated password")
