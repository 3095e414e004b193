"""Passwords as argon2id (RFC 9106), in a thread, one at a time.

Of the parameters that OWASP's password storage cheat sheet calls equal, these need the least memory: 7 MiB, some
20 ms. glibc keeps what a thread once used, so argon2-cffi's default of 64 MiB would stay in the process after a login
and take most of an API's budget of 90. One at a time bounds the memory under a flood of logins; ``WAITING_MAX`` bounds
the queue for it, and with it the wait to about a second.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from functools import cache
from typing import TYPE_CHECKING

from tracardi_lite.errors import Unavailable

if TYPE_CHECKING:
    from argon2 import PasswordHasher

MEMORY_KIB = 7 * 1024
PASSES = 5
LANES = 1
WAITING_MAX = 32

NOBODY = "$argon2id$v=19$m=7168,t=5,p=1$M2tlx3L9pBWgrrH8AhP3Qw$Xy/td9gvix+GLSDLUsucn/qQ1QLiezV0PxE3Ue6Wet8"
"""A hash with no known password and today's parameters, checked when there is no user, so that it takes as long."""


class Passwords:
    def __init__(self) -> None:
        self._turn = asyncio.Lock()
        self._waiting = 0

    @contextlib.asynccontextmanager
    async def turn(self) -> AsyncIterator[None]:
        """Hold this around ``hash`` and ``verify``. ``Unavailable`` when too many wait."""
        if self._waiting >= WAITING_MAX:
            raise Unavailable("registry", "too many logins at once")
        self._waiting += 1
        try:
            async with self._turn:
                yield
        finally:
            self._waiting -= 1

    async def hash(self, password: str) -> str:
        return await asyncio.to_thread(lambda: _hasher().hash(password.encode("utf-8", "surrogatepass")))

    async def verify(self, hashed: str | None, password: str) -> bool:
        """Whether the password is the one; False, after the same time, for None."""
        return await asyncio.to_thread(_verify, hashed, password)

    def outdated(self, hashed: str) -> bool:
        """Whether it was made with other parameters than today's."""
        return _hasher().check_needs_rehash(hashed)


def _verify(hashed: str | None, password: str) -> bool:
    from argon2.exceptions import InvalidHashError, VerificationError

    try:
        return _hasher().verify(hashed or NOBODY, password.encode("utf-8", "surrogatepass")) and hashed is not None
    except (VerificationError, InvalidHashError):
        return False


@cache
def _hasher() -> PasswordHasher:
    from argon2 import PasswordHasher

    return PasswordHasher(time_cost=PASSES, memory_cost=MEMORY_KIB, parallelism=LANES)
