"""What a process on Pulsar writes down of itself, and when it may publish: with a journal and partitions that are told
what to do."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest

from tracardi_lite.backends.queue.pulsar import ledger as ledgers
from tracardi_lite.backends.queue.pulsar.counts import Counts, Written
from tracardi_lite.backends.queue.pulsar.journal import Journal
from tracardi_lite.backends.queue.pulsar.ledger import UNTOLD_MAX_S, Ledger
from tracardi_lite.backends.queue.pulsar.publisher import UNCERTAIN_S, Publisher
from tracardi_lite.backends.queue.pulsar.room import Room
from tracardi_lite.backends.queue.pulsar.sender import Told
from tracardi_lite.errors import Unavailable
from tracardi_lite.ports.queue import Publication


class Sending:
    """A sender whose receipts come on command."""

    def __init__(self) -> None:
        self.written: list[tuple[str, bytes]] = []
        self.futures: list[asyncio.Future[Any]] = []
        self.told: list[Told] = []
        self.waits_s = 0.0

    def check(self) -> None:
        pass

    def send(self, payload: bytes, key: str) -> asyncio.Future[Any]:
        self.written.append((key, payload))
        self.futures.append(asyncio.get_running_loop().create_future())
        return self.futures[-1]

    def post(self, payload: bytes, key: str, told: Told) -> None:
        self.told.append(told)


class Rig:
    def __init__(self) -> None:
        self.journal = Sending()
        self.partition = Sending()
        self.ledger = Ledger(None, self.journal, "topic")  # type: ignore[arg-type]
        self.publisher = Publisher([self.partition], self.ledger, 1 << 20, Room(1 << 30))  # type: ignore[list-item]
        self.ledger.unsure_s = self.publisher.unsure_s
        self.answers: list[Exception | None] = []

    def post(self) -> None:
        self.publisher.post(Publication(key="k", head=b"", body=b"x", events=2), self.answers.append)

    def reports(self) -> list[Counts]:
        """As another process reads them."""
        found = []
        for key, payload in self.journal.written:
            read = Journal()
            read.apply(key, payload, 0)
            found += read.processes.values()
        return found


@pytest.fixture
def now(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Moves the monotonic clock."""
    time = [1000.0]
    monkeypatch.setattr(ledgers.time, "monotonic", lambda: time[0])

    def forward(seconds: float) -> None:
        time[0] += seconds

    return forward


@pytest.fixture
async def rig(now: Callable[[float], None]) -> Rig:
    return Rig()


async def turn() -> None:
    for _ in range(5):
        await asyncio.sleep(0)


async def test_a_first_publication_is_answered_when_the_broker_has_it_and_the_journal_knows_its_writer(
    rig: Rig,
) -> None:
    rig.post()
    await turn()
    [known] = rig.reports()
    assert known.published == {0: Written()}, "said before there is a receipt: whoever dies now is looked for"
    rig.partition.told[0](None, (1, 0, 0), False)
    await turn()
    assert rig.answers == []
    rig.journal.futures[0].set_result((1, 0, 0))
    await turn()
    assert rig.answers == [None]
    rig.post()
    rig.partition.told[1](None, (1, 1, 0), False)
    assert rig.answers == [None, None]
    assert len(rig.journal.written) == 1


async def test_a_journal_that_takes_nothing_fails_the_first_publication_and_is_tried_with_the_next(rig: Rig) -> None:
    rig.post()
    await turn()
    rig.journal.futures[0].set_exception(Unavailable("queue", "away"))
    await turn()
    rig.partition.told[0](None, (1, 0, 0), False)
    await turn()
    rig.journal.futures[1].set_exception(Unavailable("queue", "away"))
    await turn()
    assert isinstance(rig.answers[0], Unavailable)
    rig.post()
    await turn()
    rig.journal.futures[2].set_result((1, 0, 0))
    rig.partition.told[1](None, (1, 1, 0), False)
    await turn()
    assert rig.answers[1] is None


async def test_who_can_t_write_down_what_it_published_stops_until_it_can(
    rig: Rig, now: Callable[[float], None]
) -> None:
    now(UNTOLD_MAX_S * 10)
    rig.post()
    rig.post()  # that it was idle for long matters to nobody
    await turn()
    rig.journal.futures[0].set_result((1, 0, 0))
    await turn()
    now(UNTOLD_MAX_S - 1)
    rig.post()
    now(2)
    with pytest.raises(Unavailable, match="journal"):
        rig.post()
    with pytest.raises(Unavailable, match="journal"):
        rig.publisher.check()
    report = asyncio.create_task(rig.ledger.report_if_due())
    await turn()
    rig.journal.futures[1].set_result((1, 1, 0))
    await report
    rig.post()


async def test_a_report_says_since_when_it_may_miss_something(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledgers.time, "time_ns", lambda: 1_800_000_000_000_000_000)
    rig.post()
    rig.partition.waits_s = 1.5
    await turn()
    rig.partition.told[0](Unavailable("queue", "who knows"), None, False)
    report = asyncio.create_task(rig.ledger.report())
    await turn()
    first, second = rig.reports()
    assert first.since_ms == 1_800_000_000_000 - 1500
    assert second.since_ms == 1_800_000_000_000 - UNCERTAIN_S * 1000
    for future in rig.journal.futures:
        future.set_result((1, 0, 0))
    await report


async def test_who_has_counted_nothing_writes_nothing(rig: Rig, now: Callable[[float], None]) -> None:
    now(1000)
    await rig.ledger.report_if_due()
    await rig.ledger.close()
    assert rig.journal.written == []
