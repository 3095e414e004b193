"""Batches and file names: what is packed comes out again, and what was changed in between is noticed."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tracardi_lite.backends.queue.routing import fair_shares, partition_of
from tracardi_lite.backends.queue.sqlite.batch import Counts, Packer, decode_counts, encode_counts, unpack
from tracardi_lite.backends.queue.sqlite.database import Damaged
from tracardi_lite.ports.queue import Publication

publications = st.lists(
    st.builds(
        Publication,
        key=st.text(max_size=20),
        head=st.binary(max_size=50),
        body=st.binary(max_size=200),
        events=st.integers(0, 10_000),
        replay=st.booleans(),
    ),
    min_size=1,
    max_size=30,
)


@given(publications, st.integers(1, 256), st.integers(0, 1 << 60))
def test_a_batch_gives_back_what_was_packed(group: list[Publication], partitions: int, base: int) -> None:
    frame = Packer(partitions).pack(group)
    records = unpack(base, 123, frame.size, frame.data)
    assert frame.count == len(group) == sum(frame.counts.messages)
    assert sum(frame.counts.events) == sum(publication.events for publication in group)
    assert frame.counts.replayed == sum(publication.events for publication in group if publication.replay)
    for place, (record, publication) in enumerate(zip(records, group, strict=True)):
        assert record.offset == base + place
        assert (record.key, record.head, record.body) == (publication.key, publication.head, publication.body)
        assert record.events == publication.events
        assert record.partition == partition_of(publication.key, partitions)
        assert record.published_ms == 123


@settings(max_examples=200)
@given(publications, st.data())
def test_a_changed_batch_is_damaged_or_the_same(group: list[Publication], data: st.DataObject) -> None:
    frame = Packer(4).pack(group)
    whole = unpack(0, 0, frame.size, frame.data)
    changed = bytearray(frame.data)
    at = data.draw(st.integers(0, len(changed) - 1))
    changed[at] ^= data.draw(st.integers(1, 255))
    with contextlib.suppress(Damaged):
        assert unpack(0, 0, frame.size, bytes(changed)) == whole
    with pytest.raises(Damaged):
        unpack(0, 0, frame.size, frame.data[:at])
    with pytest.raises(Damaged):
        unpack(0, 0, frame.size + 1, frame.data)


@given(st.lists(st.integers(0, 1 << 60), min_size=1, max_size=256))
def test_running_counts_come_back_and_add_up(numbers: list[int]) -> None:
    counts = Counts(numbers, numbers[::-1], 5, 6)
    assert decode_counts(encode_counts(counts)) == counts
    assert Counts.zero(len(numbers)).plus(counts) == counts
    with pytest.raises(Damaged):
        decode_counts(encode_counts(counts)[:-1])


@given(st.integers(1, 256), st.integers(1, 300))
def test_shares_are_fair_and_complete(partitions: int, members: int) -> None:
    shares = fair_shares(partitions, members)
    assert sum(shares) == partitions
    assert max(shares) - min(shares) <= 1


def test_a_key_s_partition_never_changes() -> None:
    assert [partition_of(key, 8) for key in ("", "a", "profile-1", "ü")] == [0, 3, 4, 5]
