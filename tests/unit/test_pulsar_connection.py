"""Finding a topic's broker and speaking with it: handshake, look-up, sharing, keeping alive, and what ends it."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from functools import partial

import pytest
import uvloop

from tests.unit import pulsar_broker
from tests.unit.pulsar_broker import Broker, Route, read, running, say
from tracardi_lite.backends.queue.pulsar.sender import Sender
from tracardi_lite.backends.queue.pulsar.wire import brokers as finding
from tracardi_lite.backends.queue.pulsar.wire import commands
from tracardi_lite.backends.queue.pulsar.wire import connection as connecting
from tracardi_lite.backends.queue.pulsar.wire.brokers import REDIRECTS_MAX, Brokers
from tracardi_lite.backends.queue.pulsar.wire.connection import Connection
from tracardi_lite.errors import Unavailable
from tracardi_lite.testing.clock import eventually

pytestmark = pytest.mark.filterwarnings("ignore:Overriding the .event_loop_policy.")
TOPIC = "persistent://tracardi/system/functions-partition-0"
LOOKUP = partial(commands.lookup, topic=TOPIC, authoritative=False)


@pytest.fixture(scope="module", params=["asyncio", "uvloop"])
def event_loop_policy(request: pytest.FixtureRequest) -> asyncio.AbstractEventLoopPolicy:
    """Both loops: the program runs on the second, whose transports abort in their own way."""
    return asyncio.DefaultEventLoopPolicy() if request.param == "asyncio" else uvloop.EventLoopPolicy()


@pytest.fixture
async def broker() -> AsyncIterator[Broker]:
    async with running() as broker:
        yield broker


@pytest.fixture
def dead_port() -> Iterator[int]:
    """At which nobody listens, and nobody will."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


@asynccontextmanager
async def finder(url: str, token: str = "") -> AsyncIterator[Brokers]:
    brokers = Brokers(url, token, None)
    try:
        yield brokers
    finally:
        await brokers.close()


class Detached:
    """A producer that is told of its end."""

    def __init__(self) -> None:
        self.reasons: list[str] = []

    def received(self, sequence: int, ledger: int, entry: int) -> None:
        raise AssertionError("nothing was sent")

    def refused(self, sequence: int, code: int, text: str) -> None:
        raise AssertionError("nothing was sent")

    def detached(self, reason: str) -> None:
        self.reasons.append(reason)


async def asking(connection: Connection, broker: Broker) -> asyncio.Task[object]:
    """Somebody who has asked and waits for an answer that will not come."""
    asked = len(broker.heard("LOOKUP"))
    broker.silent.add("LOOKUP")
    task: asyncio.Task[object] = asyncio.create_task(connection.ask(LOOKUP))
    await eventually(lambda: len(broker.heard("LOOKUP")) > asked)
    return task


async def test_the_token_is_shown_at_the_handshake(broker: Broker) -> None:
    broker.token = "secret"
    broker.message_bytes_max = 12345
    async with finder(broker.url, "secret") as brokers:
        connection = await brokers.serving(TOPIC)
        assert connection.is_open
        assert connection.message_bytes_max == 12345
    (connect,) = broker.heard("CONNECT")
    assert (connect["auth_method_name"], connect["auth_data"]) == ("token", b"secret")
    assert connect["protocol_version"] == commands.PROTOCOL
    assert "proxy_to_broker_url" not in connect


async def test_who_is_refused_learns_which_setting_is_wrong(broker: Broker) -> None:
    broker.token = "secret"
    async with finder(broker.url, "wrong") as brokers:
        with pytest.raises(Unavailable, match=r"AuthenticationError.*PULSAR_AUTH_TOKEN"):
            await brokers.serving(TOPIC)
    assert "wrong" not in repr(broker.heard("LOOKUP"))
    await eventually(lambda: not broker.links)


