"""The express lane over raw sockets: whose a request is, the order of answers, what is left of those who hang up."""

from __future__ import annotations

import asyncio
import gzip
import socket
import struct
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import msgspec
import pytest
import uvloop

from tests.door import Door, opened, payload
from tracardi_lite.errors import Full, Unavailable
from tracardi_lite.intake import connection, express
from tracardi_lite.ports.queue import Posted, Publication
from tracardi_lite.testing.clock import FakeClock, eventually

pytestmark = pytest.mark.filterwarnings("ignore:Overriding the .event_loop_policy.")
LIMIT_S = 20.0
BODY = msgspec.json.encode(payload("page-view"))


def call(body: bytes = BODY, *fields: str, method: str = "POST", target: str = "/track") -> bytes:
    lines = [f"{method} {target} HTTP/1.1", "Host: h", "Content-Type: application/json", *fields]
    return "\r\n".join([*lines, f"Content-Length: {len(body)}", "", ""]).encode() + body


def get(target: str = "/health/live", *fields: str, version: str = "1.1", method: str = "GET") -> bytes:
    return "\r\n".join([f"{method} {target} HTTP/{version}", "Host: h", *fields, "", ""]).encode()


def chunked(body: bytes = BODY, *fields: str) -> bytes:
    lines = ["POST /track HTTP/1.1", "Host: h", "Transfer-Encoding: chunked", *fields, "", ""]
    middle = len(body) // 2
    pieces = b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in (body[:middle], body[middle:]) if piece)
    return "\r\n".join(lines).encode() + pieces + b"0\r\n\r\n"


@pytest.fixture(scope="module", params=["asyncio", "uvloop"])
def event_loop_policy(request: pytest.FixtureRequest) -> asyncio.AbstractEventLoopPolicy:
    """Both loops: the program runs on the second, whose transports pause, half-close and abort in their own way."""
    return asyncio.DefaultEventLoopPolicy() if request.param == "asyncio" else uvloop.EventLoopPolicy()


class Answer(msgspec.Struct):
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def by_the_lane(self) -> bool:
        """The lane writes no charset and no reason of its own; told by the order of its headers."""
        return list(self.headers)[:2] == ["server", "content-type"]


