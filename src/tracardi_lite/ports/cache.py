"""The cache port: small values for a while. Losing it, or any entry, may slow things and never breaks them.

Calls do not raise for a cache that is away: ``get`` answers misses, ``set`` and ``delete`` do nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Protocol, Self


class Cache(Protocol):
    async def __aenter__(self) -> Self: ...

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    async def get(self, keys: Sequence[str]) -> list[bytes | None]: ...

    async def set(self, values: Mapping[str, bytes], ttl_s: float) -> None: ...

    async def delete(self, keys: Sequence[str]) -> None: ...

    async def ping(self) -> None:
        """Raises ``Unavailable`` when it is away; only health asks."""
        ...
