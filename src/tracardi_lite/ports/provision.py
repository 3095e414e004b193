"""What a backend may offer beyond its port: making what it needs in a server that is not ours, ahead of serving.

``tracardi-lite install`` asks for it. A backend without it makes what it needs when it is opened.
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable


@runtime_checkable
class Provisioned(Protocol):
    async def provision(self, *, dry_run: bool = False) -> list[str]:
        """Make what is missing and set what differs; one line for each change ([] when all is as it should be).

        Idempotent. With ``dry_run`` nothing is changed, and the lines say what would be. Works on a backend that has
        been made and not entered, and leaves nothing open then. Raises ``Misconfigured``, changing nothing, for a
        setting that does not fit what is there and can't be changed any more; ``Unavailable``; ``BadInput`` for what
        the server is not set up for.
        """
        ...


@runtime_checkable
class Policed(Protocol):
    """A queue whose server keeps and moves messages by a policy of its own, which ``provision`` sets."""

    async def policy(self) -> list[tuple[str, str]]:
        """What holds now, name and value, for people. On the same terms as ``provision``."""
        ...
