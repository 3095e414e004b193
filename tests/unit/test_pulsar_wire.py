"""Pulsar's binary protocol as it is written and read: fields, frames and messages, without a connection."""

from __future__ import annotations

import struct
from collections.abc import Iterator
from itertools import pairwise

import hypothesis.strategies as st
import pytest
from hypothesis import given

from tests.unit import pulsar_broker
from tests.unit.pulsar_broker import Content, read_frame, read_sent, say
from tracardi_lite.backends.queue.pulsar.wire import commands, protobuf
from tracardi_lite.backends.queue.pulsar.wire.commands import FRAME_BYTES_MAX, Kind, Said, Splitter
from tracardi_lite.backends.queue.pulsar.wire.messages import Writer

NUMBERS = st.integers(0, 2**64 - 1)
FIELDS = st.dictionaries(st.integers(1, 2**29 - 1), NUMBERS | st.binary(max_size=300), max_size=8)
PAYLOADS = st.none() | st.binary(max_size=300)
KEYS = st.text(max_size=200)
SEQUENCES = st.integers(0, 2**63 - 1001)
FRAMES = st.lists(
    st.tuples(st.sampled_from([kind for kind in Kind if kind != Kind.SEND]), st.binary(max_size=200), NUMBERS),
    max_size=6,
)


@given(FIELDS)
def test_fields_are_read_as_they_were_written(fields: dict[int, int | bytes]) -> None:
    assert protobuf.decode(protobuf.encode(fields)) == fields


