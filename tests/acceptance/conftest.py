"""An installation for each test, all of whose processes are gone when it is over."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.acceptance.program import install
from tests.acceptance.sites import Site


@pytest.fixture(scope="session")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data directory fresh from ``tracardi-lite install``, to be copied: installing takes a second or two."""
    data_dir = tmp_path_factory.mktemp("template") / "data"
    install(data_dir, {"QUEUE_PARTITIONS": "4"})
    return data_dir


@pytest.fixture
def site(tmp_path: Path, installed: Path) -> Iterator[Site]:
    made = Site(tmp_path, installed)
    try:
        yield made
    finally:
        made.close()