async def test_who_was_refused_may_try_again(broker: Broker) -> None:
    broker.token = "later"
    async with finder(broker.url, "later") as brokers:
        broker.token = "secret"
        with pytest.raises(Unavailable):
            await brokers.serving(TOPIC)
        broker.token = "later"
        assert (await brokers.serving(TOPIC)).is_open


async def test_a_look_up_that_is_refused_or_fails_says_why(broker: Broker) -> None:
    broker.routes = [
        Route(verdict=2, code=4, text="no permission"),
        Route(verdict=2, code=6, text="not ready yet\n\tat server.stack"),
        Route(verdict=2, code=1),
    ]
    async with finder(broker.url) as brokers:
        with pytest.raises(Unavailable, match=r"AuthorizationError.*PULSAR_AUTH_TOKEN"):
            await brokers.serving(TOPIC)
        with pytest.raises(Unavailable, match=r"not ready yet$"):
            await brokers.serving(TOPIC)
        with pytest.raises(Unavailable, match=r"error 1$"):
            await brokers.serving(TOPIC)
        assert (await brokers.serving(TOPIC)).is_open
    assert len(broker.heard("CONNECT")) == 1, "it is the topic that was away, not the connection"


async def test_a_look_up_is_passed_on_to_the_broker_that_knows(broker: Broker) -> None:
    async with running() as other, running() as owner:
        broker.routes = [Route(other.url, verdict=0, authoritative=True)]
        other.routes = [Route(owner.url)]
        async with finder(broker.url) as brokers:
            connection = await brokers.serving(TOPIC)
            await connection.ask(LOOKUP)
        assert [each["authoritative"] for each in broker.heard("LOOKUP") + other.heard("LOOKUP")] == [0, 1]
        assert len(owner.heard("LOOKUP")) == 1, "only ours: whoever has the topic is not asked for it"


async def test_a_look_up_that_is_passed_on_for_ever_ends(broker: Broker) -> None:
    broker.route = Route(verdict=0)
    async with finder(broker.url) as brokers:
        with pytest.raises(Unavailable, match="from broker to broker"):
            await brokers.serving(TOPIC)
    assert len(broker.heard("LOOKUP")) == REDIRECTS_MAX


async def test_a_broker_behind_a_proxy_is_reached_through_it(broker: Broker) -> None:
    broker.route = Route("pulsar://inner.example:7777", proxied=True)
    async with finder(broker.url) as brokers:
        connection = await brokers.serving(TOPIC)
        assert connection is await brokers.serving(TOPIC)
        first, second = broker.heard("CONNECT")
        assert "proxy_to_broker_url" not in first
        assert second["proxy_to_broker_url"] == "inner.example:7777"
        await connection.ask(LOOKUP)
    assert len(broker.heard("CONNECT")) == 2


@pytest.mark.parametrize("url", ["pulsar://127.0.0.1:port", "pulsar://[::1", "pulsar://127.0.0.1:70000"])
async def test_a_look_up_s_answer_that_makes_no_sense_is_said_to_be_such(broker: Broker, url: str) -> None:
    broker.routes = [Route(url)]
    async with finder(broker.url) as brokers:
        with pytest.raises(Unavailable, match="makes no sense"):
            await brokers.serving(TOPIC)
        assert (await brokers.serving(TOPIC)).is_open


async def test_the_first_host_that_answers_is_taken(broker: Broker, dead_port: int) -> None:
    async with finder(f"pulsar://127.0.0.1:{dead_port},127.0.0.1:{broker.port}") as brokers:
        assert (await brokers.serving(TOPIC)).is_open


async def test_when_no_host_answers_the_last_one_is_named(dead_port: int) -> None:
    async with finder(f"pulsar://127.0.0.1:{dead_port},127.0.0.1:{dead_port}") as brokers:
        with pytest.raises(Unavailable, match=f"Pulsar at 127.0.0.1:{dead_port}: "):
            await brokers.serving(TOPIC)


