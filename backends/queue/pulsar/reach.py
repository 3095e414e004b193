"""Whether a broker is there and to be trusted, asked before the client is: that waits seconds for what was refused at
once, and says ``ConnectError`` to every fault of TLS."""

from __future__ import annotations

import asyncio
import ssl
from contextlib import suppress
from urllib.parse import urlsplit

from tracardi_lite import tls
from tracardi_lite.errors import Unavailable

CONNECT_S = 3.0
HANDSHAKE_S = 3.0


async def check(service_url: str, context: ssl.SSLContext | None) -> None:
    """Connect to the first broker that answers, and shake hands with it where there is a ``context``.

    ``Unavailable`` when there is none or it does not speak TLS, ``Untrusted`` when it is not to be trusted.
    """
    reasons = []
    for host in service_url.partition("://")[2].split(","):
        place = urlsplit(f"//{host}")
        try:
            async with asyncio.timeout(CONNECT_S):
                _, writer = await asyncio.open_connection(place.hostname, place.port)
        except (OSError, TimeoutError) as error:
            reasons.append(f"{host}: {str(error) or f'no answer within {CONNECT_S:g} s'}")
            continue
        try:
            if context is not None:
                await _shake_hands(writer, context, place.hostname)
        finally:
            writer.close()
            with suppress(OSError):
                await writer.wait_closed()
        return
    raise Unavailable("queue", f"no broker of {service_url} (PULSAR_HOST) can be reached: {'; '.join(reasons)}")


async def _shake_hands(writer: asyncio.StreamWriter, context: ssl.SSLContext, name: str | None) -> None:
    try:
        async with asyncio.timeout(HANDSHAKE_S):
            await writer.start_tls(context, server_hostname=name)
    except (OSError, TimeoutError) as error:
        reason = str(error) or f"no answer within {HANDSHAKE_S:g} s"
        raise tls.fault("queue", "pulsar", error) or tls.no_tls("queue", "pulsar_host", reason) from error
