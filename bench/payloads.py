"""Posts made in advance for the measurements that need a client with feedback, which wrk is not."""

from __future__ import annotations

import json
import random

EVENTS = 100
_WORDS = [
    *("basket", "checkout", "blue", "running", "shoe", "newsletter", "summer", "campaign", "payment", "mobile"),
    *("discount", "delivery", "warsaw", "berlin", "lisbon", "premium", "search", "filter", "colour", "size", "review"),
]


def post(random_: random.Random, chunk: bytes, pool: int = 5000) -> bytes:
    """A call with ``chunk``'s events for one session: three in four times one of a pool, else a new one."""
    new = random_.random() < 0.25
    session = f"new-{random_.getrandbits(64):x}" if new else f"pool-{random_.randrange(pool)}"
    return b'{"source":{"id":"default"},"session":{"id":"%s"},%s' % (session.encode(), chunk)


def chunks(random_: random.Random, count: int) -> list[bytes]:
    """Ends of calls with EVENTS events of about 1.15 KB each."""
    return [
        b'"events":' + json.dumps([_event(random_) for _ in range(EVENTS)], separators=(",", ":")).encode() + b"}"
        for _ in range(count)
    ]


def _event(random_: random.Random) -> dict[str, object]:
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
    return {"type": kind, "properties": properties, "context": {"page": page}}


def _text(random_: random.Random, size: int) -> str:
    """Words and numbers, six to four, so that it compresses like text and no better."""
    parts: list[str] = []
    length = 0
    while length < size:
        parts.append(random_.choice(_WORDS) if random_.random() < 0.6 else f"{random_.getrandbits(31):08x}")
        length += len(parts[-1]) + 1
    return " ".join(parts)