async def test_two_producers_share_a_connection_and_it_is_made_once(broker: Broker) -> None:
    async with finder(broker.url) as brokers:
        senders = [Sender(brokers, f"topic-{number}", batching=True) for number in range(2)]
        await asyncio.gather(*(sender.open() for sender in senders))
        assert len({id(opened.link) for opened in broker.opened}) == 1
        assert len({opened.id for opened in broker.opened}) == 2
        await asyncio.gather(*(sender.send(sender._topic.encode(), "k") for sender in senders))
        assert {(message.topic, message.payload) for message in broker.messages} == {
            ("topic-0", b"topic-0"),
            ("topic-1", b"topic-1"),
        }
        for sender in senders:
            await sender.close()
    assert len(broker.heard("CONNECT")) == 1


async def test_who_does_not_wait_any_more_takes_nothing_from_the_others(broker: Broker) -> None:
    broker.silent.add("CONNECT")
    async with finder(broker.url) as brokers:
        impatient, patient = (asyncio.create_task(brokers.serving(TOPIC)) for _ in range(2))
        await eventually(lambda: bool(broker.heard("CONNECT")))
        impatient.cancel()
        broker.write(say(pulsar_broker.CONNECTED, (1, "stand-in"), (3, 1)))
        assert (await patient).is_open
        assert impatient.cancelled()
    assert len(broker.heard("CONNECT")) == 1


async def test_a_connection_that_is_lost_is_made_again(broker: Broker) -> None:
    async with finder(broker.url) as brokers:
        first = await brokers.serving(TOPIC)
        broker.cut()
        await eventually(lambda: not first.is_open)
        second = await brokers.serving(TOPIC)
        assert second.is_open
        assert second is not first


async def test_a_ping_is_answered(broker: Broker) -> None:
    async with finder(broker.url) as brokers:
        await brokers.serving(TOPIC)
        assert not broker.heard("PONG")
        broker.write(say(pulsar_broker.PING) * 2)
        await eventually(lambda: len(broker.heard("PONG")) == 2)


async def test_a_challenge_is_answered_with_the_token(broker: Broker) -> None:
    broker.token = "secret"
    async with finder(broker.url, "secret") as brokers:
        connection = await brokers.serving(TOPIC)
        broker.write(say(pulsar_broker.AUTH_CHALLENGE, (1, "stand-in"), (3, 19)))
        await eventually(lambda: bool(broker.heard("AUTH_RESPONSE")))
        (answer,) = broker.heard("AUTH_RESPONSE")
        shown = read(answer["response"], pulsar_broker.AUTH_DATA)
        assert shown == {"auth_method_name": "token", "auth_data": b"secret"}
        assert connection.is_open


@pytest.mark.parametrize(
    "junk",
    [
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"\0" * 16,
        b"\xff" * 16,
        say(pulsar_broker.LOOKUP_RESPONSE, (4, "not a number")),
        say(pulsar_broker.SEND_RECEIPT, (1, b"")),
        b"\0\0\0\x06\0\0\0\x02\x08\x80",
    ],
)
async def test_junk_ends_the_connection_for_all_who_wait(broker: Broker, junk: bytes) -> None:
    async with finder(broker.url) as brokers:
        connection = await brokers.serving(TOPIC)
        producing = Detached()
        await connection.open_producer(producing, TOPIC, 1, "", 1)
        waiting = [await asking(connection, broker) for _ in range(2)]
        broker.write(junk)
        for task in waiting:
            with pytest.raises(Unavailable, match=rf"127.0.0.1:{broker.port}.*Pulsar's protocol"):
                await task
        assert not connection.is_open
        assert len(producing.reasons) == 1
        assert "Pulsar's protocol" in producing.reasons[0]


async def test_junk_instead_of_a_greeting_is_no_broker(broker: Broker) -> None:
    broker.silent.add("CONNECT")
    async with finder(broker.url) as brokers:
        serving = asyncio.create_task(brokers.serving(TOPIC))
        await eventually(lambda: bool(broker.heard("CONNECT")))
        broker.write(b"SSH-2.0-OpenSSH_9.2\r\n")
        with pytest.raises(Unavailable, match="Pulsar's protocol"):
            await serving


