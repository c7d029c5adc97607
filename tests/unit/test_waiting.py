"""What is said, rejected or given up when nobody can take the tasks, on a clock of the test's own."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from executor.waiting import REJECT_AFTER, SAY_AFTER, SAY_AGAIN, Back, Reunion, Verdict, Waiting

QUIET = Verdict()


def said(waiting: Waiting, until: float, *how: object, step: float = 0.1) -> list[tuple[float, str]]:
    """Return what is said, and when, while things stand as they do."""
    found = []
    for number in range(round(until / step) + 1):
        verdict = waiting.look(number * step, *how)  # type: ignore[arg-type]
        assert verdict == Verdict(say=verdict.say)
        if verdict.say:
            found.append((number * step, verdict.say))
    return found


def test_it_says_how_to_start_a_worker_that_finds_this_dispatcher() -> None:
    waiting = Waiting("unix:/x", wait=None, start="python worker.py --yaml my.yml")
    assert said(waiting, 5, [], 0, {1: 5})[0][1].endswith("; start one: python worker.py --yaml my.yml")


def test_a_run_that_goes_on_needs_no_word() -> None:
    waiting = Waiting("here", wait=None)
    assert said(waiting, 300, [4, 2], 6, {1: 100, 4: 3}) == []
    assert said(waiting, 300, [4, 2], 6, {}) == []


def test_without_a_worker_it_says_so_soon_and_then_rarely() -> None:
    lines = said(Waiting("unix:/x", wait=None), 2 * SAY_AGAIN, [], 0, {1: 5})
    assert [pytest.approx(when) for when, _ in lines] == [SAY_AFTER, SAY_AFTER + SAY_AGAIN]
    assert lines[0][1] == "waiting for a worker at unix:/x; start one: python worker.py"


def test_it_waits_for_ever_unless_told_otherwise() -> None:
    waiting = Waiting("here", wait=None)
    assert not any(waiting.look(now, [], 0, {1: 5}).nobody for now in (0, 1e3, 1e6, 1e9))


def test_with_a_bound_it_gives_up() -> None:
    waiting = Waiting("here", wait=10)
    assert waiting.look(0, [], 0, {1: 5}) == QUIET
    assert not waiting.look(9.9, [], 0, {1: 5}).nobody
    assert waiting.look(10, [], 0, {1: 5}) == Verdict(nobody=True)


def test_no_wait_at_all_gives_up_at_once() -> None:
    assert Waiting("here", wait=0).look(0, [], 0, {1: 5}).nobody


def test_a_worker_that_comes_and_goes_starts_the_wait_anew() -> None:
    waiting = Waiting("here", wait=10)
    waiting.look(0, [], 0, {1: 5})
    waiting.look(9, [1], 1, {1: 4})
    assert not waiting.look(9.5, [], 0, {1: 5}).nobody
    assert not waiting.look(19.4, [], 0, {1: 5}).nobody
    assert waiting.look(19.5, [], 0, {1: 5}).nobody


def test_one_that_is_too_wide_is_said_at_once_and_waits_for_the_rest() -> None:
    waiting = Waiting("here", wait=None)
    lines = said(waiting, 3 * SAY_AGAIN - 1, [4, 2], 3, {1: 10, 8: 1})
    assert [when for when, _ in lines] == [pytest.approx(n * SAY_AGAIN) for n in range(3)]
    assert lines[0][1] == (
        "no worker is wide enough for 1 task of 8 cores: the widest has 4; "
        "rejected 30 s after the rest, unless a wider one comes"
    )


def test_several_widths_are_said_as_one() -> None:
    (line,) = said(Waiting("here", wait=5), 0, [4], 4, {6: 2, 8: 2000})
    assert line[1] == (
        "no worker is wide enough for 2,002 tasks of more than 4 cores: the widest has 4; "
        "rejected 5 s after the rest, unless a wider one comes"
    )


@pytest.mark.parametrize(("wait", "limit"), [(None, REJECT_AFTER), (5.0, 5.0), (0.0, 0.0)])
def test_when_nothing_else_is_left_it_is_rejected(wait: float | None, limit: float) -> None:
    waiting = Waiting("here", wait=wait)
    assert not waiting.look(100, [4], 1, {8: 1, 9: 2}).reject
    assert not waiting.look(200, [4], 1, {8: 1, 9: 2}).reject  # others run
    assert not waiting.look(300, [4], 0, {1: 1, 8: 1, 9: 2}).reject  # others wait
    if limit:
        assert not waiting.look(400, [4], 0, {8: 1, 9: 2}).reject
    verdict = waiting.look(400 + limit, [4], 0, {8: 1, 9: 2})
    assert verdict.reject == (8, 9)
    assert "widest" in verdict.reason
    assert "4" in verdict.reason
    assert not verdict.nobody


def test_a_wider_worker_in_time_saves_it() -> None:
    waiting = Waiting("here", wait=5)
    waiting.look(0, [4], 0, {8: 1})
    assert waiting.look(4.9, [4, 8], 0, {8: 1}) == QUIET
    assert not waiting.look(10, [4], 0, {8: 1}).reject
    assert not waiting.look(14.9, [4], 0, {8: 1}).reject
    assert waiting.look(15, [4], 0, {8: 1}).reject == (8,)


def test_after_a_worker_left_the_wait_for_a_wide_one_begins_anew() -> None:
    waiting = Waiting("here", wait=None)
    waiting.look(0, [4], 0, {8: 1})
    waiting.look(29, [], 0, {8: 1})
    assert not waiting.look(31, [4], 0, {8: 1}).reject
    assert waiting.look(61, [4], 0, {8: 1}).reject == (8,)


def test_a_new_width_is_said_though_another_was_just_said() -> None:
    waiting = Waiting("here", wait=None)
    assert waiting.look(0, [4], 1, {8: 1}).say
    assert not waiting.look(1, [4], 1, {8: 1}).say
    assert waiting.look(2, [4], 1, {8: 1, 6: 1}).say
    assert not waiting.look(3, [4], 1, {8: 1, 6: 1}).say


def test_where_all_workers_are_known_it_is_rejected_at_once() -> None:
    waiting = Waiting("here", wait=None, widest=4)
    assert waiting.look(0, [], 0, {1: 10, 8: 1}).reject == (8,)
    assert waiting.look(0.1, [2], 2, {1: 10}) == QUIET
    assert waiting.look(0.2, [2], 2, {4: 10}) == QUIET  # the wider one comes yet


def test_where_all_workers_are_known_nobody_is_waited_for() -> None:
    waiting = Waiting("here", wait=1, widest=4)
    assert said(waiting, 100, [], 0, {1: 10}) == []


@given(
    st.none() | st.floats(0, 50),
    st.none() | st.integers(1, 8),
    st.lists(
        st.tuples(
            st.floats(0, 40),
            st.lists(st.integers(1, 8), max_size=3),
            st.integers(0, 3),
            st.dictionaries(st.integers(1, 9), st.integers(1, 5), max_size=3),
        ),
        max_size=30,
    ),
)
def test_only_what_nobody_can_run_is_rejected(
    wait: float | None, widest: int | None, looks: list[tuple[float, list[int], int, dict[int, int]]]
) -> None:
    waiting, now = Waiting("here", wait=wait, widest=widest), 0.0
    for passed, cores, held, left in looks:
        now += passed
        verdict = waiting.look(now, cores, held, left)
        bound = max(cores, default=0) if widest is None else widest
        assert set(verdict.reject) <= {width for width in left if width > bound}
        assert bool(verdict.reject) == bool(verdict.reason)
        assert not (verdict.nobody and (cores or wait is None or widest is not None))
        if widest is None and (held or any(width <= bound for width in left)):
            assert not verdict.reject


def test_the_workers_of_before_are_waited_for_until_all_are_back() -> None:
    reunion = Reunion({"a", "b"}, 5.0)
    assert not reunion.over
    assert reunion.look(100.0, ["a", "stranger"]) == Back()
    assert reunion.look(101.0, []) == Back(
        "waiting up to 5 s for 1 worker of the run before, which may hold results"
    )
    assert reunion.look(102.0, []) == Back()  # it is said once
    assert reunion.look(103.0, ["b"]) == Back()  # each was seen once: a is back, too
    assert reunion.over


def test_those_who_do_not_come_back_are_given_up_when_their_patience_is_over() -> None:
    reunion = Reunion({"a", "b"}, 5.0)
    reunion.look(100.0, ["a"])
    reunion.look(104.9, [])
    assert not reunion.over
    assert reunion.look(105.0, []) == Back(given_up=frozenset({"b"}))
    assert reunion.over


def test_nobody_to_wait_for() -> None:
    assert Reunion((), 5.0).over
