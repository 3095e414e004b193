"""The browser tracker's files, as they are served under ``/tracker/``.

The tracker is one hand-written file without a build. What is served is that file without its comment lines and
indentation, which more than pays for compressing (``SERVED_MAX`` holds); the file as written is served beside it, for
people who debug. Read once, kept in memory: a few tens of kilobytes.
"""

from __future__ import annotations

import re
from functools import cache
from hashlib import sha256
from importlib import resources

JAVASCRIPT = "text/javascript; charset=utf-8"
HTML = "text/html; charset=utf-8"

SOURCE = "tracardi-lite.js"
SERVED_MAX = 6 * 1024
"""Bytes of the tracker, gzipped."""

# The original's inline loader asks for the original's file name: a page that changes nothing but the host gets ours.
_SERVED = {
    "tracardi-lite.js": (SOURCE, JAVASCRIPT, True),
    "liliput.min.js": (SOURCE, JAVASCRIPT, True),
    "tracardi-lite.src.js": (SOURCE, JAVASCRIPT, False),
    "index.html": ("index.html", HTML, False),
}
_COMMENT = re.compile(rb"^[ \t]*//.*\n", re.MULTILINE)
_INDENT = re.compile(rb"^[ \t]+", re.MULTILINE)


@cache
def asset(name: str) -> tuple[bytes, str, str] | None:
    """A file of ``/tracker/``: its content, its content type, its strong entity tag. None: there is no such file."""
    found = _SERVED.get(name)
    if found is None:
        return None
    file, kind, strip = found
    content = resources.files(__package__).joinpath("static", file).read_bytes()
    if strip:
        content = stripped(content)
    return content, kind, etag(content)


def stripped(source: bytes) -> bytes:
    """JavaScript without its comment lines and indentation. Only for sources in which a comment stands on lines of its
    own and no string spans lines; a test holds the tracker to that."""
    return _INDENT.sub(b"", _COMMENT.sub(b"", source))


def etag(content: bytes) -> str:
    """A strong entity tag (RFC 9110 §8.8.3), quotes included."""
    return f'"{sha256(content).hexdigest()[:32]}"'
