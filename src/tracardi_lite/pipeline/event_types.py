"""What the program knows of event types: the predefined ones (``data/event-types.json``) and custom ones, alike.

An entry says what is copied from an event's properties into its typed parts, and what then happens to the profile.
Entries are data; ``mapping`` is the one piece of code that obeys them. A custom entry takes the place of a
predefined one with its id.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Iterator, Sequence
from functools import cache, cached_property
from pathlib import Path as FilePath
from typing import Any, Literal, NamedTuple

import msgspec
from msgspec import UNSET, Struct

from tracardi_lite import data
from tracardi_lite.errors import Misconfigured
from tracardi_lite.pipeline import paths
from tracardi_lite.pipeline.fields import Coerce, coercion, kind_at
from tracardi_lite.pipeline.paths import Path
from tracardi_lite.pipeline.values import KINDS

OpName = Literal["equal", "equals_if_not_exists", "append", "delete", "+", "-", "increment", "decrement"]
NUMERIC: frozenset[OpName] = frozenset({"+", "-", "increment", "decrement"})
BY_VISIT = "by-visit"
"""A journey state that is computed: ``awareness`` on a profile's first visit, ``consideration`` after it."""

_EVENT_ROOTS = frozenset({"properties", "data", "hit", "device", "os", "app", "utm", "traits", "context", "session"})
# Written by the program alone: a mapping that changed them would make the profile's counts a lie.
_OWN_COUNTERS = (("stats", "counters", "events"), ("stats", "visits"), ("stats", "views"))
_PLACEHOLDER = re.compile(r"^(?P<path>[^{}]+)\.\{(?P<key>[^{}]+)\}$")


class ProfileOp(Struct, frozen=True, forbid_unknown_fields=True, rename={"source": "from"}):
    """One thing that an event does to its profile."""

    to: str
    """A profile path, or ``path.{event path}``: the key, one whole, is what the event has there."""
    op: OpName = "equal"
    source: str = ""
    """An event path: ``data.…``, ``properties.…``, …"""
    value: Any = UNSET
    """Taken when there is no ``from``, or the event has nothing there; 1 for increment and decrement."""


class Copy(NamedTuple):
    """A compiled copy: where in the properties (empty: all of them), where in the event, how it is made to fit."""

    source: Path
    to: Path
    fit: Coerce


class Op(NamedTuple):
    """A compiled operation. ``key`` is the event path of a key that is only known with the event."""

    op: OpName
    to: Path
    name: str
    key: Path | None
    source: Path | None
    value: Any
    fit: Coerce


class EventType(Struct, kw_only=True, frozen=True, forbid_unknown_fields=True, dict=True, eq=False):
    """An entry of the list. ``copies`` and ``ops`` are compiled when first used; a faulty entry raises ValueError."""

    id: str
    name: str = ""
    description: str = ""
    tags: list[str] = []
    state: str = ""
    """The customer journey's state: "", ``awareness``, ``consideration``, … or ``by-visit``."""
    copy: dict[str, str] = {}
    """Properties path → event path; the properties path ``*`` is all of them."""
    profile: list[str | ProfileOp] = []
    """What happens to the profile, in order; a lone path is: the profile's becomes equal to the event's."""

    @cached_property
    def copies(self) -> tuple[Copy, ...]:
        return tuple(_compile_copy(source, to) for source, to in self.copy.items())

    @cached_property
    def ops(self) -> tuple[Op, ...]:
        return tuple(
            _compile_op(ProfileOp(to=item, source=item) if isinstance(item, str) else item) for item in self.profile
        )

    @cached_property
    def needs_properties(self) -> bool:
        """Whether the event's properties must be decoded at all."""
        return bool(self.copies) or any(
            path is not None and path[0] == "properties" for op in self.ops for path in (op.source, op.key)
        )

    def may_copy(self, properties: bytes) -> bool:
        """Whether undecoded properties can hold anything that is copied: False for most page views, which need not be
        decoded then. Names may be written with escapes, so where there is one anything may be."""
        if b"\\" in properties:
            return True
        # A loop, since a generator for ``any`` takes twice as long, for each event of such a type.
        for name in self._copied_names:  # noqa: SIM110
            if name in properties:
                return True
        return False

    @cached_property
    def _copied_names(self) -> tuple[bytes, ...]:
        """The first key of each copy as it stands in JSON without escapes; all properties begin with a brace."""
        return tuple(b'"%b"' % copy.source[0].encode() if copy.source else b"{" for copy in self.copies)

    def journey_state(self, visits: int) -> str:
        """The journey state for a profile on its ``visits``-th visit; "" for none."""
        if self.state != BY_VISIT:
            return self.state
        return "awareness" if visits <= 1 else "consideration"


