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
        self.chain = str(folder / "server.pem")
        self.key = str(folder / "server.key")
        authority = trustme.CA()
        authority.cert_pem.write_to_path(self.authority)
        trustme.CA().cert_pem.write_to_path(self.stranger)
        issued = authority.issue_cert(NAME, key_type=trustme.KeyType.RSA)
        Path(self.chain).write_bytes(b"".join(each.bytes() for each in issued.cert_chain_pems))
        # PKCS #8, the one form that Pulsar reads.
        key = serialization.load_pem_private_key(issued.private_key_pem.bytes(), None)
        Path(self.key).write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
            )
        )

    def served(self) -> ssl.SSLContext:
        """What a server of Python's own speaks TLS with."""
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(self.chain, self.key)
        return context
