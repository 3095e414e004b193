"""docs/event-types.md, made from the event types themselves. Pure; a test compares the page with what is made here."""

from __future__ import annotations

from msgspec import UNSET

from tracardi_lite.pipeline import fields
from tracardi_lite.pipeline.event_types import BY_VISIT, EventType, ProfileOp, predefined

_INTRO = """# Event types

<!-- Generated from src/tracardi_lite/data/event-types.json and fields.json by `make docs`; edit those. -->

Any event type may be sent. A type is trimmed, lower-cased, and its spaces become hyphens. For the types below the
program knows more: which properties are copied into typed fields of the event, which tags and journey state it gets,
and what happens to the profile. They are data; your own types work in the same way and may take the place of
predefined ones.

## Your own types

Name a file in the setting `event_types_file`. JSON holds a list of entries, TOML tables `[[event_type]]`:

```json
[
  {
    "id": "seat-reserved",
    "tags": ["event:behavioral"],
    "state": "purchase",
    "copy": {"reservation": "data.ec.order.id", "price": "data.ec.order.income.value"},
    "profile": [
      {"to": "data.metrics.ltv", "op": "+", "from": "data.ec.order.income.value"},
      {"to": "data.preferences.services", "op": "append", "from": "properties.class"},
      {"to": "interests.{properties.film}", "op": "increment"}
    ]
  }
]
```

- `copy`: from a path in the properties to a path in the event. The path `*` is all of the properties. Null is passed
  over.
- `profile`: done in order, once the event is stored. `from` is a path into the event (`data.…`, `properties.…`),
  `value` a constant, or what is taken when the event has nothing at `from`. A lone string, such as
  `"data.pii.firstname"`, makes the profile's field equal to the event's. `{…}` at the end of `to` is a key that the
  event gives.
- `op`: `equal` (the default), `equals_if_not_exists`, `append` (to a list, what is not in it), `delete`, `+`, `-`,
  `increment` and `decrement` (by `value`, or 1).
- `state`: a name, or `by-visit`: `awareness` on a profile's first visit and `consideration` after it.
- `tags`, where there are any, take the place of the event's own.

Paths must be fields of the lists at the end of this page; if one is not, the start stops and names the entry. A value
that does not fit its field (an object where a text belongs) is left out; the rest of the event takes effect.
Changed fields are noted in the profile's `metadata.fields` with time and event id.

Lists in profiles hold at most 1,000 items of at most 1,024 characters, objects whose keys come from events (interests)
at most 1,000 keys; free objects (traits) about 64 KiB.

## Differences from the original

- `order-status-change` copies `status` (the original copies a property called `string`, which nobody sends).
- `delivery-info-entered` and `payment-info-entered` take the order's id from `order_id` too, the name that their own
  description gives.
- `add-channel-preference` and `add-payment-preference` work; the original copies to one trait and reads another.
- `reset-interest` without a value sets 0, not 1.
- `page-print` and `screen-view` copy as they say.
- `data.metrics.ltcop` is completed check-outs divided by started ones; the original divides the other way round.
"""


def event_types_page() -> str:
    """The whole page."""
    types = predefined()
    parts = [_INTRO, f"\n## The {len(types)} predefined types\n"]
    parts += [_entry(event_type) for event_type in types]
    parts += [_fields("event"), _fields("profile")]
    return "".join(parts)


def _entry(event_type: EventType) -> str:
    lines = [f"\n### `{event_type.id}`\n", f"\n{event_type.description}\n"]
    facts = []
    if event_type.tags:
        facts.append("tags " + ", ".join(f"`{tag}`" for tag in event_type.tags))
    if event_type.state:
        state = "computed from the visit" if event_type.state == BY_VISIT else f"`{event_type.state}`"
        facts.append(f"journey {state}")
    if facts:
        lines.append(f"\n{'; '.join(facts)[0].upper()}{'; '.join(facts)[1:]}.\n")
    if event_type.copy:
        lines.append("\n| property | event field |\n|---|---|\n")
        lines += [f"| {_source(source)} | `{to}` |\n" for source, to in event_type.copy.items()]
    same = [item for item in event_type.profile if isinstance(item, str)]
    if same and same == list(dict.fromkeys(event_type.copy.values())):
        lines.append("\nThe profile gets all of these fields.\n")
    elif same:
        lines.append(f"\nThe profile gets {', '.join(f'`{path}`' for path in same)}.\n")
    lines += [f"\nProfile: {_op(item)}.\n" for item in event_type.profile if isinstance(item, ProfileOp)]
    return "".join(lines)


def _source(path: str) -> str:
    return "all of them" if path == "*" else f"`{path}`"


def _op(item: ProfileOp) -> str:
    if item.op == "delete":
        return f"`{item.to}` is deleted"
    if item.op in ("increment", "decrement") and not item.source:
        return f"`{item.to}` {item.op} by 1"
    default = f", else {item.value}" if item.value is not UNSET else ""
    return f"`{item.to}` {item.op} `{item.source}`{default}"


def _fields(record: fields.RecordName) -> str:
    title = (
        "Fields of events that mappings may fill"
        if record == "event"
        else "Fields of profiles that mappings may change"
    )
    rows = "".join(f"| `{path}` | {kind} |\n" for path, kind in fields.leaves(record))
    return f"\n## {title}\n\n| field | kind |\n|---|---|\n{rows}"
