from __future__ import annotations

import os
from pathlib import Path

import pytest

from tracardi_lite import data_dir
from tracardi_lite.errors import Misconfigured
from tracardi_lite.settings import Settings


def test_it_is_made_for_its_owner_alone_and_may_be_there(tmp_path: Path) -> None:
    settings = Settings(data_dir=tmp_path / "deep" / "er")
    data_dir.prepare(settings)
    data_dir.prepare(settings)
    assert settings.data_dir.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize(
    ("urls", "made"),
    [
        ({"queue_url": "pulsar:", "store_url": "elasticsearch:", "registry_url": "mysql:"}, False),
        ({"queue_url": "memory:", "store_url": "memory:", "registry_url": "sqlite:///elsewhere.db"}, False),
        ({"queue_url": "pulsar:", "store_url": "elasticsearch:"}, True),
    ],
)
def test_it_is_made_only_if_something_is_kept_there(tmp_path: Path, urls: dict[str, str], made: bool) -> None:
    data_dir.prepare(Settings(data_dir=tmp_path / "data", **urls))  # type: ignore[arg-type]
    assert (tmp_path / "data").exists() is made


def test_a_place_that_is_not_ours_is_named_with_what_to_do(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def denied(path: Path, *args: object, **kwargs: object) -> None:
        raise PermissionError(13, "Permission denied")

    # The tests may run as root, whom nothing is denied.
    monkeypatch.setattr(Path, "mkdir", denied)
    with pytest.raises(Misconfigured) as refused:
        data_dir.prepare(Settings(data_dir=tmp_path / "a" / "b"))
    assert refused.value.key == "data_dir"
    assert f"can't make {tmp_path}/a/b: Permission denied." in str(refused.value)
    assert f"Let this user write in {tmp_path}, or choose another place with --data-dir" in str(refused.value)


def test_a_directory_that_may_only_be_read_is_refused_before_anything_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: not mode & os.W_OK)
    with pytest.raises(Misconfigured, match=f"can't write in {tmp_path}"):
        data_dir.prepare(Settings(data_dir=tmp_path))
