"""Errors, few, and chosen by what the caller does next.

* ``BadInput``: the sender is wrong. 4xx at the door, a dead letter in a worker.
* ``TryLater``: the world is wrong for now. 503 with Retry-After at the door, back off in a worker.
* ``Misconfigured``: the operator is wrong. Stop the start and name the key.
* anything else is a bug: let it crash its task, and show.

Backends turn their client's exceptions into these once, at their edge, keeping the cause.
"""

from __future__ import annotations


class TracardiLiteError(Exception):
    """Root of every error that this program raises on purpose."""


class BadInput(TracardiLiteError):
    """A request that can never succeed as it is.

    ``status`` is the HTTP status for it; ``detail`` is JSON-encodable and never repeats the payload.
    ``retry_after_s`` is set for 429: when asking again makes sense.
    """

    def __init__(self, status: int, detail: object, *, retry_after_s: float | None = None) -> None:
        super().__init__(detail)
        self.status = status
        self.detail = detail
        self.retry_after_s = retry_after_s


class TryLater(TracardiLiteError):
    """A part is full or away; the same call may succeed after ``retry_after_s`` seconds.

    ``part`` names it in health, logs and the answer: ``queue``, ``store``, ``registry``, ``cache``, ``disk``.
    """

    def __init__(self, part: str, reason: str, retry_after_s: float = 1.0) -> None:
        super().__init__(f"{part}: {reason}")
        self.part = part
        self.reason = reason
        self.retry_after_s = retry_after_s


class Full(TryLater):
    """A bound was hit (items, bytes, disk): the part works, and has no room now."""


class Unavailable(TryLater):
    """The part does not answer, or answers with faults."""


class Untrusted(Unavailable):
    """A server has shown a certificate that the settings don't trust. Nothing was sent to it.

    At start that is a setting to be corrected, and ends the start as ``Misconfigured`` does; later it may be a
    certificate that is being replaced, and is tried again.
    """

    def __init__(self, part: str, key: str, problem: str, fix: str) -> None:
        super().__init__(part, f"{key}: {problem} {fix}", 5.0)
        self.key = key
        self.problem = problem
        self.fix = fix


class LeaseLost(TracardiLiteError):
    """A late act of a consumer whose partition has moved on. Nothing was changed; drop the work."""


class Misconfigured(TracardiLiteError):
    """A setting that the program cannot start with.

    ``key`` is the setting's name as the user wrote it, ``fix`` a sentence that says what to do.
    """

    def __init__(self, key: str, problem: str, fix: str = "") -> None:
        super().__init__(f"{key}: {problem}" + (f" {fix}" if fix else ""))
        self.key = key
        self.problem = problem
        self.fix = fix
