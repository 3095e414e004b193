"""Where Redis is, from URL and settings."""

from __future__ import annotations

import ssl
from typing import Any

import pytest
from redis.asyncio import Redis

from tracardi_lite.errors import Misconfigured
from tracardi_lite.settings import Settings
from tracardi_lite.settings.redis import connect, redis_options


@pytest.mark.parametrize(
    ("url", "chosen", "expected"),
    [
        ("redis:", {"redis_host": "cache"}, ("cache", 6379, 0)),
        ("redis:", {"redis_host": "cache:7000", "redis_db": 3}, ("cache", 7000, 3)),
        ("redis:", {"redis_host": "redis://cache/2", "redis_port": 7001}, ("cache", 7001, 2)),
        ("redis://other:1/5", {"redis_host": "cache", "redis_db": 3}, ("other", 1, 5)),
        ("redis://[::1]:1", {}, ("::1", 1, 0)),
    ],
)
def test_an_address_is_made_of_url_and_settings(
    url: str, chosen: dict[str, Any], expected: tuple[str, int, int]
) -> None:
    found = redis_options(url, Settings(**chosen))
    assert (found["host"], found["port"], found["db"]) == expected
    assert "ssl" not in found


def test_credentials_come_from_either_and_the_url_wins() -> None:
    settings = Settings(redis_username="u", redis_password="p")
    assert redis_options("redis://h", settings)["password"] == "p"
    found = redis_options("redis://x:a%40b@h", settings)
    assert (found["username"], found["password"]) == ("x", "a@b")


@pytest.mark.parametrize(("url", "tls"), [("rediss://h", False), ("redis://h", True)])
def test_tls_is_checked_unless_told_not_to(url: str, tls: bool) -> None:
    strict = redis_options(url, Settings(redis_tls=tls))
    assert (strict["ssl"], strict["tls"].verify_mode, strict["tls"].check_hostname) == (True, ssl.CERT_REQUIRED, True)
    lax = redis_options(url, Settings(redis_tls=tls, redis_verify_certs=False))
    assert (lax["ssl"], lax["tls"].verify_mode, lax["tls"].check_hostname) == (True, ssl.CERT_NONE, False)


@pytest.mark.parametrize("verified", [True, False])
async def test_connections_share_one_context_and_trust_nobody_else(verified: bool) -> None:
    options = redis_options("rediss://h", Settings(redis_verify_certs=verified))
    client = connect(Redis, options, max_connections=2)
    made = [client.connection_pool.make_connection() for _ in range(2)]
    assert [each.ssl_context.get() for each in made] == [options["tls"]] * 2
    await client.aclose()


@pytest.mark.parametrize("url", ["redis:", "redis://", "redis://h:x", "redis://h/db"])
def test_an_address_that_is_none_is_the_operator_s_mistake(url: str) -> None:
    with pytest.raises(Misconfigured):
        redis_options(url, Settings())
