"""The pure parts of the Pulsar queue: frames, ids, counts, the journal's folding, cursors, room, addresses."""

from __future__ import annotations

import gc
import weakref

import hypothesis.strategies as st
import pytest
from hypothesis import given

from tracardi_lite.backends.queue.pulsar import counts as arithmetic
from tracardi_lite.backends.queue.pulsar import frame
from tracardi_lite.backends.queue.pulsar.consumer import Entry
from tracardi_lite.backends.queue.pulsar.counts import Amount, Counts, Written
from tracardi_lite.backends.queue.pulsar.ids import EntryId, batch_size
from tracardi_lite.backends.queue.pulsar.journal import Journal, encode_report, tries_key
from tracardi_lite.backends.queue.pulsar.lines import Item
from tracardi_lite.backends.queue.pulsar.log import parse_cursor
from tracardi_lite.backends.queue.pulsar.names import addresses, names
from tracardi_lite.backends.queue.pulsar.nudge import QUIET_S, Quiet
from tracardi_lite.backends.queue.pulsar.room import Room
from tracardi_lite.errors import Full, Misconfigured
from tracardi_lite.ports.queue import Tally
from tracardi_lite.settings import Settings

WRITER = b"12345678"


@given(st.binary(max_size=200), st.binary(max_size=200), st.integers(0, 2**32 - 1), st.booleans())
def test_a_frame_gives_back_what_went_in(head: bytes, body: bytes, events: int, replay: bool) -> None:
    framed = frame.decode(frame.encode(WRITER, head, body, events, replay))
    assert framed == frame.Framed(WRITER, events, replay, head, body)


@given(st.binary(max_size=40))
def test_junk_is_no_frame_or_a_frame_that_fits(payload: bytes) -> None:
    try:
        framed = frame.decode(payload)
    except ValueError:
        return
    assert len(framed.head) + len(framed.body) == len(payload) - 18


class MessageId:
    """The client's, as far as the size of its batch is concerned."""

    def __init__(self, index: int, serialised: bytes) -> None:
        self._index = index
        self._serialised = serialised

    def batch_index(self) -> int:
        return self._index

    def serialize(self) -> bytes:
        return self._serialised


@pytest.mark.parametrize(
    ("index", "serialised", "size"),
    [
        (0, "08151000180020003004", 4),
        (3, "0815100018002003308002", 256),
        (0, "0815100018ffffffffffffffffff0120003002", 2),
        (0, "08151000", 1),
        (-1, "08151000", 1),
    ],
)
def test_the_batch_size_is_read_out_of_a_serialised_id(index: int, serialised: str, size: int) -> None:
    assert batch_size(MessageId(index, bytes.fromhex(serialised))) == size


@given(st.integers(-1, 5), st.binary(max_size=30))
def test_a_batch_size_read_out_of_junk_is_none_or_one_at_least(index: int, data: bytes) -> None:
    try:
        size = batch_size(MessageId(index, data))
    except ValueError:
        return
    assert size >= 1


def test_the_ledger_adds_up_whatever_is_missing_of_it() -> None:
    publisher = Counts(published={0: Written(3, 9, 2), 1: Written(1, 4, 0)}, refused={"source": 2})
    worker = Counts()
    worker.settle([(0, Tally(stored=5, dead=1)), (1, Tally(duplicate=9))], 1)  # the last of it not counted yet
    waiting = arithmetic.pending([publisher, worker], 2)
    assert waiting == [Amount(2, 3), Amount(0, 0)]
    totals = arithmetic.totals([publisher, worker], waiting, dead=1)
    assert totals.received + totals.replayed == 5 + 9 + 1 + totals.pending
    assert totals.replayed == 2
    assert dict(totals.refused) == {"source": 2}


def test_outcomes_can_be_taken_back() -> None:
    counts = Counts()
    counts.settle([(3, Tally(stored=2, rejected=1))], 1)
    counts.settle([(3, Tally(stored=2, rejected=1))], -1)
    assert (counts.stored, counts.rejected, counts.settled) == (0, 0, {3: Amount(0, 0)})


def test_names_of_refusals_are_bounded() -> None:
    counts = Counts()
    counts.note_refused({f"reason {number}": 1 for number in range(1000)})
    assert len(counts.refused) == arithmetic.REASONS_MAX + 1
    assert sum(counts.refused.values()) == 1000


def test_the_journal_keeps_the_last_counts_and_every_settled_entry() -> None:
    journal = Journal()
    first, second = EntryId(0, 7, 1), EntryId(1, 7, 2)
    journal.apply("c:one", encode_report(Counts(stored=1), "sub", [first]), 10)
    journal.apply("c:one", encode_report(Counts(stored=2), "sub", [second]), 20)
    assert journal.processes["one"].stored == 2
    assert journal.heard_ms["one"] == 20
    assert journal.settled("sub", first)
    assert journal.settled("sub", second)
    assert not journal.settled("other", first)
    journal.apply("s:sub", b"epoch", 30)
    assert not journal.settled("sub", first), "whoever goes back wants it again"
    assert journal.epochs == {"sub": "epoch"}


