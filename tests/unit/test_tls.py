"""What is said of a server that TLS fails with, by the ssl module's own errors: real handshakes on loopback."""

from __future__ import annotations

import asyncio
import ssl
from datetime import UTC, datetime
from pathlib import Path

import pytest
import trustme

from tracardi_lite import tls
from tracardi_lite.errors import Misconfigured, Unavailable, Untrusted
from tracardi_lite.settings import Settings

LONG_AGO = datetime(2020, 1, 1, tzinfo=UTC)


async def failing(context: ssl.SSLContext, issued: trustme.LeafCert) -> BaseException:
    """What a client gets from a handshake with a server that shows ``issued``."""
    served = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    issued.configure_cert(served)
    server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0, ssl=served)
    async with server:
        with pytest.raises(OSError, match=r".") as failed:
            await asyncio.open_connection(*server.sockets[0].getsockname(), ssl=context, server_hostname="localhost")
    return failed.value


@pytest.fixture
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture
def settings(authority: trustme.CA, tmp_path: Path) -> Settings:
    file = tmp_path / "authority.pem"
    authority.cert_pem.write_to_path(str(file))
    return Settings(redis_ca_file=str(file))


async def test_a_certificate_that_has_expired_is_waited_for_since_no_setting_mends_it(
    authority: trustme.CA, settings: Settings
) -> None:
    error = await failing(tls.context(settings, "redis"), authority.issue_cert("localhost", not_after=LONG_AGO))
    said = tls.fault("cache", "redis", error)
    assert type(said) is Unavailable
    assert "redis_host" in said.reason
    assert "expired" in said.reason


@pytest.mark.parametrize(("name", "key"), [("elsewhere", "redis_host"), ("localhost", "redis_ca_file")])
async def test_the_setting_to_be_changed_is_named(
    authority: trustme.CA, settings: Settings, name: str, key: str
) -> None:
    issuer = authority if name == "elsewhere" else trustme.CA()
    said = tls.fault("cache", "redis", await failing(tls.context(settings, "redis"), issuer.issue_cert(name)))
    assert isinstance(said, Untrusted)
    assert said.key == key
    assert said.fix in str(said)


async def test_the_cause_is_found_however_a_client_library_wraps_it(authority: trustme.CA) -> None:
    error = await failing(tls.context(Settings(), "mysql"), authority.issue_cert("localhost"))

    class Wrapping(Exception):
        errors = (ValueError("another node"), error)

    try:
        try:
            raise RuntimeError("first") from error
        except RuntimeError:
            raise KeyError("second")  # noqa: B904  # as some libraries do
    except KeyError as chained:
        assert isinstance(tls.fault("registry", "mysql", chained), Untrusted)
    assert isinstance(tls.fault("registry", "mysql", Wrapping()), Untrusted)
    looped = OSError("refused")
    looped.__context__ = RuntimeError("refused")
    looped.__context__.__context__ = looped
    assert tls.fault("registry", "mysql", looped) is None


def test_a_file_of_certificates_that_cannot_be_read_is_named_with_its_setting(tmp_path: Path) -> None:
    with pytest.raises(Misconfigured, match=r"elastic_ca_file: .*nowhere.* No such file") as bad:
        tls.context(Settings(elastic_ca_file=str(tmp_path / "nowhere")), "elastic")
    assert bad.value.key == "elastic_ca_file"


@pytest.mark.parametrize("server", ["elastic", "mysql", "pulsar", "redis"])
def test_every_server_is_checked_unless_told_not_to(server: str) -> None:
    strict = tls.context(Settings(), server)
    assert (strict.verify_mode, strict.check_hostname) == (ssl.CERT_REQUIRED, True)
    lax = tls.context(Settings(**{f"{server}_verify_certs": False}), server)
    assert (lax.verify_mode, lax.check_hostname) == (ssl.CERT_NONE, False)


def test_a_server_that_ends_in_the_middle_is_away_and_not_misconfigured() -> None:
    assert tls.fault("registry", "mysql", ssl.SSLEOFError(8, "EOF occurred in violation of protocol")) is None
