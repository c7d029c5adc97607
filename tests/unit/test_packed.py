"""Reports that stay encoded."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from executor.messages import Buffer, Report, Reports, Sealed, decode, encode
from executor.packed import Packed, join, pack
from executor.work import fitting

VALUE = msgspec.Raw(b"\x01")


def ok(place: int, *sizes: int) -> tuple[Report, list[Buffer]]:
    """A report with large buffers of these sizes."""
    return Report(place, place % 3, "ok", VALUE, len(sizes)), [bytes([place % 251]) * size for size in sizes]


def packed(first: int, *shapes: list[int]) -> Packed:
    """Reports of the places from `first` on, each with buffers of these sizes."""
    made = [ok(place, *sizes) for place, sizes in enumerate(shapes, first)]
    return pack([report for report, _ in made], [buffer for _, own in made for buffer in own])


SHAPES = st.lists(st.lists(st.integers(0, 5), max_size=3), max_size=40)


@given(st.lists(SHAPES, min_size=1, max_size=5))
def test_what_is_joined_is_each_in_its_turn_with_its_buffers(shapes: list[list[list[int]]]) -> None:
    joined = join([packed(100 * number, *each) for number, each in enumerate(shapes)])
    wanted = [
        ok(100 * number + i, *sizes) for number, each in enumerate(shapes) for i, sizes in enumerate(each)
    ]
    assert [(report, list(own)) for report, own in joined.each()] == wanted
    assert joined.count == len(wanted)
    assert list(joined.attempts()) == [(report.place, report.attempt) for report, _ in wanted]


@given(SHAPES)
def test_on_the_wire_they_are_as_if_they_had_been_read(shapes: list[list[int]]) -> None:
    reports = packed(0, *shapes)
    message, buffers = decode(encode(Sealed("a run", 7, reports.array), reports.buffers))
    assert message == Reports("a run", 7, reports.reports())
    assert buffers == list(reports.buffers)


def test_what_is_small_enough_together_is_passed_on_unread() -> None:
    bad = Packed(1, msgspec.Raw(b"\xdd\x00\x00\x00\x01nothing that could be read"))
    assert fitting(bad, 100) is bad


@pytest.mark.parametrize("too_large", [[101], [60, 41], [100, 1]])
def test_a_value_beyond_the_largest_is_its_tasks_error(too_large: list[int]) -> None:
    first, second, third = fitting(packed(0, [99], too_large, []), 100).each()
    assert (first[0], list(first[1])) == ok(0, 99)
    assert (third[0], list(third[1])) == ok(2)
    report, buffers = second
    assert (report.status, report.place, report.buffers, len(buffers)) == ("error", 1, 0, 0)
    assert report.error is not None
    assert report.error[0] == "CannotTravel"
    assert "`largest` is 100" in report.error[1]