def test_what_this_process_settled_is_not_learned_from_its_own_reports() -> None:
    journal = Journal()
    journal.own.add("me")
    journal.apply("c:me", encode_report(Counts(), "sub", [EntryId(0, 1, 1)]), 1)
    assert not journal.settled("sub", EntryId(0, 1, 1))


def test_the_first_incarnation_holds_and_tries_come_and_go() -> None:
    journal = Journal()
    journal.apply("i:first", b"1", 1)
    journal.apply("i:second", b"1", 2)
    assert journal.incarnation == "first"
    key = tries_key("sub", 3, (7, 1, 0))
    journal.apply(f"t:{key}", b"2", 3)
    assert journal.tries == {key: 2}
    journal.apply(f"t:{key}", b"", 4)
    assert not journal.tries


def test_a_cursor_knows_what_is_acknowledged() -> None:
    cursor = parse_cursor(
        {"markDeletePosition": "12:34", "individuallyDeletedMessages": "[(12:36..12:38],(12:40..13:1]]"}
    )
    done = [(12, 34, 0), (12, 37, 5), (12, 38, 0), (13, 0, 0), (13, 1, 0), (3, 99, 0)]
    assert all(cursor.acknowledged(position) for position in done)
    assert not any(cursor.acknowledged(position) for position in [(12, 35, 0), (12, 36, 0), (12, 39, 0), (13, 2, 0)])


def test_a_new_cursor_has_acknowledged_nothing() -> None:
    cursor = parse_cursor({"markDeletePosition": "21:-1", "individuallyDeletedMessages": "[]"})
    assert not cursor.acknowledged((21, 0, 0))


def test_the_bytes_of_a_settled_entry_are_gone_without_the_collector() -> None:
    class Arrived:
        """Something that can be referred to weakly, which bytes can't."""

    gc.disable()
    try:
        entry = Entry(EntryId(0, 1, 2), 1)
        item = Item("key", (1, 2, 0), 3)
        item.entry, item.message = entry, Arrived()
        entry.items[0] = item
        kept = weakref.ref(item.message)
        entry.let_go()
        del entry, item
        assert kept() is None
    finally:
        gc.enable()


def test_room_counts_what_was_sent_since_the_broker_was_asked() -> None:
    room = Room(100)
    room.sent(60)
    room.polling()
    room.sent(50)
    with pytest.raises(Full):
        room.check()
    room.polled(20)  # of the first 60; the 50 are not in its answer
    room.check()
    assert not room.scarce
    room.sent(30)
    with pytest.raises(Full):
        room.check()


@pytest.mark.parametrize(
    ("url", "chosen", "expected"),
    [
        ("pulsar:", {"pulsar_host": "broker"}, ("pulsar://broker:6650", "http://broker:8080")),
        ("pulsar://a,b:7000", {}, ("pulsar://a:6650,b:7000", "http://a:8080")),
        ("pulsar+ssl://a", {}, ("pulsar+ssl://a:6651", "https://a:8443")),
        ("pulsar://a:1", {"pulsar_api": "http://b:2/"}, ("pulsar://a:1", "http://b:2")),
    ],
)
def test_addresses_follow_from_url_and_settings(url: str, chosen: dict[str, str], expected: tuple[str, str]) -> None:
    assert addresses(url, Settings(**chosen)) == expected  # type: ignore[arg-type]


@pytest.mark.parametrize("url", ["pulsar:", "pulsar://", "pulsar://a:b"])
def test_an_address_that_is_none_is_the_operator_s_mistake(url: str) -> None:
    with pytest.raises(Misconfigured):
        addresses(url, Settings())


def test_topics_have_tracardi_s_names() -> None:
    found = names(Settings())
    assert found.partition(3) == "persistent://tracardi/system/functions-partition-3"
    assert found.dead == "persistent://tracardi/system/functions-dead"


def test_one_quiet_partition_is_enough_to_ask_however_busy_the_others_are() -> None:
    quiet = Quiet(partitions=2, now=100.0)
    quiet.heard([0], 100.0 + QUIET_S)
    assert not quiet.asks(100.0 + QUIET_S - 0.1)
    assert quiet.asks(100.0 + QUIET_S)
    assert not quiet.asks(100.0 + QUIET_S), "once"
    assert quiet.asks(100.0 + 2 * QUIET_S), "and again, as long as it is quiet"


def test_partitions_that_bring_messages_are_not_asked_and_new_ones_are_looked_after() -> None:
    quiet = Quiet(partitions=1, now=0.0)
    for now in range(20):
        quiet.heard([0], float(now))
        assert not quiet.asks(float(now))
    quiet.heard([1], 20.0)
    quiet.heard([0], 20.0 + QUIET_S)
    assert quiet.asks(20.0 + QUIET_S)


def test_nothing_is_asked_of_a_topic_without_partitions() -> None:
    assert not Quiet(partitions=0, now=0.0).asks(1e6)
