"""What is said, rejected or given up when nobody can take the tasks, on a clock of the test's own."""

from __future__ import annotations

from executor.waiting import REJECT_AFTER, SAY_AFTER, SAY_AGAIN, Verdict, Waiting

QUIET = Verdict()


def test_no_worker_is_said_soon_and_then_rarely() -> None:
    waiting = Waiting("unix:/x", wait=None)
    assert waiting.look(0, [], 0, {1: 5}) == QUIET
    said = waiting.look(SAY_AFTER, [], 0, {1: 5})
    assert "unix:/x" in said.say
    assert "worker.py" in said.say
    assert waiting.look(SAY_AFTER + 1, [], 0, {1: 5}) == QUIET
    assert waiting.look(SAY_AFTER + SAY_AGAIN, [], 0, {1: 5}).say
    assert not waiting.look(10**6, [], 0, {1: 5}).nobody


def test_nobody_within_wait() -> None:
    waiting = Waiting("a", wait=10)
    waiting.look(0, [], 0, {1: 1})
    assert not waiting.look(9.9, [], 0, {1: 1}).nobody
    assert waiting.look(10, [], 0, {1: 1}).nobody


def test_a_worker_that_comes_ends_the_wait() -> None:
    waiting = Waiting("a", wait=10)
    waiting.look(0, [], 0, {1: 1})
    assert waiting.look(9, [1], 0, {1: 1}) == QUIET
    assert not waiting.look(12, [], 0, {1: 1}).nobody  # it left: the time begins anew
    assert waiting.look(22, [], 0, {1: 1}).nobody


def test_too_wide_is_said_with_the_widths_and_rejected_when_nothing_else_is_left() -> None:
    waiting = Waiting("a", wait=None)
    said = waiting.look(0, [2, 4], 3, {1: 7, 8: 2})
    assert "2 tasks of 8 cores" in said.say
    assert "widest has 4" in said.say
    assert not waiting.look(100, [2, 4], 1, {8: 2}).reject  # something runs
    waiting.look(200, [2, 4], 0, {8: 2})
    assert not waiting.look(200 + REJECT_AFTER - 1, [2, 4], 0, {8: 2}).reject
    verdict = waiting.look(200 + REJECT_AFTER, [2, 4], 0, {8: 2})
    assert verdict.reject == (8,)
    assert "4" in verdict.reason


def test_a_wider_worker_in_time_saves_them() -> None:
    waiting = Waiting("a", wait=5)
    waiting.look(0, [1], 0, {2: 1})
    assert waiting.look(4, [1, 2], 0, {2: 1}) == QUIET
    waiting.look(5, [1], 0, {2: 1})
    assert not waiting.look(9, [1], 0, {2: 1}).reject
    assert waiting.look(10, [1], 0, {2: 1}).reject == (2,)


def test_known_widths_reject_at_once() -> None:
    waiting = Waiting("a", wait=None, widest=2)
    assert waiting.look(0, [], 0, {1: 1, 3: 1, 4: 1}).reject == (3, 4)
    assert waiting.look(0, [], 0, {1: 1}) == QUIET  # their workers are about to come
