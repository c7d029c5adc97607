"""How far a run is, in words, and near its end what still runs."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from executor.progress import NAMED_MOST, Lasting, LineTimes, progress_text, tail_text
from executor.screen import Summary
from executor.task import Error, Result, Task


def summary(ok: int = 997, failed: int = 0, total: int = 1000) -> Summary:
    made = Summary(total)
    made.counts = {"ok": ok, "error": failed} if failed else {"ok": ok}
    return made


def lasting(function: str, *params: object, worker: str = "w2", seconds: float = 41.2) -> Lasting:
    return Lasting(Task(function=function, params=list(params), id="t"), worker, seconds)


SLOW = [
    lasting("package.slow", 7, worker="node7-12", seconds=133.4),
    lasting("package.slow", 9),
    lasting("package.module.simulate", "a text that is long " * 9, 3.5, worker="w3", seconds=12),
]


def test_progress() -> None:
    mixed = Summary(10)
    known = {"function": "f", "params": [], "kwargs": {}, "resources": 1}
    mixed.add([Result(id="1", status="ok", **known)])  # type: ignore[arg-type]
    mixed.add([Result(id="2", status="error", error=Error("E", ""), **known)])  # type: ignore[arg-type]
    assert progress_text(mixed, 3, 2.0) == "2 of 10 done, 1 failed, 3 running, 2/s, 4 s left"
    assert progress_text(mixed, 3, 3.0).endswith("3 s left")  # no more exact than it is known
    assert "left" not in progress_text(mixed, 0, 0.0)


@pytest.mark.parametrize(
    ("width", "text"),
    [
        (
            400,
            "997 of 1,000 done, 3 running: package.slow(7) on node7-12 for 2 min 13 s, "
            "package.slow(9) on w2 for 41 s, …simulate('a text that is lo…text that…) on w3 for 12 s",
        ),
        (100, "997 of 1,000 done, 3 running: package.slow(7) on node7-12 for 2 min 13 s, …"),
        (80, "997 of 1,000 done, 3 running: package.slow(7) on node7-12 for 2 min 13 s, …"),
        (60, "3 running: package.slow(7) on node7-12 for 2 min 13 s, …"),
        (50, "3 running: …slow(7) on node7-12 for 2 min 13 s, …"),
    ],
)
def test_the_end_names_what_runs_longest_where_and_for_how_long(width: int, text: str) -> None:
    assert tail_text(summary(), 3, SLOW, width) == text


def test_what_room_there_is_goes_to_as_many_as_can_be_read_and_then_to_their_calls() -> None:
    two = [SLOW[2], SLOW[2]]
    assert tail_text(summary(), 2, two, 100) == (
        "997 of 1,000 done, 2 running: …simulate('a text…) on w3 for 12 s, …simulate('a text…) on w3 for 12 s"
    )


def test_where_there_is_little_room_the_counts_go_first() -> None:
    many = summary(999_985, 12, 1_000_000)
    assert tail_text(many, 3, SLOW, 100).startswith("999,997 of 1,000,000 done, 12 failed, 3 running: ")
    assert tail_text(many, 3, SLOW, 85).startswith("999,997 of 1,000,000 done, 3 running: ")
    assert tail_text(many, 3, SLOW, 80).startswith("3 running: package.slow(7) on node7-12 for 2 min 13 s")


def test_rate_and_time_left_are_left_out_when_nothing_is_known_to_run_long() -> None:
    assert tail_text(summary(998, 1), 1, [], 80) == "999 of 1,000 done, 1 failed, 1 running"


TEXTS = st.text(st.characters() | st.sampled_from("日本語ｗ[]{}"), max_size=60)


@given(
    st.lists(
        st.builds(lasting, st.just("a.b.c"), TEXTS, worker=TEXTS, seconds=st.floats(0, 1e6)), max_size=5
    ),
    st.integers(0, 10**6),
    st.integers(20, 250),
)
def test_it_is_one_line_of_the_screens_width(found: list[Lasting], running: int, width: int) -> None:
    text = tail_text(summary(999_000, 900, 1_000_000), running, found, width)
    assert cell_len(text) <= width
    assert text.isprintable()


@given(st.text("abcdefgh.", min_size=1, max_size=40), TEXTS, st.floats(0, 1e6))
def test_in_eighty_columns_the_longest_can_be_read(worker: str, param: str, seconds: float) -> None:
    one = lasting("package.function", param, worker=worker, seconds=seconds)
    text = tail_text(summary(999_000, 900, 1_000_000), 99, [one, *SLOW], 80)
    assert f" on {worker} for " in text or len(worker) > 24
    assert f" on {worker[:24]}" in text
    assert "function(" in text


def lines(moments: list[tuple[float, bool]]) -> list[float]:
    """Return when a line is said, of (seconds since the beginning, whether there are calls to be named)."""
    times = LineTimes(1000.0)
    return [moment for moment, tail in moments if times.due(1000.0 + moment, tail=tail)]


def test_lines_come_soon_once_then_rarely() -> None:
    assert lines([(second, False) for second in range(100)]) == [5, 35, 65, 95]
    assert lines([(second, True) for second in range(100)]) == [5, 35, 65, 95]


def test_a_line_comes_soon_after_the_end_began() -> None:
    assert lines([(second, second >= 50) for second in range(100)]) == [5, 35, 52, 82]
    assert lines([(second, second >= 37) for second in range(100)]) == [5, 35, 45, 75]


def test_an_end_that_comes_and_goes_is_no_reason_for_many_lines() -> None:
    said = lines([(second, second % 4 < 2) for second in range(100)])
    assert all(later - one >= 10 for one, later in itertools.pairwise(said))


def test_few_are_named() -> None:
    assert len(SLOW) < NAMED_MOST
