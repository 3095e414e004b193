"""The order of deliveries under Key_Shared, against a model: per key, whatever is put back."""

from __future__ import annotations

import hypothesis.strategies as st
from hypothesis import given

from tracardi_lite.backends.queue.pulsar.lines import Item, Lines, State
from tracardi_lite.backends.queue.window import Budget


def budget(messages: int = 100) -> Budget:
    return Budget(messages, 1 << 20)


def item(key: str, entry: int, tries: int = 0) -> Item:
    return Item(key, (1, entry, 0), 10, tries)


def names(items: list[Item]) -> list[tuple[str, int]]:
    return [(one.key, one.position[1]) for one in items]


def test_messages_come_in_the_order_of_their_arrival() -> None:
    lines = Lines()
    for key, entry in (("a", 1), ("b", 2), ("a", 3)):
        lines.offer(item(key, entry))
    assert names(lines.take(0.0, budget())) == [("a", 1), ("b", 2), ("a", 3)]
    assert lines.waiting == lines.waiting_bytes == 0


def test_what_is_put_back_holds_back_its_key_alone() -> None:
    lines = Lines()
    for key, entry in (("a", 1), ("a", 2), ("b", 3)):
        lines.offer(item(key, entry))
    (first,) = lines.take(0.0, budget(1))
    lines.put_back(first, 5.0, tried=True)
    assert names(lines.take(0.0, budget())) == [("b", 3)]
    assert names(lines.take(5.0, budget())) == [("a", 1)]
    assert lines.take(5.0, budget()) == []
    lines.done(first)
    assert names(lines.take(5.0, budget())) == [("a", 2)]


def test_a_message_that_arrives_late_goes_before_the_younger_ones_of_its_key() -> None:
    lines = Lines()
    lines.offer(item("a", 5))
    lines.offer(item("a", 4))
    assert names(lines.take(0.0, budget())) == [("a", 4), ("a", 5)]


def test_a_message_with_tries_from_before_is_delivered_alone() -> None:
    lines = Lines()
    lines.offer(item("a", 1, tries=2))
    lines.offer(item("a", 2))
    assert names(lines.take(0.0, budget())) == [("a", 1)]


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from(["ack", "nack", "release", "keep"])), max_size=60))
def test_of_a_key_nothing_overtakes(plan: list[tuple[str, str]]) -> None:
    lines = Lines()
    settled: dict[str, list[int]] = {}
    out: list[Item] = []
    now = 0.0
    for number, (key, _) in enumerate(plan):
        lines.offer(item(key, number))
    for _, act in [*plan, *[("", "ack")] * 200]:
        now += 1.0
        for found in lines.take(now, budget(3)):
            ahead = [one for one in out if one.key == found.key]
            assert all(one.position < found.position for one in ahead), "an earlier one is out before a later one"
            assert not any(one.tries for one in ahead), "what was tried is out alone"
            out.append(found)
        if not out or act == "keep":
            continue
        one = out[0]
        if act == "ack":
            out.remove(one)
            lines.done(one)
            settled.setdefault(one.key, []).append(one.position[1])
        else:
            back = [each for each in out if each.key == one.key]
            for each in back:
                out.remove(each)
            lines.put_back(one, now + 2.0, tried=act == "nack")
            for each in back[1:]:
                lines.put_back(each, 0.0, tried=False)
    wanted: dict[str, list[int]] = {}
    for number, (key, _) in enumerate(plan):
        wanted.setdefault(key, []).append(number)
    assert settled == wanted
    assert lines.waiting == 0
    assert all(one.state is State.OUT for one in out)
