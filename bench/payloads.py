"""Events made in advance for the measurements that need a client with feedback, which wrk is not."""

from __future__ import annotations

import random

from tracardi_lite.client import Event

EVENTS = 100
_WORDS = [
    *("basket", "checkout", "blue", "running", "shoe", "newsletter", "summer", "campaign", "payment", "mobile"),
    *("discount", "delivery", "warsaw", "berlin", "lisbon", "premium", "search", "filter", "colour", "size", "review"),
]


def session(random_: random.Random, pool: int = 5000) -> str:
    """Whose call it is: three in four times one of a pool, else a new one."""
    new = random_.random() < 0.25
    return f"new-{random_.getrandbits(64):x}" if new else f"pool-{random_.randrange(pool)}"


def chunks(random_: random.Random, count: int) -> list[list[Event]]:
    """Calls' worth of events: EVENTS of about 1.15 KB each, without ids."""
    return [[_event(random_) for _ in range(EVENTS)] for _ in range(count)]


def _event(random_: random.Random) -> Event:
    properties = {
        "product": _text(random_, 20),
        "price": round(random_.random() * 500, 2),
        "quantity": random_.randrange(1, 10),
        "path": f"/{random_.choice(_WORDS)}/{random_.randrange(10**6)}",
        "tags": random_.choices(_WORDS, k=2),
        "description": _text(random_, 420),
        "comment": _text(random_, 330),
    }
    page = {"url": f"https://shop.example/{random_.randrange(10**6)}", "title": _text(random_, 30)}
    kind = random_.choice(["page-view", "product-viewed", "item-picked", "search-made"])
    return Event(kind, properties, id="", context={"page": page})


def _text(random_: random.Random, size: int) -> str:
    """Words and numbers, six to four, so that it compresses like text and no better."""
    parts: list[str] = []
    length = 0
    while length < size:
        parts.append(random_.choice(_WORDS) if random_.random() < 0.6 else f"{random_.getrandbits(31):08x}")
        length += len(parts[-1]) + 1
    return " ".join(parts)