class Client:
    """Writes bytes and reads answers, and nothing more."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def send(self, *data: bytes) -> None:
        for piece in data:
            self.writer.write(piece)
            await self.writer.drain()

    async def answer(self, *, head_only: bool = False) -> Answer:
        async with asyncio.timeout(LIMIT_S):
            head = await self.reader.readuntil(b"\r\n\r\n")
            first, *fields = head.decode().removesuffix("\r\n\r\n").split("\r\n")
            headers = {name.lower(): value.strip() for name, _, value in (field.partition(":") for field in fields)}
            assert len(headers) == len(fields), head
            length = 0 if head_only else int(headers.get("content-length", "0"))
            return Answer(int(first.split()[1]), headers, await self.reader.readexactly(length))

    async def answers(self, number: int) -> list[Answer]:
        return [await self.answer() for _ in range(number)]

    def reset(self) -> None:
        """Hang up so that the other side knows it for an end, and not for a half-closed connection."""
        raw = self.writer.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()

    async def closed(self) -> None:
        """Nothing more comes, and the connection ends."""
        async with asyncio.timeout(LIMIT_S):
            with suppress(ConnectionResetError):
                assert await self.reader.read() == b""


@asynccontextmanager
async def connected(door: Door) -> AsyncIterator[Client]:
    client = Client(*await asyncio.open_connection(door.host, door.port))
    try:
        yield client
    finally:
        client.writer.close()
        with suppress(ConnectionError):
            await client.writer.wait_closed()


def statuses(answers: Iterable[Answer]) -> list[int]:
    return [answer.status for answer in answers]


async def nothing_left(door: Door) -> None:
    """No bytes in flight, no connection, no task of the lane's or of a guest's."""
    await eventually(lambda: not door.lane._connections, what="connections are forgotten")
    await eventually(lambda: door.metrics.in_flight_bytes.value == 0, what="bodies are given back")
    await eventually(lambda: not door.lane._tasks, what="the lane's tasks end")
    await eventually(lambda: not handlers(), what="aiohttp's tasks end")


def handlers() -> list[asyncio.Task[Any]]:
    return [task for task in asyncio.all_tasks() if "RequestHandler" in str(task.get_coro())]


class Held:
    """A queue that keeps what is posted until it is told what became of it."""

    def __init__(self) -> None:
        self.waiting: list[Posted] = []

    def post(self, publication: Publication, done: Posted) -> None:
        self.waiting.append(done)

    async def publish(self, publication: Publication) -> None:
        told: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.waiting.append(lambda error: told.set_result(None) if error is None else told.set_exception(error))
        await told

    async def tell(self, error: Exception | None = None) -> None:
        await eventually(lambda: bool(self.waiting), what="something is posted")
        self.waiting.pop(0)(error)


@pytest.fixture
async def door(tmp_path: Path) -> AsyncIterator[Door]:
    async with opened(tmp_path) as it:
        yield it
        await it.client.close()
        await nothing_left(it)


# --- whose a request is ---


async def test_pipelined_requests_are_answered_in_order_whoever_answers(door: Door) -> None:
    async with connected(door) as client:
        await client.send(call() + get() + call(b"{") + call(method="PUT") + call())

        answers = await client.answers(5)

    assert statuses(answers) == [200, 200, 422, 200, 200]
    assert [answer.by_the_lane for answer in answers] == [True, False, True, False, True]
    assert answers[1].body == b'{"status":"live"}'


ODD: dict[str, tuple[bytes, list[int], bool]] = {
    # What is sent, the statuses of the answers, whether the lane has the connection back after it.
    "get": (get(), [200], True),
    "options": (
        get("/track", "Origin: https://shop.example", "Access-Control-Request-Method: POST", method="OPTIONS"),
        [200],
        True,
    ),
    "put": (call(method="PUT"), [200], True),
    "delete": (get("/track", method="DELETE"), [405], True),
    "trace": (get("/track", method="TRACE"), [405], True),
    "query": (call(target="/track?profile_less=true"), [200], True),
    "empty": (call(b""), [422], True),
    "gzip": (call(gzip.compress(BODY), "Content-Encoding: gzip"), [200], True),
    "nowhere": (call(target="/nowhere"), [404], True),
    "chunked": (chunked(), [200], False),
    "expect": (call(BODY, "Expect: 100-continue"), [100, 200], False),
    "twice": (call(BODY, "X-A: 1", "X-A: 2"), [200], False),
}


@pytest.mark.parametrize("name", ODD)
async def test_the_lane_has_the_connection_back_after_a_plain_request_of_another_kind(door: Door, name: str) -> None:
    odd, expected, back = ODD[name]
    async with connected(door) as client:
        for sent in (odd, odd):
            await client.send(sent)
            assert statuses(await client.answers(len(expected))) == expected
            await client.send(call())
            answer = await client.answer()
            assert (answer.status, answer.by_the_lane) == (200, back)
    await nothing_left(door)


async def test_head_has_no_body_and_the_connection_goes_on(door: Door) -> None:
    async with connected(door) as client:
        await client.send(get(method="HEAD"))
        assert (await client.answer(head_only=True)).status == 200
        await client.send(call())
        assert (await client.answer()).by_the_lane


@pytest.mark.parametrize(
    "last",
    [
        call(BODY, "Connection: close"),
        get("/health/live", "Connection: close"),
        get(version="1.0"),
        chunked(BODY, "Connection: close"),
        call(b"{", "Connection: close"),
    ],
)
async def test_after_the_last_request_the_connection_is_closed(door: Door, last: bytes) -> None:
    async with connected(door) as client:
        await client.send(call() + last + call())

        first, _ = await client.answers(2)

        assert "connection" not in first.headers
        await client.closed()


async def test_connect_is_answered_once_and_its_body_is_no_request(door: Door) -> None:
    async with connected(door) as client:
        await client.send(call(get("/smuggled"), method="CONNECT", target="/track"))
        assert (await client.answer()).status == 404
        client.writer.write_eof()
        rest = await asyncio.wait_for(client.reader.read(), LIMIT_S)
    assert b" 200 " not in rest


async def test_no_http_is_400_and_closed(door: Door) -> None:
    for junk in (
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
        b"hello\r\n\r\n",
        b"POST /track HTTP/1.1\nHost: h\n\n",
    ):
        async with connected(door) as client:
            await client.send(junk)
            answer = await client.answer()
            assert (answer.status, answer.headers["server"]) == (400, "tracardi-lite")
            await client.closed()


# --- pieces ---


@pytest.mark.parametrize("request_", [call(), call(b"{"), get(), call(gzip.compress(BODY), "Content-Encoding: gzip")])
async def test_a_request_may_be_cut_anywhere(door: Door, request_: bytes) -> None:
    whole = await one(door, request_)
    for at in range(1, len(request_)):
        async with connected(door) as client:
            before = received(door)
            await client.send(request_[:at])
            await eventually(lambda before=before: received(door) > before, what="the first piece is there")
            await client.send(request_[at:])
            assert (await client.answer()).status == whole.status, at


async def one(door: Door, request: bytes) -> Answer:
    async with connected(door) as client:
        await client.send(request)
        return await client.answer()


_pieces = 0


def received(door: Door) -> int:
    """How many pieces the server was handed so far."""
    return _pieces


@pytest.fixture(autouse=True)
def _count_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    real = connection.Connection.data_received

    def counting(self: connection.Connection, data: bytes) -> None:
        global _pieces
        _pieces += 1
        real(self, data)

    monkeypatch.setattr(connection.Connection, "data_received", counting)


async def test_a_call_of_the_lane_stays_with_it_however_it_is_cut(door: Door) -> None:
    async with connected(door) as client:
        request = call()
        for at in (1, 5, 12, 30, len(request) - len(BODY) - 2, len(request) - len(BODY), len(request) - 1):
            before = received(door)
            await client.send(request[:at])
            await eventually(lambda before=before: received(door) > before, what="the first piece is there")
            await client.send(request[at:])
            assert (await client.answer()).by_the_lane, at


# --- clients that go ---


async def test_a_client_that_has_closed_its_side_gets_its_answers(tmp_path: Path) -> None:
    queue = Held()
    async with opened(tmp_path, queue=queue) as door, connected(door) as client:
        await client.send(call() + get() + call() + call(method="PUT"))
        client.writer.write_eof()
        for _ in range(3):
            await queue.tell()

        assert statuses(await client.answers(4)) == [200, 200, 200, 200]
        await client.closed()
        await nothing_left(door)


@pytest.mark.parametrize("rest", [call()[:-1], call()[:30], get()[:-1], call(method="PUT")[:-1], chunked()[:-1]])
async def test_half_a_request_of_a_client_that_has_closed_its_side_is_closed_at_once(door: Door, rest: bytes) -> None:
    async with connected(door) as client:
        await client.send(call() + rest)
        client.writer.write_eof()
        assert (await client.answer()).status == 200
        await client.closed()
        await nothing_left(door)


@pytest.mark.parametrize("sent", [b"", call()[:30], call()[:-1], call(method="PUT")[:-1], chunked()[:-3], get()[:-1]])
@pytest.mark.parametrize("reset", [False, True])
async def test_who_hangs_up_in_the_middle_leaves_nothing(door: Door, sent: bytes, reset: bool) -> None:
    async with connected(door) as client:
        before = received(door)
        await client.send(sent)
        await eventually(lambda: not sent or received(door) > before)
        if reset:
            client.reset()
    await nothing_left(door)
    assert (await door.queue.totals()).received == 0


@pytest.mark.parametrize("request_", [call(), call(method="PUT")])
async def test_who_hangs_up_while_their_publication_is_in_the_queue_leaves_nothing(
    tmp_path: Path, request_: bytes
) -> None:
    queue = Held()
    async with opened(tmp_path, queue=queue) as door:
        async with connected(door) as client:
            await client.send(request_ + call())
            await eventually(lambda: bool(queue.waiting))
            client.reset()
        await eventually(lambda: not door.lane._connections)
        assert door.metrics.in_flight_bytes.value == len(BODY)
        await queue.tell()
        await nothing_left(door)
        assert queue.waiting == []


async def test_who_hangs_up_while_their_source_is_looked_up_leaves_nothing(tmp_path: Path) -> None:
    async with opened(tmp_path) as door:
        asked, go_on = asyncio.Event(), asyncio.Event()
        real = door.rules.source

        async def slow(id: str) -> Any:
            asked.set()
            await go_on.wait()
            return await real(id)

        door.rules.source = slow  # type: ignore[method-assign]
        async with connected(door) as client:
            await client.send(call())
            await asyncio.wait_for(asked.wait(), LIMIT_S)
            client.reset()
        await eventually(lambda: not door.lane._connections)
        go_on.set()
        await nothing_left(door)
        assert len(await door.queued()) == 1


# --- bounds ---


async def test_a_body_that_does_not_arrive_is_408_and_closed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(express, "SWEEP_S", 0.01)
    clock = FakeClock()
    async with opened(tmp_path, clock=clock, request_timeout=30.0) as door, connected(door) as client:
        await client.send(call()[:-5])
        await eventually(lambda: door.lane.at_work() == 1)
        clock.advance(29.0)
        await client.send(call()[-5:-1])
        clock.advance(2.0)

        answer = await client.answer()

        assert (answer.status, answer.headers["connection"]) == (408, "close")
        assert "30 s" in answer.body.decode()
        await client.closed()
        await nothing_left(door)


async def test_a_connection_without_requests_is_closed_after_an_hour(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(express, "SWEEP_S", 0.01)
    clock = FakeClock()
    async with opened(tmp_path, clock=clock) as door, connected(door) as silent, connected(door) as guest:
        async with connected(door) as busy:
            await eventually(lambda: len(door.lane._connections) == 3)
            clock.advance(connection.IDLE_S - 1)
            await busy.send(call())
            await guest.send(get())
            assert (await busy.answer()).status == (await guest.answer()).status == 200
            clock.advance(2)
            await silent.closed()
            await busy.send(call())
            assert (await busy.answer()).status == 200
        clock.advance(connection.IDLE_S)
        await guest.closed()
        await nothing_left(door)


async def test_bodies_over_the_bound_are_413_and_closed(tmp_path: Path) -> None:
    async with opened(tmp_path, body_max=5_000) as door:
        for request in (
            call(b" " * 5_001),
            chunked(b" " * 6_000),
            call(gzip.compress(b" " * 6_000), "Content-Encoding: gzip"),
        ):
            async with connected(door) as client:
                await client.send(call() + request)
                first, second = await client.answers(2)
                assert (first.status, second.status, second.headers["connection"]) == (200, 413, "close")
                await client.closed()
        async with connected(door) as client:
            await client.send(call(BODY + b" " * (5_000 - len(BODY))))
            assert (await client.answer()).by_the_lane
        await nothing_left(door)


async def test_more_than_may_be_in_flight_is_503_and_the_connection_goes_on(tmp_path: Path) -> None:
    queue = Held()
    large = BODY + b" " * 700_000
    async with opened(tmp_path, queue=queue, in_flight_max=1 << 20, body_max=1 << 20) as door:
        async with connected(door) as one, connected(door) as other:
            await one.send(call(large))
            await eventually(lambda: bool(queue.waiting))
            await other.send(call(large))
            answer = await other.answer()
            assert (answer.status, answer.headers["retry-after"]) == (503, "1")
            await other.send(call())
            await eventually(lambda: len(queue.waiting) == 2)
            await queue.tell()
            await queue.tell()
            assert ((await one.answer()).status, (await other.answer()).status) == (200, 200)
        await nothing_left(door)


@pytest.mark.parametrize(("status", "goes_on"), [(401, True), (503, True), (413, False)])
async def test_an_early_answer_to_a_body_that_still_arrives_ends_where_the_body_ends(
    tmp_path: Path, status: int, goes_on: bool
) -> None:
    """aiohttp answers before it has read the body; what is left of it must not be taken for a request."""
    smuggled = call() * 4_000
    body_max = len(smuggled) - (status == 413)
    async with opened(tmp_path, body_max=body_max, in_flight_max=1 << 20) as door:
        async with connected(door) as client:
            door.lane.in_flight.take(held := 1_000_000 if status == 503 else 0)
            request = call(smuggled, target="/collect/x/nobody" if status == 401 else "/track")
            await client.send(request[:1000])
            answer = await client.answer()
            door.lane.in_flight.give_back(held)
            assert (answer.status, answer.headers.get("connection")) == (status, None if goes_on else "close")
            if goes_on:
                await client.send(request[1000:] + get() + call())
                answers = await client.answers(2)
                assert [(answer.status, answer.by_the_lane) for answer in answers] == [(200, False), (200, True)]
            else:
                with suppress(ConnectionError):
                    await client.send(request[1000:] + call())
                await client.closed()
        assert (await door.queue.totals()).received == (1 if goes_on else 0)
        await nothing_left(door)


@pytest.mark.parametrize("kind", ["lane", "guest", "mixed"])
async def test_who_sends_far_ahead_and_does_not_read_is_not_read_either(tmp_path: Path, kind: str) -> None:
    requests = {"lane": [call()], "guest": [get("/healthcheck")], "mixed": [call(), get(), call(method="PUT")]}[kind]
    data = b"".join(requests)
    rounds = (400 << 10) // len(data)
    async with opened(tmp_path, send_buffer=4096) as door:
        raw = socket.socket()
        for which in (socket.SO_RCVBUF, socket.SO_SNDBUF):
            raw.setsockopt(socket.SOL_SOCKET, which, 4096)
        raw.connect((door.host, door.port))
        raw.setblocking(False)
        client = Client(*await asyncio.open_connection(sock=raw, limit=1024))
        sending = asyncio.create_task(client.send(*[data] * rounds))
        await eventually(lambda: bool(door.lane._connections))
        (served,) = door.lane._connections
        await eventually(lambda: served._paused, what="reading is paused")
        assert len(served._ahead) <= connection.AHEAD_MAX + (256 << 10)
        assert not sending.done()

        for number in range(rounds):
            for request in requests:
                assert (await client.answer()).status == 200, (number, request)
            assert len(served._ahead) <= connection.AHEAD_MAX + (256 << 10)
        await sending
        client.writer.close()
        await client.writer.wait_closed()
        await nothing_left(door)


async def test_what_is_sent_behind_a_body_that_the_guest_reads_slowly_stays_bounded(tmp_path: Path) -> None:
    """Both the lane and aiohttp's stream pause and resume the one socket."""
    queue = Held()
    async with opened(tmp_path, queue=queue) as door, connected(door) as client:
        body = BODY + b" " * 900_000
        flood = call() * ((8 << 20) // len(call()))
        sending = asyncio.create_task(client.send(call(body, method="PUT") + flood))
        await eventually(lambda: bool(queue.waiting), what="the body was read")
        (served,) = door.lane._connections
        await eventually(lambda: served._paused, what="reading is paused")
        for _ in range(200):
            await asyncio.sleep(0)
            assert len(served._ahead) <= connection.AHEAD_MAX + (512 << 10)
        client.reset()
        with suppress(ConnectionError):
            await sending
        await queue.tell()
        await nothing_left(door)


async def test_a_thousand_connections_are_served_and_forgotten(door: Door) -> None:
    clients = [Client(*await asyncio.open_connection(door.host, door.port)) for _ in range(1000)]
    for number, client in enumerate(clients):
        await client.send(get() if number % 3 == 0 else call())
    assert {(await client.answer()).status for client in clients} == {200}
    assert len(door.lane._connections) == 1000
    for client in clients:
        client.writer.close()
    await nothing_left(door)


# --- the queue ---


class Refusing:
    def __init__(self, error: Exception, later: bool) -> None:
        self.error = error
        self.later = later

    def post(self, publication: Publication, done: Posted) -> None:
        if not self.later:
            raise self.error
        asyncio.get_running_loop().call_soon(done, self.error)


@pytest.mark.parametrize("later", [False, True])
@pytest.mark.parametrize(
    ("error", "status"),
    [(Full("disk", "full", 7.2), 503), (Unavailable("queue", "away"), 503), (ValueError("bug"), 500)],
)
async def test_a_queue_that_refuses_is_answered_and_the_connection_goes_on(
    tmp_path: Path, error: Exception, status: int, later: bool
) -> None:
    async with opened(tmp_path, queue=Refusing(error, later)) as door:
        async with connected(door) as client:
            for _ in range(2):
                await client.send(call())
                answer = await client.answer()
                assert (answer.status, answer.by_the_lane) == (status, True)
                assert ("retry-after" in answer.headers) == (status == 503)
        await nothing_left(door)


# --- the end ---


async def test_closing_answers_what_was_begun_and_refuses_the_rest(tmp_path: Path) -> None:
    queue = Held()
    async with opened(tmp_path, queue=queue) as door:
        async with (
            connected(door) as idle,
            connected(door) as lane,
            connected(door) as guest,
            connected(door) as arriving,
        ):
            await idle.send(get())
            assert (await idle.answer()).status == 200
            await lane.send(call())
            await guest.send(call(method="PUT"))
            await arriving.send(call()[:-1])
            await eventually(lambda: len(queue.waiting) == 2 and door.lane.at_work() == 2)

            closing = asyncio.create_task(door.site.close())
            await idle.closed()
            with pytest.raises(ConnectionRefusedError):
                await asyncio.open_connection(door.host, door.port)
            await arriving.send(call()[-1:])
            for _ in range(3):
                await queue.tell()

            for client in (lane, arriving):
                answer = await client.answer()
                assert (answer.status, answer.headers["connection"]) == (200, "close")
                await client.closed()
            assert (await guest.answer()).status == 200
            await guest.closed()
            await asyncio.wait_for(closing, LIMIT_S)
        await nothing_left(door)


@pytest.mark.parametrize("request_", [call(), call(method="PUT"), call()[:-1]])
async def test_closing_does_not_wait_for_ever(tmp_path: Path, request_: bytes) -> None:
    queue = Held()
    async with opened(tmp_path, queue=queue, closing_s=0.4) as door, connected(door) as client:
        await client.send(request_)
        await eventually(lambda: door.metrics.in_flight_bytes.value > 0)

        await asyncio.wait_for(door.site.close(), LIMIT_S)

        await client.closed()
        await eventually(lambda: not door.lane._connections)


async def test_closing_an_idle_site_is_immediate_and_may_be_repeated(door: Door) -> None:
    await asyncio.wait_for(door.site.close(), LIMIT_S)
    await asyncio.wait_for(door.site.close(), LIMIT_S)


# --- who is there ---


@pytest.mark.parametrize("way", [True, False])
@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_the_peers_address_is_kept(tmp_path: Path, host: str, way: bool) -> None:
    async with opened(tmp_path, host=host, express=way) as door:
        assert (await door.post(payload("x")))[0] == 200
        ((head, _, _),) = await door.queued()
        assert head.ip == host


@pytest.mark.parametrize("forwarded", ["203.0.113.9", " 203.0.113.9 , 10.0.0.1", "2001:db8::1", "", ",", "x" * 100])
async def test_a_forwarded_address_is_read_alike_on_both_ways(tmp_path: Path, forwarded: str) -> None:
    ips = []
    for way in (True, False):
        async with opened(tmp_path, express=way, use_x_forwarded_ip="X-Forwarded-For") as door:
            await door.post(payload("x"), headers={"X-Forwarded-For": forwarded})
            ips.append([head.ip for head, _, _ in await door.queued()])
    assert ips[0] == ips[1]
    assert len(ips[0]) == 1
