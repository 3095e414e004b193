"""A partition's window against what it promises: order per key, a cursor that passes nothing, each outcome once."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from tracardi_lite.backends.queue.window import Budget, Window
from tracardi_lite.ports.queue import Tally

KEYS = "abc"
steps = st.lists(
    st.one_of(
        st.tuples(st.just("offer"), st.sampled_from(KEYS), st.integers(0, 3)),
        st.tuples(st.just("done"), st.integers(0, 30), st.none()),
        st.tuples(st.just("nack"), st.integers(0, 30), st.integers(0, 3)),
        st.tuples(st.just("release"), st.integers(0, 30), st.none()),
        st.tuples(st.just("again"), st.integers(1, 5), st.none()),
        st.tuples(st.just("gap"), st.integers(0, 3), st.none()),
        st.tuples(st.just("wait"), st.integers(0, 3), st.none()),
    ),
    max_size=60,
)


class Model:
    """The same promises, said slowly."""

    def __init__(self) -> None:
        self.now = 0.0
        self.next = 0
        self.key: dict[int, str] = {}
        self.events: dict[int, int] = {}
        self.out: list[int] = []
        self.waits: dict[int, float] = {}
        self.tries: dict[int, int] = {}
        self.done: set[int] = set()

    def delivered(self, offset: int) -> None:
        earlier = [o for o, key in self.key.items() if o < offset and key == self.key[offset] and o not in self.done]
        assert not [o for o in earlier if o in self.waits], "nothing passes an earlier message of its key that waits"
        assert not [o for o in earlier if self.tries.get(o)], "nor one that was tried and is out again"
        if self.tries.get(offset):
            assert not earlier, "what was tried goes alone"
        self.out.append(offset)

    @property
    def cursor(self) -> int:
        return min((o for o in self.key if o not in self.done), default=self.next)


@settings(max_examples=300, deadline=None)
@given(steps)
def test_a_window_keeps_its_promises(steps: list[tuple[str, object, object]]) -> None:
    window, model = Window(0), Model()
    passed_messages = passed_events = passed_dead = 0
    for act, first, second in steps:
        if act == "offer":
            offset = model.next
            model.key[offset], model.events[offset] = str(first), int(str(second))
            model.next += 1
            if window.offer(offset, str(first), int(str(second)), 10):
                model.delivered(offset)
            else:
                model.waits[offset] = 0.0
        elif act == "gap":
            model.next += int(str(first))
            window.skip_to(model.next)
        elif act == "wait":
            model.now += int(str(first))
        elif act == "again":
            found = window.eligible(model.now, int(str(first)))
            assert len(found) <= int(str(first))
            for offset in found:
                assert model.waits.pop(offset) <= model.now
                assert window.redeliver(offset) == model.tries.get(offset, 0)
                model.delivered(offset)
        elif model.out:
            offset = model.out[int(str(first)) % len(model.out)]
            model.out.remove(offset)
            if act == "done":
                assert window.done(offset, Tally(dead=model.events[offset]))
                assert not window.done(offset, Tally(dead=model.events[offset])), "only once"
                model.done.add(offset)
            elif act == "nack":
                model.tries[offset] = model.tries.get(offset, 0) + 1
                model.waits[offset] = model.now + int(str(second))
                assert window.put_back(offset, model.waits[offset], tried=True) == model.tries[offset]
            else:
                model.waits[offset] = 0.0
                window.put_back(offset, 0.0, tried=False)
        assert window.cursor == model.cursor
        assert window.out == len(model.out)
        if window.moved and offset_is_even(model.next):
            taken = window.take()
            if taken.events % 2:  # storing failed: it has to come again
                window.restore(taken)
            else:
                passed_messages += taken.messages
                passed_events += taken.events
                passed_dead += taken.dead
    taken = window.take()
    below = [offset for offset in model.done if offset < model.cursor]
    assert passed_messages + taken.messages == len(below)
    assert passed_events + taken.events == sum(model.events[offset] for offset in below)
    assert passed_dead + taken.dead == passed_events + taken.events


def offset_is_even(offset: int) -> bool:
    return offset % 2 == 0


@settings(max_examples=100, deadline=None)
@given(steps)
def test_everything_is_delivered_in_the_end_when_it_is_settled(steps: list[tuple[str, object, object]]) -> None:
    window = Window(0)
    keys: dict[int, str] = {}
    out: list[int] = []
    for act, first, second in steps:
        if act == "offer":
            offset = len(keys)
            keys[offset] = str(first)
            if window.offer(offset, str(first), 1, 10):
                out.append(offset)
        elif act == "nack" and out:
            window.put_back(out.pop(int(str(first)) % len(out)), float(str(second)), tried=True)
    order: list[int] = []
    for _ in range(2 * len(keys) + 2):
        for offset in out:
            window.done(offset, Tally(stored=1))
        order += out
        out = window.eligible(1000.0, 100)
        for offset in out:
            window.redeliver(offset)
    assert sorted(order) == sorted(keys)
    assert window.cursor == len(keys)
    assert window.next_due == float("inf")


@given(st.lists(st.integers(0, 100), min_size=1), st.integers(0, 10), st.integers(0, 150))
def test_a_budget_takes_at_least_one_and_no_more_than_fits(sizes: list[int], messages: int, size: int) -> None:
    budget = Budget(messages, size)
    taken = []
    for one in sizes:
        if not budget.takes(one):
            break
        taken.append(one)
    assert taken[:1] == sizes[:1]
    assert len(taken) <= max(messages, 1)
    assert len(taken) == 1 or sum(taken) <= size


def test_a_window_without_room_says_so() -> None:
    window = Window(0, messages_max=2, bytes_max=100)
    assert window.has_room
    window.offer(0, "a", 1, 10)
    assert window.has_room
    window.offer(1, "b", 1, 10)
    assert not window.has_room
    window.done(1, Tally(stored=1))
    assert not window.has_room, "the first one is stuck and what is done behind it stays on the books"
    window.done(0, Tally(stored=1))
    assert window.has_room
    window.offer(2, "a", 1, 200)
    assert not window.has_room, "bytes are bounded too"
