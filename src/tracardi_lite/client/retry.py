"""When to try again, as arithmetic: exponential backoff with full jitter, bounded in tries and in time."""

from __future__ import annotations

from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

from msgspec import Struct

_LATER = frozenset({408, 425, 429})


class RetryPolicy(Struct, frozen=True, kw_only=True):
    """Bounds of one call's attempts. Full jitter: a pause is drawn from 0 to its ceiling, so that many clients
    that failed together do not come back together."""

    tries: int = 8
    """Attempts in all, the first one included. 1: never again."""
    base_s: float = 0.25
    """Ceiling of the first pause, in seconds; it doubles with each attempt."""
    cap_s: float = 30.0
    """Highest ceiling of a pause, in seconds."""
    give_up_after_s: float = 120.0
    """No attempt begins later than this after the first, in seconds."""

    def pause(self, tried: int, elapsed_s: float, draw: float, retry_after_s: float | None = None) -> float | None:
        """Seconds to wait after ``tried`` failed attempts; None: give up.

        ``draw`` is from [0, 1). A server's ``retry_after_s`` is a floor that is never undercut: when it lies past
        the bound, the answer is None.
        """
        if tried >= self.tries:
            return None
        # Past 2⁶⁴ the cap has long won; the exponent is bounded so that the power stays a float.
        ceiling = min(self.cap_s, self.base_s * 2.0 ** min(tried - 1, 64))
        pause = draw * ceiling
        if retry_after_s is not None:
            pause = retry_after_s + draw * min(ceiling, self.base_s)
        return pause if elapsed_s + pause <= self.give_up_after_s else None


def is_temporary(status: int) -> bool:
    """Whether the same call may succeed later: 5xx, too many requests, too early, timed out."""
    return status >= 500 or status in _LATER


def retry_after_s(header: str | None, now: datetime) -> float | None:
    """Seconds that a ``Retry-After`` asks for (RFC 9110 §10.2.3: seconds or a date); None: it says nothing."""
    if header is None:
        return None
    text = header.strip()
    if text.isascii() and text.isdigit():
        # Bounded, since a header of a thousand digits is legal syntax and no float.
        return float(min(int(text[:12]), 10**9))
    try:
        at = parsedate_to_datetime(text)
    except ValueError:
        return None
    if at.tzinfo is None:
        at = at.replace(tzinfo=UTC)
    return max(0.0, (at - now).total_seconds())
