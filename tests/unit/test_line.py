"""The line of a worker's calls."""

from __future__ import annotations

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from executor.line import BATCH_BYTES, Entry, Line
from executor.messages import Item

CALL = msgspec.Raw(b"\xc0")


def item(place: int, width: int = 1) -> Item:
    return Item(place, 1, width, None, None, CALL)


def filled(*places: int, run: str = "a", width: int = 1) -> Line:
    line = Line()
    for place in places:
        line.add(run, [item(place, width)])
    return line


def drained(line: Line) -> list[int]:
    places = []
    while line:
        places += [entry.item.place for entry in line.take(1)]
    return places


@given(st.lists(st.integers(0, 1000), unique=True))
def test_a_run_stands_in_order_of_place_however_it_arrives(places: list[int]) -> None:
    assert drained(filled(*places)) == sorted(places)


@given(st.lists(st.lists(st.integers(0, 1000), unique=True)), st.integers(1, 9), st.integers(1, 9))
def test_frames_stand_in_order_of_place_whatever_is_given_out_meanwhile(
    frames: list[list[int]], first: int, second: int
) -> None:
    line, places = Line(), set[int]()
    for frame in frames:
        new = [place for place in frame if place not in places]
        places.update(new)
        line.add("a", map(item, new))
        if line:
            out = line.take(first)
            if line:
                out += line.take(second)
            line.put_back(reversed(out))
    assert drained(line) == sorted(places)


@given(st.lists(st.integers(0, 1000), unique=True), st.integers(1, 50), st.integers(1, 50))
def test_what_comes_back_stands_where_it_stood(places: list[int], first: int, second: int) -> None:
    line = filled(*places)
    out: list[Entry] = []
    for most in (first, second):
        if line:
            out += line.take(most)
    line.put_back(reversed(out))
    assert drained(line) == sorted(places)


def test_another_attempt_stands_before_what_is_later_in_order() -> None:
    line = filled(5, 6, 9)
    line.add("a", [item(7)])
    assert drained(line) == [5, 6, 7, 9]


def test_places_stand_in_order_among_those_of_another_run() -> None:
    line = filled(5)
    line.add("b", [item(0)])
    line.add("a", [item(3)])
    assert [(entry.run, entry.item.place) for _ in range(3) for entry in line.take(1)] == [
        ("a", 3),
        ("a", 5),
        ("b", 0),
    ]


def test_runs_stand_in_order_of_arrival() -> None:
    line = filled(5, 6)
    line.add("b", [item(1)])
    assert [entry.run for entry in (*line.take(9), *line.take(9))] == ["a", "a", "b"]


def test_a_batch_is_of_one_width() -> None:
    line = filled(0, 1)
    line.add("a", [item(2, width=2)])
    assert len(line.take(10)) == 2
    assert line.first.item.width == 2


def test_the_last_in_line_are_given_up_first() -> None:
    line = filled(0, 1, 2, 3)
    assert line.give_up("a", 2) == [3, 2]
    assert line.give_up("b") == []
    assert line.give_up("a") == [1, 0]
    assert not line


def test_only_a_narrow_one_overtakes() -> None:
    line = filled(0, width=4)
    line.add("a", [item(1, width=3)])
    line.add("a", [item(2, width=1)])
    assert line.overtake(1)
    assert drained(line) == [2, 0, 1]
    assert not filled(0, 1, width=2).overtake(1)


def test_dropping_tells_the_places() -> None:
    line = filled(0, 1, 2)
    assert line.drop(lambda entry: entry.item.place != 1) == [0, 2]
    assert [entry.item.place for entry in line] == [1]


def test_a_batch_ends_where_its_buffers_are_enough() -> None:
    line = Line()
    buffers = [bytes(BATCH_BYTES // 3 + 1), b"more"]
    line.add("a", [item(place) for place in range(10)], dict.fromkeys(range(10), buffers))
    assert [len(line.take(100)) for _ in range(4)] == [3, 3, 3, 1]