@pytest.mark.parametrize("command", ["CONNECT", "LOOKUP"])
async def test_who_does_not_answer_in_time_is_away(
    broker: Broker, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connecting, "ANSWER_S", 0.05)
    broker.silent.add(command)
    async with finder(broker.url) as brokers:
        with pytest.raises(Unavailable, match=r"no answer within 0\.05 s"):
            await brokers.serving(TOPIC)
        monkeypatch.undo()
        broker.silent.clear()
        assert (await brokers.serving(TOPIC)).is_open


async def test_an_answer_that_comes_too_late_is_passed_over(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    async with finder(broker.url) as brokers:
        connection = await brokers.serving(TOPIC)
        monkeypatch.setattr(connecting, "ANSWER_S", 0.01)
        with pytest.raises(Unavailable, match="no answer"):
            await (await asking(connection, broker))
        monkeypatch.undo()
        late = broker.heard("LOOKUP")[-1]["request_id"]
        broker.silent.clear()
        broker.write(say(pulsar_broker.LOOKUP_RESPONSE, (3, 2), (4, late), (6, 1)))
        broker.write(say(pulsar_broker.ERROR, (1, late), (2, 1), (3, "too late as well")))
        assert await connection.ask(LOOKUP)
        assert connection.is_open


async def test_a_connection_is_given_up_when_it_is_silent(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connecting, "KEEP_ALIVE_S", 0.1)
    broker.silent.add("PING")
    async with finder(broker.url) as brokers:
        connection = await brokers.serving(TOPIC)
        waiting = await asking(connection, broker)
        with pytest.raises(Unavailable, match=r"no answer to a ping within 0\.1 s"):
            await waiting
        assert not connection.is_open
        await eventually(lambda: not broker.links)


async def test_a_connection_is_kept_while_its_pings_are_answered(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connecting, "KEEP_ALIVE_S", 0.1)
    async with finder(broker.url) as brokers:
        connection = await brokers.serving(TOPIC)
        await eventually(lambda: len(broker.heard("PING")) >= 4)
        assert connection.is_open


async def test_whoever_waits_hears_of_a_connection_that_is_cut_or_closed(broker: Broker) -> None:
    async with finder(broker.url) as brokers:
        connection = await brokers.serving(TOPIC)
        waiting = await asking(connection, broker)
        broker.cut()
        with pytest.raises(Unavailable, match=f"Pulsar at 127.0.0.1:{broker.port}: "):
            await waiting
        broker.silent.clear()
        connection = await brokers.serving(TOPIC)
        waiting = await asking(connection, broker)
        await brokers.close()
        with pytest.raises(Unavailable, match="closed by us"):
            await waiting
    await eventually(lambda: not broker.links)


async def test_a_broker_that_hangs_up_after_its_greeting_is_away_at_once(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connecting, "ANSWER_S", 1.0)
    broker.hangs_up_after_greeting = True
    async with finder(broker.url) as brokers:
        with pytest.raises(Unavailable) as caught:
            await brokers.serving(TOPIC)
    assert "no answer within" not in caught.value.reason


async def test_a_host_that_takes_no_connection_in_time_is_away(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(finding, "CONNECT_S", 0.05)
    with socket.socket() as full:
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        port = full.getsockname()[1]
        # Its backlog is full, and so it neither takes nor refuses.
        with socket.socket() as first, socket.socket() as second:
            for each in (first, second):
                each.setblocking(False)
                each.connect_ex(("127.0.0.1", port))
            async with finder(f"pulsar://127.0.0.1:{port}") as brokers:
                with pytest.raises(Unavailable, match=r"no answer within 0\.05 s"):
                    await brokers.serving(TOPIC)
