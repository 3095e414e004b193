"""What things are called in Pulsar: topics, and the addresses of broker and admin API, from the settings."""

from __future__ import annotations

from urllib.parse import urlsplit

from msgspec import Struct

from tracardi_lite.errors import Misconfigured
from tracardi_lite.settings import Settings

BROKER_PORT = 6650
ADMIN_PORT = 8080
ADMIN_TLS_PORT = 8443


class Names(Struct, frozen=True):
    tenant: str
    namespace: str
    function: str

    @property
    def topic(self) -> str:
        """The partitioned one with the messages."""
        return f"persistent://{self.tenant}/{self.namespace}/{self.function}"

    @property
    def dead(self) -> str:
        """Dead letters: compacted, keyed by letter id."""
        return f"{self.topic}-dead"

    @property
    def journal(self) -> str:
        """What the processes tell each other, see ``journal``: compacted, keyed by who or what it is about."""
        return f"{self.topic}-ledger"

    def partition(self, number: int) -> str:
        return f"{self.topic}-partition-{number}"


def names(settings: Settings) -> Names:
    return Names(settings.pulsar_tenant, settings.pulsar_system_namespace, settings.pulsar_function_topic)


def addresses(url: str, settings: Settings) -> tuple[str, str]:
    """(Service URL, admin URL). ``pulsar:`` alone stands for PULSAR_HOST; several hosts are separated by commas.

    Without PULSAR_API the admin API is looked for on the first host at its usual port.
    """
    service = url if url.partition(":")[2] else settings.pulsar_host
    if not service:
        raise Misconfigured("pulsar_host", "no broker is named.", "Set PULSAR_HOST=pulsar://host:6650")
    if "://" not in service:
        service = f"pulsar://{service}"
    scheme, _, hosts = service.partition("://")
    if scheme not in ("pulsar", "pulsar+ssl") or not hosts.strip("/"):
        raise Misconfigured("pulsar_host", f"{service!r} is no address of a broker.", "Write pulsar://host:6650")
    tls = scheme == "pulsar+ssl"
    hosts = ",".join(_with_port(host, 6651 if tls else BROKER_PORT) for host in hosts.strip("/").split(","))
    admin = settings.pulsar_api
    if not admin:
        first = urlsplit(f"//{hosts.split(',')[0]}").hostname or "localhost"
        first = f"[{first}]" if ":" in first else first
        admin = f"https://{first}:{ADMIN_TLS_PORT}" if tls else f"http://{first}:{ADMIN_PORT}"
    if not admin.startswith(("http://", "https://")):
        raise Misconfigured("pulsar_api", f"{admin!r} is no address.", "Write http://host:8080")
    return f"{scheme}://{hosts}", admin.rstrip("/")


def _with_port(host: str, port: int) -> str:
    try:
        given = urlsplit(f"//{host}").port
    except ValueError as error:
        raise Misconfigured("pulsar_host", f"{host!r}: {error}") from error
    return host if given else f"{host}:{port}"
