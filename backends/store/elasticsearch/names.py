"""What things are called in the cluster: the protocol's names (§4.1), so that dashboards keep working. Pure."""

from __future__ import annotations

from tracardi_lite import partitioning
from tracardi_lite.settings import Settings

VERSION = "09x"
"""The version of the records' shape in all names; the one that Tracardi 0.9 to 1.2 writes."""

DIRECTORY = "directory"
"""Not a kind of record: the index of the keys, which has no partitions."""


class Names:
    def __init__(self, settings: Settings) -> None:
        self._context = "prod-" if settings.production else ""
        self._tenant = settings.tenant_name
        self.directory = self.base(DIRECTORY)

    def base(self, kind: str) -> str:
        """``09x.8504a.tracardi-event``: also the alias over all partitions."""
        return f"{self._context}{VERSION}.{self._tenant}.tracardi-{kind}"

    def index(self, kind: str, partition: str) -> str:
        """``09x.8504a.tracardi-event-2026-11``. The partition's name must be one (``partitioning.is_name``)."""
        assert partitioning.is_name(partition)
        return f"{self.base(kind)}-{partition}"

    def partition(self, kind: str, index: str) -> str | None:
        """The way back; None for an index that is none of ours."""
        base = self.base(kind) + "-"
        name = index.removeprefix(base)
        return name if index.startswith(base) and partitioning.is_name(name) else None

    def template(self, kind: str) -> str:
        """``template.09x.8504a.tracardi-event``, ``prod-template.…``."""
        return f"{self._context}template.{VERSION}.{self._tenant}.tracardi-{kind}"

    def pattern(self, kind: str) -> str:
        """The indices that the template is for."""
        return self.directory if kind == DIRECTORY else f"{self.base(kind)}-*-*"
