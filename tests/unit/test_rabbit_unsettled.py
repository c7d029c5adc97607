from __future__ import annotations

from collections.abc import Collection

from hypothesis import given
from hypothesis import strategies as st

from transports.rabbitmq.unsettled import Unsettled


class Channel:
    """A broker's side of a channel: what is delivered and not settled (AMQP 0-9-1, basic.ack)."""

    def __init__(self) -> None:
        self.open: set[int] = set()
        self.words = 0

    def ack(self, number: int, multiple: bool) -> None:
        assert number in self.open, "the broker closes the channel"
        self.words += 1
        self.open -= {each for each in self.open if each <= number} if multiple else {number}


@given(
    st.integers(0, 30),
    st.lists(st.tuples(st.booleans(), st.sets(st.integers(1, 30), max_size=12)), max_size=10),
)
def test_what_is_settled_is_acknowledged_and_nothing_else(
    count: int, steps: list[tuple[bool, Collection[int]]]
) -> None:
    channel, unsettled = Channel(), Unsettled()
    for number in range(1, count + 1):
        channel.open.add(number)
        unsettled.came(number)
    still = set(channel.open)
    for rejects, numbers in steps:
        if rejects:
            for number in numbers:
                unsettled.rejected(number)
            channel.open -= set(numbers)
        else:
            for number, multiple in unsettled.settle(numbers):
                channel.ack(number, multiple)
        still -= set(numbers)
        assert channel.open == still


def test_what_came_together_is_settled_by_one_word() -> None:
    channel, unsettled = Channel(), Unsettled()
    for number in range(1, 101):
        channel.open.add(number)
        unsettled.came(number)
    unsettled.rejected(50)
    channel.open.discard(50)
    for number, multiple in unsettled.settle([number for number in range(1, 90) if number != 50]):
        channel.ack(number, multiple)
    assert channel.open == set(range(90, 101))
    assert channel.words == 1


def test_what_is_settled_out_of_order_takes_nothing_with_it() -> None:
    channel, unsettled = Channel(), Unsettled()
    for number in (1, 2, 3, 4):
        channel.open.add(number)
        unsettled.came(number)
    for number, multiple in [*unsettled.settle([3]), *unsettled.settle([3, 9])]:
        channel.ack(number, multiple)
    assert channel.open == {1, 2, 4}
