"""Whether the brokers can be trusted, asked before the client is: it says ``ConnectError`` to every fault of TLS."""

from __future__ import annotations

import asyncio
import ssl
from contextlib import suppress
from urllib.parse import urlsplit

from tracardi_lite import tls

CONNECT_S = 3.0
HANDSHAKE_S = 3.0


async def check(service_url: str, context: ssl.SSLContext) -> None:
    """Shake hands with the first broker that answers. ``Untrusted`` for one that is not trusted, ``Unavailable`` for
    one that does not speak TLS; nothing for brokers that are away, which are the client's to find out."""
    for host in service_url.partition("://")[2].split(","):
        place = urlsplit(f"//{host}")
        try:
            async with asyncio.timeout(CONNECT_S):
                _, writer = await asyncio.open_connection(place.hostname, place.port)
        except (OSError, TimeoutError):
            continue
        try:
            async with asyncio.timeout(HANDSHAKE_S):
                await writer.start_tls(context, server_hostname=place.hostname)
        except (OSError, TimeoutError) as error:
            reason = str(error) or f"no answer within {HANDSHAKE_S:g} s"
            raise tls.fault("queue", "pulsar", error) or tls.no_tls("queue", "pulsar_host", reason) from error
        finally:
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()
        return
