"""Rules in the shapes of the original's API, and back. Pure.

Each of its five kinds has a shape of its own, in which the event type is sometimes a text and sometimes ``{id, name}``,
and the content has a key of its own. What ours has and theirs has not (``order``, a condition or a source where it
knows none) stands beside under our names, so that a rule that is read and saved again is the same rule.
"""

from __future__ import annotations

from typing import Any

from tracardi_lite.admin.inputs import wrong
from tracardi_lite.ports.registry import Rule

_OPS = ("equal", "equals_if_not_exists", "append")
"""The original's numbers for them, 0 to 2."""


def rule_of(kind: str, values: dict[str, Any]) -> dict[str, Any]:
    """The fields of a ``Rule`` that a body of the original's shape means. ``BadInput`` 422 for what has no meaning."""
    fields = {
        name: values[name]
        for name in ("id", "name", "description", "tags", "enabled", "order", "condition")
        if values.get(name) is not None
    }
    if kind == "mapping":
        # There, the tags are what the events get.
        fields.pop("tags", None)
    fields["kind"] = kind
    fields["event_type"] = _id(values.get("event_type"))
    fields["source"] = _id(values.get("source") or values.get("event_source"))
    content = _CONTENTS[kind](values)
    fields["condition"] = content.pop("condition", None) or fields.get("condition", "")
    fields["spec"] = {name: item for name, item in content.items() if item is not None}
    return fields


def shape_of(rule: Rule) -> dict[str, Any]:
    """A rule as the original answers it."""
    named = {"id": rule.event_type, "name": rule.event_type}
    shape: dict[str, Any] = {
        "id": rule.id,
        "name": rule.name,
        "description": rule.description,
        "event_type": named if rule.kind in ("reshaping", "to-profile", "compliance") else rule.event_type,
        "source": {"id": rule.source, "name": rule.source} if rule.source else None,
        "tags": rule.tags,
        "enabled": rule.enabled,
        "order": rule.order,
    }
    condition = rule.condition or None
    match rule.kind:
        case "validation":
            shape["validation"] = {**rule.spec, "condition": condition}
        case "reshaping":
            shape["reshaping"] = {"reshape_schema": rule.spec, "condition": condition}
        case "mapping":
            traits = rule.spec.get("traits", {})
            shape |= {"index_schema": traits, "index_enabled": bool(traits), "journey": rule.spec.get("journey", "")}
            shape |= {"tags": rule.spec.get("tags", []), "condition": condition, "build_in": False}
        case "to-profile":
            shape |= {"config": {"condition": condition} if condition else {}, "build_in": False}
            shape["event_to_profile"] = [_op_shape(op) for op in rule.spec.get("ops", [])]
        case "compliance":
            shape["condition"] = condition
            shape["settings"] = [
                {
                    "action": setting.get("action"),
                    "field": {"value": setting.get("field"), "ref": True},
                    "consents": [{"id": id, "name": id} for id in setting.get("consents", [])],
                }
                for setting in rule.spec.get("fields", [])
            ]
    return shape


def _validation(values: dict[str, Any]) -> dict[str, Any]:
    content = _object(values, "validation")
    return {"json_schema": content.get("json_schema"), "condition": content.get("condition")}


def _reshaping(values: dict[str, Any]) -> dict[str, Any]:
    content = _object(values, "reshaping")
    made = _object(content, "reshape_schema", "reshaping")
    return {
        **{name: made.get(name) for name in ("properties", "context", "session")},
        "condition": content.get("condition"),
    }


def _mapping(values: dict[str, Any]) -> dict[str, Any]:
    traits = values.get("index_schema") if values.get("index_enabled") is not False else None
    return {"traits": traits, "tags": values.get("tags"), "journey": values.get("journey") or None}


def _to_profile(values: dict[str, Any]) -> dict[str, Any]:
    items = values.get("event_to_profile")
    if not isinstance(items, list):
        raise wrong("body", "event_to_profile", "Expected a list.", "list_type")
    config = values.get("config")
    condition = config.get("condition") if isinstance(config, dict) else None
    return {"ops": [_op(item, index) for index, item in enumerate(items)], "condition": condition}


def _op(item: Any, index: int) -> dict[str, Any]:
    name = f"event_to_profile.{index}"
    if not isinstance(item, dict):
        raise wrong("body", name, "Expected an object.", "dict_type")
    op = item.get("op", 0)
    if type(op) is int:
        if not 0 <= op < len(_OPS):
            raise wrong("body", f"{name}.op", "Expected 0 (equal), 1 (equals_if_not_exists) or 2 (append).")
        op = _OPS[op]
    event, profile = _ref(item.get("event")), _ref(item.get("profile"))
    made = {"to": str(profile[0]).removeprefix("profile@"), "op": op}
    if event[1]:
        made["from"] = str(event[0]).removeprefix("event@")
    elif event[0] is not None:
        made["value"] = event[0]
    return made


def _op_shape(op: Any) -> dict[str, Any]:
    if isinstance(op, str):
        op = {"to": op, "from": op}
    number: int | str = op.get("op", "equal")
    if number in _OPS:
        number = _OPS.index(str(number))
    event = {"value": op["from"], "ref": True} if op.get("from") else {"value": op.get("value"), "ref": False}
    return {"event": event, "op": number, "profile": {"value": op.get("to"), "ref": True}}


def _compliance(values: dict[str, Any]) -> dict[str, Any]:
    settings = values.get("settings")
    if not isinstance(settings, list):
        raise wrong("body", "settings", "Expected a list.", "list_type")
    return {"fields": [_setting(item, index) for index, item in enumerate(settings)]}


def _setting(item: Any, index: int) -> dict[str, Any]:
    if not isinstance(item, dict):
        raise wrong("body", f"settings.{index}", "Expected an object.", "dict_type")
    action = str(item.get("action", "")).lower()
    consents = item.get("consents")
    return {
        "field": _ref(item.get("field"))[0],
        "action": "nothing" if action in ("do nothing", "nothing") else action,
        "consents": [_id(each) for each in consents] if isinstance(consents, list) else [],
    }


def _ref(value: Any) -> tuple[Any, bool]:
    """A reference value: what it says, and whether that is a path."""
    if isinstance(value, dict):
        return value.get("value"), value.get("ref") is not False
    return value, True


def _id(value: Any) -> str:
    if isinstance(value, dict):
        value = value.get("id")
    return value if isinstance(value, str) else ""


def _object(values: dict[str, Any], name: str, above: str = "") -> dict[str, Any]:
    found = values.get(name)
    if not isinstance(found, dict):
        raise wrong("body", f"{above}.{name}".lstrip("."), "Expected an object.", "dict_type")
    return found


_CONTENTS = {
    "validation": _validation,
    "reshaping": _reshaping,
    "mapping": _mapping,
    "to-profile": _to_profile,
    "compliance": _compliance,
}
