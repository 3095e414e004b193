"""Certificates for tests: a private authority, a server's certificate of it, and another authority."""

from __future__ import annotations

import ssl
from pathlib import Path

import trustme
from cryptography.hazmat.primitives import serialization

NAME = "localhost"
"""The one name that the server's certificate is for; 127.0.0.1 leads there too, and is a wrong one."""


class Certificates:
    """PEM files in ``folder``."""

    def __init__(self, folder: Path) -> None:
        self.authority = str(folder / "authority.pem")
        self.stranger = str(folder / "stranger.pem")
        authority, stranger = trustme.CA(), trustme.CA()
        authority.cert_pem.write_to_path(self.authority)
        stranger.cert_pem.write_to_path(self.stranger)
        self.chain, self.key = _issued(authority, folder / "server")
        self.strange_chain, self.strange_key = _issued(stranger, folder / "strange")
        """Of the other authority, for the same name."""

    def served(self) -> ssl.SSLContext:
        """What a server of Python's own speaks TLS with."""
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(self.chain, self.key)
        return context


def _issued(authority: trustme.CA, file: Path) -> tuple[str, str]:
    """A certificate for ``NAME`` with its chain, and its key."""
    issued = authority.issue_cert(NAME, key_type=trustme.KeyType.RSA)
    chain, key = file.with_suffix(".pem"), file.with_suffix(".key")
    chain.write_bytes(b"".join(each.bytes() for each in issued.cert_chain_pems))
    # PKCS #8, the one form that Pulsar reads.
    pem, pkcs8, plain = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    loaded = serialization.load_pem_private_key(issued.private_key_pem.bytes(), None)
    key.write_bytes(loaded.private_bytes(pem, pkcs8, plain))
    return str(chain), str(key)
