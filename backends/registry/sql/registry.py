"""The registry port on SQL: each method is a check, a hash or a clock reading around one piece of work.

Bounds: a login may fail ``FAILURES_MAX`` times in ``FAILURES_WINDOW_MS``, counted in the database and so over all
processes (an attempt that is being checked in another process at that moment may slip through); a token's expiry is
written at most ten times per life, so that reading with it is nearly free.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Hashable
from types import TracebackType
from typing import Self

from tracardi_lite.backends.registry.sql import accounts, catalog, rules, state
from tracardi_lite.backends.registry.sql.database import Database
from tracardi_lite.backends.registry.sql.migrate import migrate, pending
from tracardi_lite.backends.registry.sql.passwords import Passwords
from tracardi_lite.clock import Clock
from tracardi_lite.errors import BadInput, Unavailable
from tracardi_lite.ports.registry import RULES_MAX, EventSource, Redirect, Rule, User

TOKEN_BYTES = 32
TOKEN_CHARS_MAX = 256
PASSWORD_BYTES_MAX = 1024
ROTATE_TRIES = 10


class SqlRegistry:
    def __init__(self, database: Database, *, production: bool, clock: Clock) -> None:
        self._database = database
        self._context = "production" if production else "staging"
        self._clock = clock
        self._passwords = Passwords()
        self._revision: tuple[Hashable | None, int] | None = None
        """The rules' revision as it was last read, and the database's stamp before that."""

    async def __aenter__(self) -> Self:
        await self._database.open()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._database.close()

    async def migrate(self) -> list[str]:
        return await migrate(self._database)

    async def provision(self, *, dry_run: bool = False) -> list[str]:
        """The schema; see ``ports.provision``."""
        try:
            if not dry_run:
                await self._database.open()
            return await (pending if dry_run else migrate)(self._database)
        finally:
            await self._database.close()

    async def ping(self) -> None:
        await self._database.read(state.get_decision, "tenant_name")

    # --- sources and redirects ---

    async def source(self, id: str) -> EventSource | None:
        return await self._database.read(catalog.get_source, self._context, id)

    async def sources(self, query: str = "", limit: int = 1000) -> list[EventSource]:
        return await self._database.read(catalog.list_sources, self._context, query, limit)

    async def save_source(self, source: EventSource) -> None:
        record = catalog.checked_source(source)
        await self._database.write(catalog.save_source, self._context, source, record, self._clock.now_ms())

    async def seed_source(self, source: EventSource) -> bool:
        record, nonce = catalog.checked_source(source), secrets.token_hex(16)
        now_ms = self._clock.now_ms()
        return await self._database.write(catalog.seed_source, self._context, source, record, now_ms, nonce)

    async def delete_source(self, id: str) -> EventSource | None:
        return await self._database.write(catalog.delete_source, self._context, id)

    async def redirect(self, id: str) -> Redirect | None:
        return await self._database.read(catalog.get_redirect, self._context, id)

    async def redirects(self, limit: int = 1000) -> list[Redirect]:
        return await self._database.read(catalog.list_redirects, self._context, limit)

    async def save_redirect(self, redirect: Redirect) -> None:
        record = catalog.checked_redirect(redirect)
        await self._database.write(catalog.save_redirect, self._context, redirect, record, self._clock.now_ms())

    async def delete_redirect(self, id: str) -> bool:
        return await self._database.write(catalog.delete_redirect, self._context, id)

    # --- rules ---

    async def rule(self, kind: str, id: str) -> Rule | None:
        return await self._database.read(rules.get_rule, self._context, kind, id)

    async def rules(self, kind: str = "", query: str = "", limit: int = RULES_MAX) -> list[Rule]:
        return await self._database.read(rules.list_rules, self._context, kind, query, limit)

    async def rules_revision(self) -> int:
        """Asked for about once a second, by processes that should cost nothing while nothing happens."""
        stamp = self._database.stamp()
        if stamp is None or self._revision is None or self._revision[0] != stamp:
            self._revision = stamp, await self._database.read(rules.get_revision, self._context)
        return self._revision[1]

    async def save_rule(self, rule: Rule) -> None:
        record = rules.checked_rule(rule)
        await self._database.write(rules.save_rule, self._context, rule, record, self._clock.now_ms())

    async def delete_rule(self, kind: str, id: str) -> Rule | None:
        return await self._database.write(rules.delete_rule, self._context, kind, id)

    # --- users ---

    async def user(self, id: str) -> User | None:
        return await self._database.read(accounts.get_user, accounts.folded(id))

    async def users(self) -> list[User]:
        return await self._database.read(accounts.list_users)

    async def create_user(self, user: User, password: str) -> bool:
        user = _checked(user, password)
        async with self._passwords.turn():
            hashed = await self._passwords.hash(password)
        return await self._database.write(accounts.create_user, user, hashed, self._clock.now_ms())

    async def save_user(self, user: User, password: str | None) -> None:
        user = _checked(user, password)
        hashed = None
        if password is not None:
            known = await self._database.read(accounts.get_credentials, user.id)
            async with self._passwords.turn():
                # The password that the user has already is no change: it must not end their sessions.
                if known is None or not await self._passwords.verify(known[1], password):
                    hashed = await self._passwords.hash(password)
        await self._database.write(accounts.save_user, user, hashed, self._clock.now_ms())

    async def authenticate(self, id: str, password: str, place: str = "") -> User | None:
        login = accounts.folded(id)
        # One at a time from the check to the count, so that parallel guesses can't overrun the limit.
        async with self._passwords.turn():
            wait_ms = await self._database.read(accounts.locked_out_ms, login, place, self._clock.now_ms())
            if wait_ms:
                wait_s = -(-wait_ms // 1000)
                raise BadInput(429, f"too many failed logins, try again in {wait_s} s", retry_after_s=wait_s)
            known = await self._database.read(accounts.get_credentials, login)
            user, hashed = known or (None, None)
            fits = len(password.encode("utf-8", "surrogatepass")) <= PASSWORD_BYTES_MAX
            right = await self._passwords.verify(hashed, password if fits else "")
            if not right or not fits or user is None or hashed is None or not user.enabled:
                await self._database.write(accounts.note_failure, login, place, self._clock.now_ms())
                return None
            await self._database.write(accounts.forget_failures, login, place)
            if self._passwords.outdated(hashed):
                await self._database.write(accounts.rehash, login, hashed, await self._passwords.hash(password))
        return user

    # --- tokens ---

    async def issue_token(self, user_id: str, ttl_s: int) -> str:
        token, now_ms = secrets.token_urlsafe(TOKEN_BYTES), self._clock.now_ms()
        user_id = accounts.folded(user_id)
        await self._database.write(accounts.add_token, token, user_id, now_ms, now_ms + ttl_s * 1000)
        return token

    async def check_token(self, token: str, ttl_s: int) -> User | None:
        if not 0 < len(token) <= TOKEN_CHARS_MAX:
            return None
        now_ms, ttl_ms = self._clock.now_ms(), ttl_s * 1000
        found = await self._database.read(accounts.get_token, token, now_ms)
        if found is None:
            return None
        user, expires_ms = found
        if expires_ms <= now_ms + ttl_ms - ttl_ms // 10:
            await self._database.write(accounts.extend_token, token, now_ms + ttl_ms)
        return user

    async def revoke_token(self, token: str) -> bool:
        return await self._database.write(accounts.delete_token, token)

    # --- the installation's own state ---

    async def secret(self, name: str, make: Callable[[], str]) -> list[str]:
        values = await self._database.read(state.get_secret, name)
        return values or await self._database.write(state.make_secret, name, make(), self._clock.now_ms())

    async def rotate_secret(self, name: str, value: str) -> None:
        for _ in range(ROTATE_TRIES):
            if await self._database.write(state.add_secret, name, value, self._clock.now_ms()):
                return
        raise Unavailable("registry", f"secret {name} is being rotated by others")

    async def locked(self, key: str, value: str) -> str:
        holds = await self._database.read(state.get_decision, key)
        if holds is not None:
            return holds
        return await self._database.write(state.decide, key, value, self._clock.now_ms())

    async def decided(self, key: str) -> str | None:
        return await self._database.read(state.get_decision, key)


def _checked(user: User, password: str | None) -> User:
    """The user under the folded login. Raises ``BadInput`` 422."""
    accounts.check_user(user)
    if password is not None and not 0 < len(password.encode("utf-8", "surrogatepass")) <= PASSWORD_BYTES_MAX:
        raise BadInput(422, f"A password has 1 to {PASSWORD_BYTES_MAX} bytes.")
    return User(id=accounts.folded(user.id), name=user.name, roles=user.roles, enabled=user.enabled)
