"""The little of Protocol Buffers that is needed: numbers and byte strings by field, written and read."""

from __future__ import annotations

from collections.abc import Mapping

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_FIXED_SIZES = {_FIXED64: 8, _FIXED32: 4}
VARINT_BYTES_MAX = 10
_SHIFTS = range(7, 7 * VARINT_BYTES_MAX, 7)

Value = int | bytes


def varint(number: int) -> bytes:
    """Of a number that is not negative."""
    if number < 0x80:
        return number.to_bytes()
    found = bytearray()
    while number >= 0x80:
        found.append(number & 0x7F | 0x80)
        number >>= 7
    found.append(number)
    return bytes(found)


def encode(fields: Mapping[int, int | bytes | str | None]) -> bytes:
    """A message of these fields, in this order; None is left out. A message within it is its bytes."""
    parts: list[bytes] = []
    for number, value in fields.items():
        match value:
            case None:
                continue
            case int():
                parts += (varint(number << 3 | _VARINT), varint(value))
            case _:
                raw = value.encode() if isinstance(value, str) else value
                parts += (varint(number << 3 | _BYTES), varint(len(raw)), raw)
    return b"".join(parts)


def decode(data: bytes) -> dict[int, Value]:
    """Fields by number; of a repeated one the last. ``ValueError`` for what is no message.

    Numbers are as they stand: a negative one is 2**64 less than what is told, see ``signed``.
    """
    found: dict[int, Value] = {}
    place, end = 0, len(data)
    try:
        while place < end:
            # Most varints are a byte, and a call costs more than looking at it.
            tag, place = data[place], place + 1
            if tag >= 0x80:
                tag, place = _long(data, place)
            kind = tag & 7
            if kind == _VARINT:
                value, place = data[place], place + 1
                if value >= 0x80:
                    value, place = _long(data, place)
                found[tag >> 3] = value
                continue
            if kind == _BYTES:
                size, place = data[place], place + 1
                if size >= 0x80:
                    size, place = _long(data, place)
            elif kind in _FIXED_SIZES:
                size = _FIXED_SIZES[kind]
            else:
                raise ValueError(f"no wire type {kind}")
            start, place = place, place + size
            if place > end:
                raise ValueError("cut off")
            raw = data[start:place]
            found[tag >> 3] = raw if kind == _BYTES else int.from_bytes(raw, "little")
    except IndexError as error:
        raise ValueError("cut off") from error
    return found


def number(fields: Mapping[int, Value], field: int, default: int = 0) -> int:
    """``ValueError`` if it is there and no number."""
    value = fields.get(field, default)
    if not isinstance(value, int):
        raise ValueError(f"field {field} is no number")
    return value


def raw(fields: Mapping[int, Value], field: int) -> bytes:
    """Empty where it is missing. ``ValueError`` if it is a number."""
    value = fields.get(field, b"")
    if isinstance(value, int):
        raise ValueError(f"field {field} is a number")
    return value


def text(fields: Mapping[int, Value], field: int) -> str:
    return raw(fields, field).decode(errors="replace")


def signed(number: int) -> int:
    """An int64's value, of how it is written."""
    return number - (1 << 64) if number >= 1 << 63 else number


def _long(data: bytes, place: int) -> tuple[int, int]:
    """A varint whose first byte, in front of ``place``, is not its last; and the place behind it."""
    value = data[place - 1] & 0x7F
    for shift in _SHIFTS:
        byte, place = data[place], place + 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, place
    raise ValueError("a number that does not end")
