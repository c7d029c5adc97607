"""Into which queue a worker of RabbitMQ looks next."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from transports.rabbitmq.lookout import LOOK_AGAIN, LOOK_FOR_WIDTHS, Lookout
from transports.rabbitmq.topology import Topology

NAMES = Topology("q", 5.0, 1800.0)


@pytest.fixture
def lookout() -> Lookout:
    """A worker of four cores that knows of widths 1 and 3, and found nothing of what came back."""
    made = Lookout(NAMES, 4)
    for width in (3, 1):
        made.exists(NAMES.line(width))
    made.empty(NAMES.returned, 100.0)
    return made


def looks(
    lookout: Lookout, now: float = 100.0, *, idle: bool = False, wants: Callable[[int], object] = bool
) -> list[str]:
    """Return the queues that are looked into, one after the other, as long as each is empty."""
    found = []
    while queue := lookout.next(now, idle=idle, mends=True, wants=wants):
        found.append(queue)
        lookout.empty(queue, now)
    return found


def test_the_narrowest_first_and_before_it_what_came_back(lookout: Lookout) -> None:
    assert looks(lookout) == ["q.1.first", "q.1", "q.3.first", "q.3"]


def test_an_idle_worker_looks_first_for_what_must_be_alone(lookout: Lookout) -> None:
    assert looks(lookout, idle=True)[:3] == ["q.1.alone", "q.3.alone", "q.1.first"]


def test_nothing_wider_is_fetched_past_what_is_not_wanted(lookout: Lookout) -> None:
    assert looks(lookout, wants=lambda width: width == 3) == []


def test_an_empty_queue_is_looked_into_again_after_a_while_or_when_told(lookout: Lookout) -> None:
    assert "q.3" in looks(lookout)
    assert looks(lookout) == []
    assert all(100 < at <= 100 + 2 * LOOK_AGAIN for at in lookout.times(100.0))
    lookout.filled("q.3")
    assert looks(lookout) == ["q.3"]
    lookout.filled()
    assert "q.returned" in looks(lookout)
    assert "q.1" in looks(lookout, 100 + 2 * LOOK_AGAIN)


def test_what_came_back_waits_while_some_is_mended(lookout: Lookout) -> None:
    lookout.filled()
    assert lookout.next(100.0, idle=False, mends=False, wants=bool) == "q.1.first"
    assert lookout.next(100.0, idle=False, mends=True, wants=bool) == "q.returned"


def test_it_searches_now_and_then_for_the_widths_that_there_are_none_of(lookout: Lookout) -> None:
    assert lookout.search(100.0) == ["q.2", "q.4"]
    assert lookout.search(100.0 + LOOK_FOR_WIDTHS / 2) == []
    assert lookout.search(100.0 + 2 * LOOK_FOR_WIDTHS) == ["q.2", "q.4"]
    assert lookout.missing([1, 2, 7, 0]) == ["q.2", "q.2.first", "q.2.alone"]
    assert lookout.exists("q.2") == [2]
    assert lookout.exists("q.2.first") == [], "it is known"


@pytest.mark.parametrize("left", ["q.1.first", "q.1.alone"])
def test_of_a_width_that_it_knew_it_finds_what_came_back_though_the_line_is_gone(
    lookout: Lookout, left: str
) -> None:
    lookout.forget()
    lines = ["q.1", "q.2", "q.3", "q.4"]
    assert lookout.search(100.0) == [*lines, "q.1.first", "q.1.alone", "q.3.first", "q.3.alone"]
    assert looks(lookout) == ["q.returned"]
    assert lookout.exists(left) == [1]
    assert left in looks(lookout, 200.0, idle=True)


@given(st.lists(st.integers(0, 9)))
def test_queues_of_other_widths_are_none_of_ours(widths: list[int]) -> None:
    lookout = Lookout(NAMES, 4)
    for width in widths:
        lookout.exists(NAMES.line(width))
    ours = sorted({width for width in widths if 0 < width <= 4})
    assert [queue for queue in looks(lookout) if queue in map(NAMES.line, range(10))] == [
        NAMES.line(width) for width in ours
    ]
