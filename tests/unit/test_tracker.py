"""What is served under /tracker/: sizes, types, tags, and that stripping the source is safe."""

from __future__ import annotations

import gzip
import re
from importlib import resources
from pathlib import Path

import pytest

from tracardi_lite import tracker

SOURCE = resources.files(tracker).joinpath("static", tracker.SOURCE).read_text()


def test_the_tracker_is_at_most_6_kib_gzipped() -> None:
    served = tracker.asset("tracardi-lite.js")
    assert served is not None
    assert len(gzip.compress(served[0], 9, mtime=0)) <= tracker.SERVED_MAX


def test_the_originals_file_name_gives_the_same_tracker() -> None:
    assert tracker.asset("liliput.min.js") == tracker.asset("tracardi-lite.js")


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("tracardi-lite.js", "text/javascript; charset=utf-8"),
        ("tracardi-lite.src.js", "text/javascript; charset=utf-8"),
        ("index.html", "text/html; charset=utf-8"),
    ],
)
def test_each_file_has_a_type_and_a_strong_tag_of_its_content(name: str, kind: str) -> None:
    found = tracker.asset(name)
    assert found is not None
    content, type_, tag = found
    assert type_ == kind
    assert tag == tracker.etag(content)
    assert re.fullmatch(r'"[0-9a-f]{32}"', tag)


@pytest.mark.parametrize("name", ["", "..", "../__init__.py", "static/tracardi-lite.js", "__init__.py", "nothing.js"])
def test_nothing_else_is_served(name: str) -> None:
    assert tracker.asset(name) is None


def test_tags_differ_when_contents_do() -> None:
    assert tracker.etag(b"a") != tracker.etag(b"b")


def test_only_comment_lines_and_indentation_are_stripped() -> None:
    source = b"// why\nconst a = 1;\n\n  // more\n\tconst url = 'http://x'; // stays\n"
    assert tracker.stripped(source) == b"const a = 1;\n\nconst url = 'http://x'; // stays\n"


def test_the_source_keeps_the_rule_that_makes_stripping_safe() -> None:
    for number, line in enumerate(SOURCE.splitlines(), 1):
        assert line.count("`") % 2 == 0, f"line {number}: a template may not span lines"
        assert not line.endswith("\\"), f"line {number}: a string may not span lines"
        assert "/*" not in line, f"line {number}: comments are lines of //"


def test_the_page_says_the_names_that_are_served() -> None:
    page = tracker.asset("index.html")
    assert page is not None
    for name in re.findall(rb"/tracker/([\w.-]+)", page[0]):
        assert tracker.asset(name.decode()) is not None


def test_the_files_are_declared_as_the_packages_data() -> None:
    declared = (Path(__file__).parents[2] / "setup.cfg").read_text()
    assert "tracker/static/*" in declared
