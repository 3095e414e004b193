"""Facts kept as data: predefined event types, the typed fields of records, names of languages.

Each file is read once, when first asked for; nothing else in the program knows that they are files.
"""

from __future__ import annotations

from importlib.resources import files


def read(name: str) -> bytes:
    """A file of this folder, whole. ``FileNotFoundError`` for one that is not shipped."""
    return files(__name__).joinpath(name).read_bytes()