def _compile_copy(source: str, to: str) -> Copy:
    target = paths.split(to)
    return Copy(() if source == "*" else paths.split(source), target, coercion(kind_at("event", target)))


def _compile_op(item: ProfileOp) -> Op:
    where = _PLACEHOLDER.match(item.to)
    target = paths.split(where["path"] if where else item.to)
    kind = kind_at("profile", (*target, "key") if where else target)
    if isinstance(kind, dict):
        raise ValueError(f"{item.to!r} is an object of fields; name one of them")
    if any(target[: len(own)] == own for own in _OWN_COUNTERS):
        raise ValueError(f"{item.to!r} is counted by the program itself")
    if target == ("ids",) and item.op != "append":
        raise ValueError("'ids' can only be appended to")
    if item.op in NUMERIC and kind not in ("number", "any"):
        raise ValueError(f"{item.op!r} needs a number, and {item.to!r} is a {kind}")
    if item.op == "append" and kind not in ("texts", "any"):
        raise ValueError(f"'append' needs a list, and {item.to!r} is a {kind}")
    source = paths.split(item.source) if item.source else None
    key = paths.split(where["key"]) if where else None
    for path in (source, key):
        if path is not None and path[0] not in _EVENT_ROOTS:
            raise ValueError(f"{paths.join(path)!r} is no path into an event; it begins with one of {_roots()}")
    value = item.value
    if value is UNSET and item.op in ("increment", "decrement"):
        value = 1
    if source is None and value is UNSET and item.op != "delete":
        raise ValueError(f"{item.op!r} to {item.to!r} needs 'from' or 'value'")
    if where and kind == "any":
        # Its keys are the clients' to choose, so its values must be small.
        kind = "scalar"
    fit = KINDS["number"] if item.op in NUMERIC else coercion(kind)
    return Op(item.op, target, paths.join(target), key, source, paths.MISSING if value is UNSET else value, fit)


def _roots() -> str:
    return ", ".join(sorted(_EVENT_ROOTS))


class EventTypes:
    """The event types of an installation, by id."""

    def __init__(self, builtin: Iterable[EventType] | None = None, custom: Sequence[EventType] = ()) -> None:
        """``builtin`` None: the predefined ones. Custom entries are compiled here; a fault raises ``Misconfigured``."""
        self._types = {entry.id: entry for entry in (predefined() if builtin is None else builtin)}
        for entry in custom:
            check(entry)
            self._types[normalise_type(entry.id)] = entry

    def get(self, type: str) -> EventType | None:
        """The entry of a normalised type; None when nothing is known of it."""
        return self._types.get(type)

    def __iter__(self) -> Iterator[EventType]:
        return iter(self._types.values())

    def __len__(self) -> int:
        return len(self._types)


@cache
def predefined() -> tuple[EventType, ...]:
    """The predefined types, in the order of the file. Read once."""
    return tuple(msgspec.json.decode(data.read("event-types.json"), type=list[EventType]))


def check(entry: EventType, where: str = "event_types_file") -> None:
    """Raise ``Misconfigured``, naming the entry, for one that can't be obeyed."""
    try:
        if not entry.id.strip():
            raise ValueError("the id is empty")
        _ = entry.copies, entry.ops
    except ValueError as error:
        raise Misconfigured(where, f"event type {entry.id!r}: {error}.") from error


def load_custom(file: str | FilePath) -> list[EventType]:
    """The custom types of a file: JSON (a list), or TOML (tables ``[[event_type]]``), of at most 10,000 entries.

    Raises ``Misconfigured`` for what can't be read or obeyed, naming the entry.
    """
    path = FilePath(file)
    try:
        content = path.read_bytes()
        if path.suffix == ".toml":
            items: Any = tomllib.loads(content.decode()).get("event_type", [])
        else:
            items = msgspec.json.decode(content)
        if not isinstance(items, list) or len(items) > 10_000:
            raise ValueError("expected a list of at most 10,000 event types")
    except (OSError, ValueError) as error:
        raise Misconfigured("event_types_file", f"{path}: {error}.") from error
    entries = []
    for index, item in enumerate(items):
        name = item.get("id") if isinstance(item, dict) else None
        try:
            entry = msgspec.convert(item, EventType)
        except msgspec.ValidationError as error:
            raise Misconfigured("event_types_file", f"{path}: entry {index} ({name!r}): {error}.") from error
        check(entry)
        entries.append(entry)
    return entries


def normalise_type(type: str) -> str:
    """The type as it is stored: trimmed, lower-cased, spaces turned into hyphens (``"a b C"`` → ``"a-b-c"``)."""
    return type.strip().lower().replace(" ", "-")


def event_name(type: str) -> str:
    """The name for people of a type: ``sign-up`` → ``Sign up``."""
    return type.replace("-", " ").replace("_", " ").strip().capitalize()