@given(NUMBERS)
def test_a_number_takes_one_byte_for_each_seven_bits(number: int) -> None:
    raw = protobuf.varint(number)
    assert len(raw) == max(1, -(-number.bit_length() // 7)) <= protobuf.VARINT_BYTES_MAX
    assert protobuf.number(protobuf.decode(b"\x08" + raw), 1) == number


@given(st.integers(-(2**63), 2**63 - 1))
def test_a_negative_number_is_its_two_s_complement(number: int) -> None:
    assert protobuf.signed(number % 2**64) == number


@given(st.binary(max_size=60))
def test_junk_is_no_message_or_one_with_fields(data: bytes) -> None:
    try:
        fields = protobuf.decode(data)
    except ValueError:
        return
    assert all(isinstance(value, int | bytes) for value in fields.values())
    assert sum(len(value) for value in fields.values() if isinstance(value, bytes)) <= len(data)


@given(FIELDS.filter(bool), st.data())
def test_a_message_that_is_cut_off_is_none(fields: dict[int, int | bytes], data: st.DataObject) -> None:
    *_, last = fields.items()
    whole = protobuf.encode(fields)
    missing = data.draw(st.integers(1, len(protobuf.encode(dict([last]))) - 1))
    with pytest.raises(ValueError, match=r"cut off|does not end"):
        protobuf.decode(whole[:-missing])


def test_fields_of_fixed_size_are_read_and_unknown_wire_types_are_not() -> None:
    assert protobuf.decode(b"\x0d\x01\x00\x00\x00\x11\x02\x00\x00\x00\x00\x00\x00\x00") == {1: 1, 2: 2}
    with pytest.raises(ValueError, match="wire type 3"):
        protobuf.decode(b"\x0b")


def test_a_field_is_missing_or_of_the_type_that_is_asked_for() -> None:
    fields = protobuf.decode(protobuf.encode({1: 5, 2: "name", 3: None}))
    assert (protobuf.number(fields, 1), protobuf.text(fields, 2)) == (5, "name")
    assert (protobuf.number(fields, 3), protobuf.raw(fields, 3), protobuf.text(fields, 3)) == (0, b"", "")
    assert protobuf.text({1: b"\xff"}, 1) == "\N{REPLACEMENT CHARACTER}"
    with pytest.raises(ValueError, match="no number"):
        protobuf.number(fields, 2)
    with pytest.raises(ValueError, match="is a number"):
        protobuf.raw(fields, 1)


def pieces(data: bytes, cuts: list[int]) -> Iterator[bytes]:
    places = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    for start, stop in pairwise(places):
        yield data[start:stop]


@given(FRAMES, st.lists(st.integers(0, 2000), max_size=12))
def test_commands_are_the_same_however_their_bytes_are_cut(
    frames: list[tuple[Kind, bytes, int]], cuts: list[int]
) -> None:
    data = b"".join(say(kind, (1, number), (2, raw)) for kind, raw, number in frames)
    expected = [Said(kind, {1: number, 2: raw}) for kind, raw, number in frames]
    splitter = Splitter()
    assert [said for piece in pieces(data, cuts) for said in splitter.feed(piece)] == expected
    splitter = Splitter()
    assert [said for byte in data for said in splitter.feed(bytes([byte]))] == expected


def test_what_comes_after_a_command_in_its_frame_is_passed_over() -> None:
    data = say(Kind.SUCCESS, (1, 9))
    (size,) = struct.unpack_from(">I", data)
    with_more = struct.pack(">I", size + 5) + data[4:] + b"extra"
    assert list(Splitter().feed(with_more + data)) == [Said(Kind.SUCCESS, {1: 9})] * 2


@given(st.integers(0, 2**32 - 1), st.integers(0, 2**32 - 1))
def test_sizes_that_make_no_frame_are_an_error_at_once(size: int, command_size: int) -> None:
    splitter = Splitter()
    head = struct.pack(">II", size, command_size)
    if 4 + command_size <= size <= FRAME_BYTES_MAX:
        if size > 4:
            assert list(splitter.feed(head)) == []
        return
    with pytest.raises(ValueError, match="no frame"):
        list(splitter.feed(head))


@pytest.mark.parametrize(
    ("size", "command_size"), [(0, 0), (3, 0), (4, 1), (10, 7), (FRAME_BYTES_MAX + 1, 5), (2**32 - 1, 5)]
)
def test_a_frame_that_is_too_short_or_too_large_is_none(size: int, command_size: int) -> None:
    with pytest.raises(ValueError, match="no frame"):
        list(Splitter().feed(struct.pack(">II", size, command_size)))


@given(st.binary(max_size=80))
def test_junk_is_split_into_commands_or_refused(data: bytes) -> None:
    try:
        said = list(Splitter().feed(data))
    except ValueError:
        return
    assert all(isinstance(each, Said) for each in said)


@given(st.text(min_size=1), NUMBERS, NUMBERS, NUMBERS)
def test_commands_are_read_by_the_other_side(text: str, request: int, id: int, epoch: int) -> None:
    assert read_frame(commands.lookup(request, text, authoritative=True)) == (
        *("LOOKUP", {"topic": text, "request_id": request, "authoritative": 1}),
        b"",
    )
    kind, fields, _ = read_frame(commands.producer(request, text, id, text, epoch))
    assert kind == "PRODUCER"
    assert fields == {
        "topic": text,
        "producer_id": id,
        "request_id": request,
        "producer_name": text,
        "epoch": epoch,
        "user_provided_producer_name": 0,
    }
    assert read_frame(commands.close_producer(request, id))[1] == {"producer_id": id, "request_id": request}
    assert [read_frame(frame)[0] for frame in (commands.ping(), commands.pong())] == ["PING", "PONG"]


def test_who_has_no_token_says_nothing_of_how_to_authenticate() -> None:
    _, fields, _ = read_frame(commands.connect("", ""))
    assert not {"auth_data", "auth_method_name", "proxy_to_broker_url"} & fields.keys()
    assert fields["feature_flags"] == b"\x08\x01"


@given(KEYS, PAYLOADS, SEQUENCES, NUMBERS)
def test_a_single_message_arrives_as_it_was_sent(key: str, payload: bytes | None, sequence: int, now_ms: int) -> None:
    kind, send, rest = read_frame(Writer(7, "name").single(sequence, key, payload, now_ms))
    assert kind == "SEND"
    sent = read_sent(send, rest)
    assert (sent.producer_id, sent.name, sent.publish_time, sent.batched) == (7, "name", now_ms, False)
    assert sent.contents == (Content(key, payload, sequence),)


@given(KEYS, st.lists(PAYLOADS, min_size=2, max_size=20), SEQUENCES, NUMBERS)
def test_a_batch_arrives_as_it_was_sent(
    key: str, payloads: list[bytes | None], sequence: int, producer_id: int
) -> None:
    kind, send, rest = read_frame(Writer(producer_id, "näme").batch(sequence, key, payloads, 1_800_000_000_000))
    assert kind == "SEND"
    sent = read_sent(send, rest)
    assert (sent.producer_id, sent.name, sent.publish_time) == (producer_id, "näme", 1_800_000_000_000)
    assert sent.batched
    assert sent.contents == tuple(Content(key, each, sequence + index) for index, each in enumerate(payloads))


@given(st.data())
def test_the_checksum_is_of_all_that_comes_after_it(data: st.DataObject) -> None:
    _, send, rest = read_frame(Writer(1, "name").single(3, "key", b"payload", 5))
    place = data.draw(st.integers(2, len(rest) - 1))
    spoilt = bytes([*rest[:place], rest[place] ^ 0x10, *rest[place + 1 :]])
    with pytest.raises(pulsar_broker.Unreadable, match="checksum"):
        read_sent(send, spoilt)
