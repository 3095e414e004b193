"""Derived ids: functions of what they stand for, unique, and in order where that is fast."""

from uuid import UUID

from hypothesis import given
from hypothesis import strategies as st

from tracardi_lite.protocol.ids import derive_uuid, event_id, message_ids


@given(st.uuids().map(str), st.integers(0, 10_000))
def test_an_event_id_is_a_uuid_and_always_the_same(message: str, index: int) -> None:
    id = event_id(message, index)

    assert str(UUID(id)) == id
    assert event_id(message, index) == id


def test_the_ids_of_events_are_those_of_earlier_versions() -> None:
    """A message that an older version has half stored makes the same ones again."""
    assert event_id("0f0e0d0c-0b0a-8908-a706-00000000002a", 7) == "00000000-002a-8480-a130-b75661c171f9"


@given(st.text(max_size=40), st.integers(0, 100))
def test_any_message_id_gives_an_event_id(message: str, index: int) -> None:
    assert len(event_id(message, index)) == 36


@given(st.lists(st.tuples(st.text(max_size=5), st.text(max_size=5)), unique=True, max_size=10))
def test_other_parts_give_other_ids(parts: list[tuple[str, str]]) -> None:
    assert len({derive_uuid("a", *pair) for pair in parts}) == len(parts)


def test_message_ids_are_unique_uuids_whose_events_are_in_order() -> None:
    one, other = message_ids(), message_ids()
    messages = [one() for _ in range(1000)]

    assert all(str(UUID(id)) == id for id in messages)
    assert len({*messages, *(other() for _ in range(1000))}) == 2000
    ids = [event_id(message, 0) for message in messages]
    assert ids == sorted(ids)
    assert len({event_id(messages[0], index) for index in range(1000)}) == 1000


def test_who_is_told_one_message_id_cannot_tell_the_next() -> None:
    make = message_ids()
    # More than are made from one draw of random bytes.
    heads = [make()[:23] for _ in range(1000)]

    assert len(set(heads)) == 1000
    varying = [index for index in range(23) if len({head[index] for head in heads}) == 16]
    assert len(varying) == 18, "every digit but the layout's differs from id to id"
