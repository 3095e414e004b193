"""What is told of a message that was sent to Pulsar: once, and a receipt that comes late is still counted.

And what the broker is sent: in which entries, in which order, and again after what.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

import pytest
import uvloop

from tests.unit.pulsar_broker import PRODUCER_BUSY, Broker, Entry, Opened, receipt_of, running
from tracardi_lite.backends.queue.pulsar import sender as sending
from tracardi_lite.backends.queue.pulsar.counts import Counts, Position
from tracardi_lite.backends.queue.pulsar.publisher import Publisher
from tracardi_lite.backends.queue.pulsar.room import Room
from tracardi_lite.backends.queue.pulsar.sender import Sender
from tracardi_lite.backends.queue.pulsar.wire import connection as connecting
from tracardi_lite.backends.queue.pulsar.wire.brokers import Brokers
from tracardi_lite.errors import BadInput, Unavailable
from tracardi_lite.ports.queue import Publication
from tracardi_lite.testing.clock import eventually

pytestmark = pytest.mark.filterwarnings("ignore:Overriding the .event_loop_policy.")
TOPIC = "persistent://tracardi/system/functions-partition-0"
PERSISTENCE, CHECKSUM, TERMINATED, NOT_ALLOWED = 2, 9, 15, 22


@pytest.fixture(scope="module", params=["asyncio", "uvloop"])
def event_loop_policy(request: pytest.FixtureRequest) -> asyncio.AbstractEventLoopPolicy:
    """Both loops: the program runs on the second, whose transports abort in their own way."""
    return asyncio.DefaultEventLoopPolicy() if request.param == "asyncio" else uvloop.EventLoopPolicy()


@pytest.fixture(autouse=True)
def impatience(monkeypatch: pytest.MonkeyPatch) -> None:
    """To connect again, and no more than that."""
    monkeypatch.setattr(sending, "AGAIN_S", 0.002)
    monkeypatch.setattr(sending, "AGAIN_MAX_S", 0.01)


@pytest.fixture
async def broker() -> AsyncIterator[Broker]:
    async with running() as broker:
        yield broker


@asynccontextmanager
async def sender_to(broker: Broker, *, batching: bool = True) -> AsyncIterator[Sender]:
    """An open one, which has forgotten nobody when it is closed."""
    brokers = Brokers(broker.url, "", None)
    sender = Sender(brokers, TOPIC, batching=batching)
    await sender.open()
    try:
        yield sender
    finally:
        await sender.close()
        await brokers.close()
    assert (sender.items, sender.bytes) == (0, 0)


@pytest.fixture
async def sender(broker: Broker) -> AsyncIterator[Sender]:
    async with sender_to(broker) as sender:
        yield sender


class Told(list[tuple[type[Exception] | None, Position | None, bool]]):
    def __call__(self, error: Exception | None, place: Position | None, late: bool) -> None:
        self.append((type(error) if error else None, place, late))


def hold(entry: Entry) -> None:
    """No receipt until it is given by hand."""


def payloads(broker: Broker) -> list[list[bytes | None]]:
    return [entry.payloads for entry in broker.entries]


def post(sender: Sender, *messages: bytes | None, key: str = "k") -> list[Told]:
    """In one turn."""
    told = [Told() for _ in messages]
    for each, message in zip(told, messages, strict=True):
        sender.post(message, key, each)
    return told


async def post_apart(sender: Sender, *messages: bytes | None, key: str = "k") -> list[Told]:
    """Each in a turn of its own."""
    told = []
    for message in messages:
        told += post(sender, message, key=key)
        await asyncio.sleep(0)
    return told


async def arrived(broker: Broker, count: int) -> None:
    await eventually(lambda: len(broker.entries) >= count, what=f"{count} entries")


async def all_told(told: list[Told]) -> None:
    await eventually(lambda: all(told), what=f"all told, of {told}")


async def test_a_receipt_is_told_on_the_loop_and_not_before_post_returns(broker: Broker, sender: Sender) -> None:
    told, other = Told(), Told()
    sender.post(b"a", "k", told)
    sender.post(None, "other", other)
    assert not told
    assert not other
    assert (sender.items, sender.bytes) == (2, 1)
    await all_told([told, other])
    assert (told, other) == ([(None, (7, 0, 0), False)], [(None, (7, 1, 0), False)])
    assert (sender.items, sender.bytes) == (0, 0)
    assert [(message.key, message.payload) for message in broker.messages] == [("k", b"a"), ("other", None)]


async def test_messages_of_one_turn_and_one_key_are_one_entry(broker: Broker, sender: Sender) -> None:
    told = {name: Told() for name in ("a1", "b1", "a2", "c1", "a3")}
    for name, each in told.items():
        sender.post(name.encode(), name[0], each)
    await all_told(list(told.values()))
    assert payloads(broker) == [[b"a1", b"a2", b"a3"], [b"b1"], [b"c1"]]
    assert [message.batched for message in broker.messages] == [True] * 3 + [False] * 2
    assert [message.sequence for message in broker.messages] == [0, 1, 2, 3, 4]
    assert [told[name] for name in ("a1", "a2", "a3")] == [[(None, (7, 0, index), False)] for index in range(3)]
    assert [told[name] for name in ("b1", "c1")] == [[(None, (7, number, 0), False)] for number in (1, 2)]


async def test_messages_of_different_turns_are_different_entries(broker: Broker, sender: Sender) -> None:
    await all_told(await post_apart(sender, b"a", b"b"))
    assert payloads(broker) == [[b"a"], [b"b"]]


async def test_a_key_s_messages_keep_their_order_through_batches_and_turns(broker: Broker, sender: Sender) -> None:
    order = random.Random(7)
    posted: dict[str, list[bytes | None]] = defaultdict(list)
    told: list[Told] = []
    for number in range(300):
        key, payload = order.choice("abcde"), b"%d" % number
        posted[key].append(payload)
        told += post(sender, payload, key=key)
        if order.random() < 0.1:
            await asyncio.sleep(0)
    await all_told(told)
    assert any(message.batched for message in broker.messages)
    found: dict[str, list[bytes | None]] = defaultdict(list)
    for message in broker.messages:
        found[message.key].append(message.payload)
    assert found == posted
    assert [message.sequence for message in broker.messages] == list(range(300))


async def test_who_is_told_not_to_makes_no_batches(broker: Broker) -> None:
    async with sender_to(broker, batching=False) as sender:
        told = post(sender, b"a", b"b", None)
        await all_told(told)
        assert payloads(broker) == [[b"a"], [b"b"], [None]]
        assert not any(message.batched for message in broker.messages)
        assert told == [[(None, (7, number, 0), False)] for number in range(3)]


async def test_a_batch_has_a_bound_in_messages(broker: Broker, sender: Sender, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sending, "BATCH_MESSAGES", 3)
    await all_told(post(sender, *(b"%d" % number for number in range(7))))
    assert [len(entry.messages) for entry in broker.entries] == [3, 3, 1]
    assert [message.sequence for message in broker.messages] == list(range(7))


async def test_a_batch_has_a_bound_in_bytes(broker: Broker, sender: Sender, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sending, "BATCH_BYTES", 10)
    await all_told(post(sender, b"1234", b"123456", b"x" * 11, None, b"1234567890", b"1"))
    assert payloads(broker) == [[b"1234", b"123456"], [b"x" * 11], [None, b"1234567890"], [b"1"]]


async def test_a_message_that_is_too_large_fails_alone(broker: Broker) -> None:
    broker.message_bytes_max = 100
    async with sender_to(broker) as sender:
        errors: list[Exception | None] = []
        sender.post(b"x" * 101, "k", lambda error, *_: errors.append(error))
        told = post(sender, b"x" * 100, b"a", key="other")
        assert not errors
        await all_told(told)
        (error,) = errors
        assert isinstance(error, BadInput)
        assert error.status == 413
        assert b"x" * 101 not in [message.payload for message in broker.messages]
        assert [each[0][0] for each in told] == [None, None]


async def test_a_batch_is_no_larger_than_what_the_broker_takes(broker: Broker) -> None:
    broker.message_bytes_max = 100
    async with sender_to(broker) as sender:
        await all_told(post(sender, b"x" * 60, b"y" * 60, b"z" * 60))
    assert max(sum(len(payload or b"") for payload in entry.payloads) for entry in broker.entries) <= 100


async def test_a_message_that_is_too_large_fails_though_the_connection_is_lost_before_it_goes_out(
    broker: Broker,
) -> None:
    broker.message_bytes_max = 100
    async with sender_to(broker) as sender:
        connection = await sender._brokers.serving(TOPIC)
        told = Told()
        asyncio.get_running_loop().call_soon(sender.post, b"x" * 101, "k", told)
        connection.abort("a test")  # tells the sender in the turn of the post, which is before it goes out
        await all_told([told])
        assert told == [(BadInput, None, False)]
        assert not broker.entries


async def test_what_has_no_receipt_is_sent_again_on_the_next_connection(broker: Broker, sender: Sender) -> None:
    broker.on_entry = hold
    told = post(sender, b"a", b"b")
    await arrived(broker, 1)
    told += await post_apart(sender, b"c", None)
    await arrived(broker, 3)
    broker.receipt(broker.entries[0])
    await all_told(told[:2])
    broker.on_entry = broker.receipt
    broker.cut()
    await all_told(told)
    assert payloads(broker) == [[b"a", b"b"], [b"c"], [None], [b"c"], [None]]
    first, again = broker.messages[:4], broker.messages[4:]
    assert [message.sequence for message in again] == [message.sequence for message in first[2:]] == [2, 3]
    assert {message.name for message in broker.messages} == {first[0].name}
    assert again[0].epoch > first[0].epoch
    assert again[1].epoch == again[0].epoch
    assert told == [[(None, place, False)] for place in [(7, 0, 0), (7, 0, 1), (7, 1, 0), (7, 2, 0)]]
    opens = broker.heard("PRODUCER")
    assert "producer_name" not in opens[0]
    assert opens[1]["producer_name"] == first[0].name


async def test_what_is_posted_before_the_loss_is_known_goes_out_after_what_was_sent(
    broker: Broker, sender: Sender
) -> None:
    broker.on_entry = hold
    told = post(sender, b"a")
    await arrived(broker, 1)
    broker.on_entry = broker.receipt
    broker.cut()
    told += post(sender, b"b")  # whose connection is gone already
    await all_told(told)
    assert payloads(broker) == [[b"a"], [b"a"], [b"b"]]


async def test_a_receipt_that_comes_twice_is_told_once(broker: Broker, sender: Sender) -> None:
    broker.on_entry = hold
    told = await post_apart(sender, b"a", b"b", b"c")
    await arrived(broker, 3)
    broker.receipt(broker.entries[0])
    broker.receipt(broker.entries[0])
    broker.receipt(broker.entries[1])
    broker.receipt(broker.entries[0])
    broker.receipt(broker.entries[2])
    await all_told(told)
    assert told == [[(None, (7, number, 0), False)] for number in range(3)]
    assert len(broker.heard("PRODUCER")) == 1


async def test_a_receipt_out_of_order_makes_it_connect_again(broker: Broker, sender: Sender) -> None:
    broker.on_entry = hold
    told = await post_apart(sender, b"a", b"b")
    await arrived(broker, 2)
    broker.on_entry = broker.receipt
    broker.receipt(broker.entries[1])
    await all_told(told)
    assert payloads(broker) == [[b"a"], [b"b"], [b"a"], [b"b"]]
    assert [len(each) for each in told] == [1, 1]
    assert len(broker.heard("PRODUCER")) == 2


@pytest.mark.parametrize("code", [CHECKSUM, TERMINATED, NOT_ALLOWED])
async def test_what_would_be_refused_again_fails_alone(broker: Broker, sender: Sender, code: int) -> None:
    def verdict(entry: Entry) -> None:
        if b"bad" in entry.payloads:
            broker.refuse(entry, code)
        else:
            broker.receipt(entry)

    broker.on_entry = verdict
    reasons: list[str] = []
    told = await post_apart(sender, b"a")
    sender.post(b"bad", "k", lambda error, *_: reasons.append(str(error)))
    await asyncio.sleep(0)
    told += await post_apart(sender, b"c")
    await all_told(told)
    assert reasons == ["queue: Pulsar: refused"], "without the server's stack"
    assert told == [[(None, (7, number, 0), False)] for number in range(2)]
    assert len(broker.heard("CONNECT")) == 1


async def test_what_may_be_the_broker_s_trouble_is_sent_again(broker: Broker, sender: Sender) -> None:
    def verdict(entry: Entry) -> None:
        if len(broker.entries) > 2:
            broker.receipt(entry)
        elif len(broker.entries) == 2:  # the first one's fate is that of all that came after it
            broker.refuse(broker.entries[0], PERSISTENCE)

    broker.on_entry = verdict
    told = await post_apart(sender, b"a", b"b")
    await all_told(told)
    assert payloads(broker) == [[b"a"], [b"b"], [b"a"], [b"b"]]
    assert told == [[(None, (7, number, 0), False)] for number in range(2)]


async def test_a_producer_that_the_broker_closes_is_opened_again(broker: Broker, sender: Sender) -> None:
    broker.on_entry = hold
    told = post(sender, b"a")
    await arrived(broker, 1)
    broker.on_entry = broker.receipt
    broker.close_producers()
    await all_told(told)
    assert payloads(broker) == [[b"a"], [b"a"]]
    first, second = broker.heard("PRODUCER")
    assert second["epoch"] > first["epoch"]
    assert len(broker.heard("CONNECT")) == 1, "the connection is a good one"
    assert len(broker.heard("LOOKUP")) == 2, "but the topic may be elsewhere now"


async def test_a_topic_that_has_moved_is_followed(broker: Broker, sender: Sender) -> None:
    broker.on_entry = hold
    told = post(sender, b"a")
    await arrived(broker, 1)
    async with running() as other:
        broker.route.url = other.url
        broker.close_producers()
        await all_told(told)
        assert payloads(other) == [[b"a"]]
        assert other.messages[0].name == broker.messages[0].name


async def test_a_producer_that_is_not_let_in_tries_again(broker: Broker, sender: Sender) -> None:
    broker.producer_errors = [(6, "not ready"), (PRODUCER_BUSY, "busy")]
    broker.close_producers()
    await eventually(lambda: bool(broker.opened))
    await returned(sender)
    assert len(broker.heard("PRODUCER")) == 4
    await all_told(post(sender, b"a"))


async def test_an_answer_that_makes_no_sense_does_not_end_the_trying(broker: Broker, sender: Sender) -> None:
    broker.producer_answers = [b"\x10\x05"]  # a number where the name should be
    broker.close_producers()
    await eventually(lambda: len(broker.heard("PRODUCER")) >= 2)
    await returned(sender)
    await all_told(post(sender, b"a"))


async def test_a_broker_that_lets_nobody_in_is_away_from_the_start(broker: Broker) -> None:
    broker.producer_errors = [(11, "Topic not found\n\tat server.stack")]
    brokers = Brokers(broker.url, "", None)
    sender = Sender(brokers, TOPIC, batching=True)
    with pytest.raises(Unavailable, match=r"Topic not found$"):
        await sender.open()
    with pytest.raises(Unavailable):
        sender.check()
    await sender.close()
    await brokers.close()


async def away(broker: Broker, sender: Sender) -> None:
    """Take the broker away, and see the sender know it."""
    await broker.stop()
    await eventually(lambda: refuses(sender))


def refuses(sender: Sender) -> bool:
    try:
        sender.check()
    except Unavailable:
        return True
    return False


async def returned(sender: Sender) -> None:
    def is_back() -> bool:
        sender.watch()
        return not refuses(sender)

    await eventually(is_back, limit_s=3.0, what="back")


async def test_who_is_away_refuses_at_once_and_until_watch_has_seen_it_back(broker: Broker, sender: Sender) -> None:
    await away(broker, sender)
    sender.watch()
    told = Told()
    with pytest.raises(Unavailable, match="no connection"):
        sender.post(b"a", "k", told)
    with pytest.raises(Unavailable):
        sender.send(b"a", "k")
    assert (sender.items, sender.bytes) == (0, 0)
    await broker.start()
    await eventually(lambda: bool(broker.opened))
    with pytest.raises(Unavailable):
        sender.check()
    await returned(sender)
    await all_told(post(sender, b"b"))
    assert not told


async def test_what_waits_fails_once_after_patience_and_a_receipt_is_told_late(
    broker: Broker, sender: Sender, monkeypatch: pytest.MonkeyPatch
) -> None:
    broker.on_entry = hold
    told = post(sender, b"a", b"b")
    await arrived(broker, 1)
    await away(broker, sender)
    sender.watch()
    assert told == [[], []], "patience has just begun"
    assert sender.items == 2
    monkeypatch.setattr(sending, "PATIENCE_S", 0.0)
    sender.watch()
    sender.watch()
    assert told == [[(Unavailable, None, False)]] * 2
    assert (sender.items, sender.bytes) == (0, 0)
    broker.on_entry = broker.receipt
    await broker.start()
    await returned(sender)
    await eventually(lambda: all(len(each) == 2 for each in told))
    assert [each[1] for each in told] == [(None, (7, 0, 0), True), (None, (7, 0, 1), True)]
    assert (sender.items, sender.bytes) == (0, 0)
    fresh = post(sender, b"c")
    await all_told(fresh)
    assert [len(each) for each in told] == [2, 2]


async def test_what_has_no_receipt_in_time_is_given_up(
    broker: Broker, sender: Sender, monkeypatch: pytest.MonkeyPatch
) -> None:
    broker.on_entry = hold
    told = await post_apart(sender, b"a", b"b")
    await arrived(broker, 2)
    sender.watch()
    assert told == [[], []]
    monkeypatch.setattr(sending, "SEND_TIMEOUT_S", 0.0)
    sender.watch()
    sender.watch()
    assert told == [[(Unavailable, None, False)]] * 2
    assert (sender.items, sender.bytes) == (0, 0)
    monkeypatch.undo()
    broker.on_entry = broker.receipt
    await eventually(lambda: len(broker.heard("PRODUCER")) == 2)
    await returned(sender)
    fresh = post(sender, b"c")
    await all_told(fresh)
    assert payloads(broker) == [[b"a"], [b"b"], [b"c"]], "what was given up is not sent again"
    assert broker.messages[2].sequence == 2
    assert [len(each) for each in told] == [1, 1]


async def test_who_waits_too_long_for_a_receipt_refuses_more(
    broker: Broker, sender: Sender, monkeypatch: pytest.MonkeyPatch
) -> None:
    broker.on_entry = hold
    told = post(sender, b"a")
    await arrived(broker, 1)
    sender.check()
    monkeypatch.setattr(sending, "STALLED_S", 0.0)
    with pytest.raises(Unavailable, match="does not answer"):
        sender.check()
    with pytest.raises(Unavailable, match="does not answer"):
        sender.post(b"b", "k", Told())
    broker.receipt(broker.entries[0])
    await all_told(told)
    sender.check()


async def test_a_closed_one_fails_what_waits_and_what_was_just_posted(broker: Broker) -> None:
    broker.on_entry = hold
    async with sender_to(broker) as sender:
        told = post(sender, b"a")
        await arrived(broker, 1)
        told += post(sender, b"b")
        await sender.close()
        assert told == [[(Unavailable, None, False)]] * 2
        with pytest.raises(Unavailable):
            sender.post(b"c", "k", Told())
        await eventually(lambda: bool(broker.heard("CLOSE_PRODUCER")))
        (closed,) = broker.heard("CLOSE_PRODUCER")
        assert closed["producer_id"] == broker.entries[0].opened.id
        assert not broker.opened
        for entry in broker.entries:
            broker.receipt(entry)
        await broker.stop()
    assert [len(each) for each in told] == [1, 1]


async def test_who_is_away_can_be_closed(broker: Broker) -> None:
    broker.on_entry = hold
    async with sender_to(broker) as sender:
        told = post(sender, b"a")
        await arrived(broker, 1)
        await away(broker, sender)
        await sender.close()
    assert told == [[(Unavailable, None, False)]]


async def test_a_duplicate_s_place_is_told_as_unknown(broker: Broker, sender: Sender) -> None:
    broker.deduplicating = True
    broker.on_entry = broker.keep  # and its receipt is lost
    told = post(sender, b"a") + post(sender, b"b", b"c", key="other")
    await arrived(broker, 2)
    broker.on_entry = broker.receipt
    broker.cut()
    await all_told(told)
    assert told == [[(None, place, False)] for place in [(-1, -1, 0), (-1, -1, 0), (-1, -1, 1)]]
    assert [entry.payloads for entry in broker.log[TOPIC]] == [[b"a"], [b"b", b"c"]]


async def test_a_receipt_for_somebody_else_is_passed_over(broker: Broker, sender: Sender) -> None:
    broker.on_entry = hold
    told = post(sender, b"a")
    await arrived(broker, 1)
    broker.write(receipt_of(broker.entries[0].opened.id + 1000, 0, 7, 0))
    broker.receipt(broker.entries[0])
    await all_told(told)
    assert told == [[(None, (7, 0, 0), False)]]


async def test_a_future_has_the_place_or_the_error(broker: Broker) -> None:
    broker.message_bytes_max = 10
    async with sender_to(broker) as sender:
        assert await sender.send(b"a", "k") == (7, 0, 0)
        assert await sender.send(None, "k") == (7, 1, 0)
        with pytest.raises(BadInput):
            await sender.send(b"x" * 11, "k")
        nobody = sender.send(b"b", "k")
        nobody.cancel()
        assert await sender.send(b"c", "k") == (7, 2, 1)


async def test_what_is_told_may_post_again(broker: Broker) -> None:
    broker.message_bytes_max = 10
    async with sender_to(broker) as sender:
        told = Told()

        def again(error: Exception | None, place: Position | None, late: bool) -> None:
            sender.post(b"a", "k", told)

        sender.post(b"x" * 11, "k", again)
        sender.post(b"b", "other", again)
        await eventually(lambda: len(told) == 2)


async def test_a_publication_that_was_given_up_is_counted_when_its_receipt_comes(
    broker: Broker, sender: Sender, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Counting:
        """What a publisher asks of a ledger before there is a receipt, and after."""

        def __init__(self) -> None:
            self.counts = Counts(writer=b"12345678")
            self.noted: list[Any] = []

        def note_published(self, counts: Counts, partition: int, events: int, replay: bool, place: Position) -> None:
            self.noted.append((partition, events, place))

        def check(self) -> None:
            pass

        async def report(self) -> None:
            pass

    broker.on_entry = hold
    ledger = Counting()
    publisher = Publisher([sender], ledger, 1 << 20, Room(1 << 30))  # type: ignore[arg-type]
    told: list[tuple[str, Exception | None]] = []

    def note(name: str, error: Exception | None) -> None:
        told.append((name, error))

    for name in ("a", "b"):
        publisher.post(Publication(key=name, head=b"", body=b"x", events=2), partial(note, name))
    await arrived(broker, 2)
    await away(broker, sender)
    monkeypatch.setattr(sending, "PATIENCE_S", 0.0)
    sender.watch()
    assert [name for name, error in told if isinstance(error, Unavailable)] == ["a", "b"]
    assert publisher.uncertain
    assert ledger.noted == []
    broker.on_entry = lambda entry: broker.receipt(entry) if entry.messages[0].key == "a" else None
    await broker.start()
    await returned(sender)
    await eventually(lambda: ledger.noted == [(0, 2, (7, 0, 0))])
    assert len(told) == 2


class Storm:
    """A broker that refuses, cuts and closes at random, and what a sender has posted to it meanwhile."""

    def __init__(self, broker: Broker, chance: random.Random) -> None:
        self.broker = broker
        self.chance = chance
        self.told: dict[bytes, Told] = {}
        self.keys: dict[str, list[bytes]] = defaultdict(list)
        """By key, what was posted, in order."""
        self.refused: set[bytes] = set()
        self._held: list[Entry] = []
        self._broken: set[Opened] = set()
        broker.on_entry = self.take

    def take(self, entry: Entry) -> None:
        """Receipts are given in order, and nothing is kept after something that was not."""
        if entry.opened in self._broken:
            return
        self._held = [held for held in self._held if held.opened is entry.opened]
        fate = self.chance.random()
        if fate < 0.88:
            self.broker.keep(entry)
            self._held.append(entry)
        if 0.3 < fate < 0.95:
            self.give()
        if 0.88 <= fate < 0.92:
            self.refused |= {payload for payload in entry.payloads if payload is not None}
            self.broker.refuse(entry, NOT_ALLOWED)
        elif 0.92 <= fate < 0.95:
            self._broken.add(entry.opened)
            self.broker.refuse(entry, PERSISTENCE)
        elif 0.95 <= fate < 0.97:
            self.broker.cut()
        elif fate >= 0.97:
            self._broken.add(entry.opened)
            self.broker.close_producers()

    def give(self) -> None:
        """The receipts that are due."""
        held, self._held = self._held, []
        for entry in held:
            self.broker.receipt(entry)

    def post(self, sender: Sender, number: int) -> None:
        key, payload = self.chance.choice("abcde"), b"%d" % number
        told = Told()
        try:
            sender.post(payload, key, told)
        except Unavailable:
            return
        self.told[payload] = told
        self.keys[key].append(payload)

    def calm(self) -> None:
        """All goes well from now on, for those who connect again."""
        self.broker.on_entry = self.broker.receipt
        self.broker.cut()

    def check(self) -> None:
        log = self.broker.log[TOPIC]
        kept = Counter(payload for entry in log for payload in entry.payloads)
        for payload, told in self.told.items():
            in_time = [each for each in told if not each[2]]
            late = [each for each in told if each[2]]
            assert len(in_time) == 1, f"{payload!r}: {told}"
            assert len(late) <= 1, f"{payload!r}: {told}"
            assert told[0] == in_time[0]
            assert not late or in_time[0][0] is Unavailable
            for error, place, _ in told:
                if place is None:
                    assert error is Unavailable
                    continue
                assert payload in kept
                ledger, entry, index = place
                if ledger == -1:
                    assert self.broker.deduplicating
                else:
                    assert log[entry].payloads[index] == payload
        if self.broker.deduplicating:
            assert set(kept.values()) == {1}
        firsts: dict[str, list[bytes]] = defaultdict(list)
        for message in (message for entry in log for message in entry.messages):
            assert message.payload is not None
            if message.payload not in firsts[message.key]:
                firsts[message.key].append(message.payload)
        for key, found in firsts.items():
            assert found == [payload for payload in self.keys[key] if payload in kept]


@pytest.mark.parametrize("deduplicating", [False, True])
@pytest.mark.parametrize("patient", [True, False])
async def test_in_a_storm_each_message_is_told_once_and_what_is_acknowledged_is_there(
    broker: Broker, seed: int, deduplicating: bool, patient: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    chance = random.Random(seed)
    monkeypatch.setattr(connecting, "ANSWER_S", 30.0)
    monkeypatch.setattr(sending, "SEND_TIMEOUT_S", 60.0)
    monkeypatch.setattr(sending, "STALLED_S", 60.0)
    monkeypatch.setattr(sending, "PATIENCE_S", 60.0 if patient else 0.0)
    broker.deduplicating = deduplicating
    async with sender_to(broker) as sender:
        storm = Storm(broker, chance)
        for number in range(250):
            storm.post(sender, number)
            if chance.random() < 0.3:
                await asyncio.sleep(0)
            if chance.random() < 0.1:
                sender.watch()
                await eventually(moments(chance.randrange(4)))
            if chance.random() < 0.01:
                broker.cut()
            if refuses(sender):
                await returned(sender)
        storm.calm()
        await eventually(lambda: not sender._sent and not sender._fresh, what="a receipt for everything")
        assert (sender.items, sender.bytes) == (0, 0)
        storm.check()
        failed = {payload for payload, told in storm.told.items() if told[0][0] is not None}
        assert len(storm.told) > 150
        if patient:
            assert failed <= storm.refused


def moments(count: int) -> Callable[[], bool]:
    """A condition that holds when it was asked for so often: the broker has had its turns meanwhile."""
    left = iter(range(count))
    return lambda: next(left, None) is None
