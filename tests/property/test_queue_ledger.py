"""Random work on a queue, with restarts: the ledger adds up after every step, and nothing is lost or out of order."""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tracardi_lite.backends.queue.memory import MemoryLog
from tracardi_lite.backends.queue.memory import open_queue as open_memory
from tracardi_lite.backends.queue.sqlite import open_queue as open_sqlite
from tracardi_lite.errors import LeaseLost
from tracardi_lite.ports.queue import SUBSCRIPTION, Consumer, DeadLetter, Done, Message, Publication, Queue, Tally
from tracardi_lite.settings import Settings
from tracardi_lite.testing.clock import FakeClock
from tracardi_lite.testing.queue_suite import assert_adds_up

PARTITIONS = 3
outcomes = st.sampled_from(["stored", "duplicate", "rejected", "dead"])


class QueueMachine(RuleBasedStateMachine):
    """One queue, one consumer at a time, closed now and then with work in its hands."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.clock = FakeClock()
        self.queue: Queue | None = None
        self.consumer: Consumer | None = None
        self.held: list[Message] = []
        self.published: dict[str, list[int]] = {}
        self.acked: set[tuple[str, int]] = set()
        self.high: dict[str, int] = {}
        self.count = 0

    def run(self, act: Any) -> Any:
        async def limited() -> Any:
            async with asyncio.timeout(10):
                return await act

        return self.loop.run_until_complete(limited())

    def make(self) -> Queue:
        raise NotImplementedError

    @initialize()
    def begin(self) -> None:
        self.queue = self.run(self.make().__aenter__())
        self.consumer = self.run(self.queue.subscribe(SUBSCRIPTION))

    @rule(key=st.sampled_from("abcd"), events=st.integers(0, 3), times=st.integers(1, 3))
    def publish(self, key: str, events: int, times: int) -> None:
        assert self.queue is not None
        for _ in range(times):
            self.count += 1
            self.published.setdefault(key, []).append(self.count)
            self.run(self.queue.publish(Publication(key=key, head=b"", body=b"%d" % self.count, events=events)))

    @rule(count=st.integers(1, 6))
    def receive(self, count: int) -> None:
        assert self.consumer is not None
        for message in self.run(self.consumer.receive(count, 1 << 20, 0.0)):
            number = int(message.body)
            waiting = [n for n in self.published[message.key] if n < number and (message.key, n) not in self.acked]
            out = {int(held.body) for held in self.held if held.key == message.key}
            assert set(waiting) <= out, "whatever comes before it of its key is in our hands or done"
            assert number not in out, "nothing is given out twice"
            self.held.append(message)

    @precondition(lambda self: self.held)
    @rule(data=st.data(), outcome=outcomes)
    def ack(self, data: st.DataObject, outcome: str) -> None:
        assert self.consumer is not None
        chosen = data.draw(st.lists(st.sampled_from(range(len(self.held))), unique=True, min_size=1))
        done = [Done(self.held[place], Tally(**{outcome: self.held[place].events})) for place in sorted(chosen)]
        letters = [
            DeadLetter(f"{int(one.message.body):06}", one.message.key, b"", one.message.body, one.tally.dead, "r", 0)
            for one in done
            if outcome == "dead"
        ]
        self.run(self.consumer.ack(done, letters))
        self.acked |= {(one.message.key, int(one.message.body)) for one in done}
        self.held = [message for place, message in enumerate(self.held) if place not in chosen]

    @precondition(lambda self: self.held)
    @rule(data=st.data(), delay=st.sampled_from([0.0, 5.0]))
    def nack(self, data: st.DataObject, delay: float) -> None:
        assert self.consumer is not None
        first = data.draw(st.sampled_from(self.held))
        # Like a worker: what follows of the key cannot go ahead either.
        back = [held for held in self.held if held.key == first.key and int(held.body) >= int(first.body)]
        self.run(self.consumer.nack(back, delay))
        self.held = [held for held in self.held if held not in back]

    @rule()
    def release(self) -> None:
        assert self.consumer is not None
        self.run(self.consumer.release(self.held))
        self.held = []

    @rule(seconds=st.integers(1, 10))
    def wait(self, seconds: int) -> None:
        self.clock.advance(seconds)

    @rule()
    def change_consumer(self) -> None:
        assert self.consumer is not None
        assert self.queue is not None
        late, held = self.consumer, self.held
        self.run(late.close())
        if held:
            try:
                self.run(late.ack([Done(held[0], Tally(stored=held[0].events))]))
                raise AssertionError("a closed consumer acknowledged")
            except LeaseLost:
                pass
        self.consumer = self.run(self.queue.subscribe(SUBSCRIPTION))
        self.held = []
        self._may_come_again()

    @rule()
    def restart(self) -> None:
        assert self.queue is not None
        self.run(self.queue.__aexit__(None, None, None))
        self.held = []
        self._may_come_again()
        self.begin()

    @rule()
    def seek(self) -> None:
        assert self.queue is not None
        self.run(self.queue.seek(SUBSCRIPTION, None))
        self.held = []
        self.acked.clear()
        self.run(self.consumer.close())  # type: ignore[union-attr]
        self.consumer = self.run(self.queue.subscribe(SUBSCRIPTION))

    @rule()
    def maintain(self) -> None:
        assert self.queue is not None
        self.run(self.queue.maintain())

    @rule()
    def replay_a_letter(self) -> None:
        assert self.queue is not None
        for letter in self.run(self.queue.dead_letters(1)):
            self.count += 1
            self.published.setdefault(letter.key, []).append(self.count)
            replay = Publication(letter.key, b"", b"%d" % self.count, letter.events, replay=True)
            assert self.run(self.queue.take_dead_letter(letter.id, replay=replay))

    @invariant()
    def adds_up(self) -> None:
        if self.queue is not None:
            totals = self.run(self.queue.totals())
            assert_adds_up(totals)
            assert min(totals.pending, totals.received, totals.stored, totals.dead) >= 0
            assert sum(row.events for row in self.run(self.queue.backlog())) == totals.pending

    def teardown(self) -> None:
        """Everything that is left can be done, and then nothing is pending."""
        if self.queue is not None and self.consumer is not None:
            self.clock.advance(100)
            self.run(self.consumer.release(self.held))
            while self.run(self.queue.totals()).pending or self._left():
                found = self.run(self.consumer.receive(100, 1 << 20, 1.0))
                assert found, "what is pending comes"
                self.run(self.consumer.ack([Done(message, Tally(stored=message.events)) for message in found]))
                self.acked |= {(message.key, int(message.body)) for message in found}
            self.adds_up()
            self.run(self.queue.__aexit__(None, None, None))
        self.loop.run_until_complete(self.loop.shutdown_default_executor())
        self.loop.close()

    def _left(self) -> bool:
        return any((key, number) not in self.acked for key, numbers in self.published.items() for number in numbers)

    def _may_come_again(self) -> None:
        """Acknowledged beyond the cursor: delivery is at least once."""
        self.acked = {(key, number) for key, number in self.acked if self._is_passed(key, number)}

    def _is_passed(self, key: str, number: int) -> bool:
        return all((key, earlier) in self.acked for earlier in self.published[key] if earlier < number)


class MemoryMachine(QueueMachine):
    def __init__(self) -> None:
        super().__init__()
        self.log = MemoryLog(PARTITIONS)

    def make(self) -> Queue:
        return open_memory("memory:", Settings(queue_retention=10**6), clock=self.clock, log=self.log)


class SqliteMachine(QueueMachine):
    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.mkdtemp()

    def make(self) -> Queue:
        chosen = Settings(queue_partitions=PARTITIONS, queue_retention=10**6, disk_free_min=0)
        return open_sqlite(f"sqlite://{self.folder}/queue", chosen, clock=self.clock)

    def teardown(self) -> None:
        try:
            super().teardown()
        finally:
            shutil.rmtree(self.folder)


class TestMemoryLedger(MemoryMachine.TestCase):  # type: ignore[misc]
    settings = settings(max_examples=40, stateful_step_count=30, deadline=None)


class TestSqliteLedger(SqliteMachine.TestCase):  # type: ignore[misc]
    settings = settings(
        max_examples=8, stateful_step_count=25, deadline=None, suppress_health_check=[HealthCheck.too_slow]
    )
