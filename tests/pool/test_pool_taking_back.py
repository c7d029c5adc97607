"""What is given to the pool can be taken back until it begins, and nothing runs twice or not at all."""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np
import psutil
import pytest
from driving import Driver, item, value

from executor import codec
from executor.board import Board
from executor.messages import Item

Start = Callable[..., Driver]
Gone = Callable[[int], bool]


def warm(driver: Driver, count: int = 300) -> None:
    """Let the pool find calls to be tiny: from then on they come in batches."""
    driver.run(*(item(place, "calls.pid") for place in range(count)))


def test_what_has_not_begun_goes_back_the_last_first(start: Start) -> None:
    driver = start(1)
    warm(driver)
    driver.add(item(300, "calls.wait_for", "go"), *(item(place, "calls.pid") for place in range(301, 400)))
    driver.until(lambda: bool(driver.pool.running()))
    assert driver.pool.recall("run", 3) == [399, 398, 397]
    assert driver.pool.recall("another") == []
    assert sorted(driver.pool.recall("run")) == list(range(301, 397))
    assert driver.pool.holding() == {"run": {300: 1}}
    assert not driver.pool.idle
    Path("go").touch()
    driver.until(lambda: driver.pool.idle)
    assert [each.report.place for each in driver.finished[300:]] == [300]


@pytest.mark.parametrize("seed", range(3))
def test_whatever_is_taken_back_meanwhile_each_call_runs_once_or_goes_back(start: Start, seed: int) -> None:
    driver = start(3)
    chance = random.Random(seed)
    warm(driver)
    seconds = [0, 0, 0, 0, 0.0002, 0.002, 0.03]
    places = list(range(300, 1500))
    driver.add(*(item(place, "time.sleep", chance.choice(seconds)) for place in places))
    back: list[int] = []
    while not driver.pool.idle:
        if chance.random() < 0.5:
            taken = driver.pool.recall("run", chance.choice([1, 5, 50, None]))
            again = chance.sample(taken, len(taken) // 2 if chance.random() < 0.9 else len(taken))
            back += [place for place in taken if place not in again]
            driver.add(*(item(place, "time.sleep", chance.choice(seconds)) for place in sorted(again)))
        done = len(driver.finished)
        driver.until(lambda done=done: len(driver.finished) > done or driver.pool.idle)  # type: ignore[misc]
    ran = [each.report.place for each in driver.finished[300:]]
    assert sorted(ran + back) == places
    assert all(each.report.status == "ok" for each in driver.finished)


def test_a_repeated_attempt_stands_where_it_stood(start: Start) -> None:
    driver = start(1)
    driver.add(item(5, "calls.wait_for", "go"), *(item(place, "calls.pid") for place in (6, 8, 9)))
    driver.until(lambda: bool(driver.pool.running()))
    driver.add(item(7, "calls.pid"), item(2, "calls.pid"))
    Path("go").touch()
    driver.until(lambda: driver.pool.idle)
    assert [each.report.place for each in driver.finished] == [5, 2, 6, 7, 8, 9]


def test_a_repeated_attempt_goes_before_what_a_child_has_not_begun(start: Start) -> None:
    driver = start(1)
    warm(driver)
    driver.add(item(301, "calls.wait_for", "go"), *(item(place, "calls.pid") for place in range(302, 400)))
    driver.until(lambda: bool(driver.pool.running()))
    driver.add(item(300, "calls.pid"))
    Path("go").touch()
    driver.until(lambda: driver.pool.idle)
    assert [each.report.place for each in driver.finished[300:]] == [301, 300, *range(302, 400)]


@pytest.mark.parametrize("cancelled", [False, True])
def test_a_call_that_a_child_begins_just_as_the_rest_is_taken_back(
    start: Start, monkeypatch: pytest.MonkeyPatch, cancelled: bool
) -> None:
    """The child has said that it begins, and sees then that it must not: it is given out anew."""
    monkeypatch.setattr("executor.batching.SLOW_SECONDS", 600.0)  # or on a busy machine it is back already
    driver = start(1)
    warm(driver)
    driver.add(item(300, "calls.wait_for", "go"), *(item(place, "calls.pid") for place in range(301, 310)))
    driver.until(lambda: bool(driver.pool.running()))
    begun = Board.begun
    with monkeypatch.context() as patched:
        patched.setattr(Board, "begun", lambda board: begun(board) + 1)
        assert driver.pool.recall("run", 3) == [309, 308, 307]
    if cancelled:
        assert driver.pool.cancel("run", [301]) == []
    Path("go").touch()
    driver.until(lambda: driver.pool.idle)
    statuses = {each.report.place: each.report.status for each in driver.finished[300:]}
    assert sorted(statuses) == list(range(300, 307))
    assert len(driver.finished) == 307
    assert statuses[301] == ("cancelled" if cancelled else "ok")


def test_some_calls_of_a_run_can_be_cancelled(start: Start) -> None:
    driver = start(1)
    warm(driver)
    driver.add(item(300, "calls.touch", "a"), *(item(place, "calls.pid") for place in range(301, 310)))
    driver.until(Path("a").exists)
    assert driver.pool.cancel("run", [302, 305, 9999]) == [302, 305]
    assert driver.pool.running()
    assert driver.pool.cancel("run", [300]) == []
    driver.until(lambda: driver.pool.idle)
    statuses = {each.report.place: each.report.status for each in driver.finished[300:]}
    assert statuses == {300: "cancelled", **dict.fromkeys([301, 303, 304, 306, 307, 308, 309], "ok")}


def test_cancelling_in_the_midst_of_a_batch_keeps_what_is_done(start: Start) -> None:
    driver = start(1)
    warm(driver)
    driver.add(*(item(place, "time.sleep", 0.001) for place in range(300, 700)))
    driver.until(lambda: len(driver.finished) > 310)
    dropped = driver.pool.cancel("run")
    driver.until(lambda: driver.pool.idle)
    reports = [each.report for each in driver.finished[300:]]
    assert sorted([report.place for report in reports] + dropped) == list(range(300, 700))
    assert sum(report.status == "cancelled" for report in reports) <= 1
    assert {report.status for report in reports} <= {"ok", "cancelled"}


def test_a_call_that_has_its_say_on_sigterm_is_still_cancelled(start: Start) -> None:
    driver = start(2, grace=30.0)
    driver.add(item(0, "calls.raise_on_sigterm", "a"), item(1, "calls.end_on_sigterm", "b"))
    driver.until(lambda: Path("a").exists() and Path("b").exists())
    driver.pool.cancel("run")
    driver.until(lambda: driver.pool.idle)
    first, second = sorted((each.report for each in driver.finished), key=lambda report: report.place)
    assert first.status == "cancelled"
    assert first.error is not None
    assert first.error[:2] == ("Cancelled", "killed because its run was cancelled")
    assert "RuntimeError: told to end" in first.error[2]
    assert value(second) == "ended in its own time"


def test_too_wide_a_call_is_refused(start: Start) -> None:
    driver = start(2)
    wide, narrow = driver.run(item(0, "calls.pid", width=3), item(1, "calls.pid"))
    assert wide.status == "rejected"
    assert wide.error is not None
    assert wide.error[1] == "3 cores, but this worker has 2"
    assert value(narrow)


def test_a_regular_expression_that_never_ends_is_timed_out(start: Start) -> None:
    driver = start(1)
    late, after = driver.run(item(0, "re.match", "(a+)+$", "a" * 64 + "b", timeout=0.3), item(1, "calls.pid"))
    assert (late.status, after.status) == ("timeout", "ok")


# ---- deaths between calls


def test_a_child_that_dies_while_it_is_idle_is_nobodys_fault(start: Start, gone: Gone) -> None:
    driver = start(1)
    for place in range(10):
        (report,) = driver.run(item(place, "calls.pid"))
        pid = value(report)
        os.kill(pid, signal.SIGKILL)
        if place % 2:  # the pool knows already, or is about to send it the next call
            driver.until(lambda pid=pid: gone(pid))  # type: ignore[misc]
    assert len(driver.finished) == 10


def large(place: int, function: str, size: int) -> tuple[Item, list[codec.Buffer]]:
    """A call with an array of so many bytes."""
    head, *buffers = codec.encode([function, [np.ones(size // 8)], {}])
    return Item(place, 1, 1, None, None, msgspec.Raw(head), len(buffers)), buffers


def test_a_child_that_dies_while_it_is_sent_a_large_call(start: Start) -> None:
    driver = start(1)
    for round_ in range(10):
        (report,) = driver.run(item(3 * round_, "calls.pid"))
        big, buffers = large(3 * round_ + 1, "numpy.sum", 32 << 20)
        driver.pool.add("run", [big], buffers)
        driver.step()  # some of it is in the socket now
        os.kill(value(report), signal.SIGKILL)
        driver.add(item(3 * round_ + 2, "calls.pid"))
        driver.until(lambda: driver.pool.idle)
    assert len(driver.finished) == 30
    sums = {value(each.report) for each in driver.finished if each.report.place % 3 == 1}
    assert sums == {float(4 << 20)}


def test_large_values_there_and_back(start: Start) -> None:
    driver = start(2)
    for place in range(6):
        big, buffers = large(place, "numpy.negative", 8 << 20)
        driver.pool.add("run", [big, *[item(100 + place, "calls.pid")]], buffers)
    driver.until(lambda: len(driver.finished) == 12)
    for each in driver.finished:
        if each.report.place < 100:
            array = codec.decode([each.report.value, *each.buffers])
            assert array.shape == (1 << 20,)
            assert (array == -1).all()


def test_killing_the_guardian_again_and_again(start: Start) -> None:
    driver = start(2)
    warm(driver)
    for round_ in range(5):
        first = 300 + 100 * round_
        driver.add(*(item(place, "time.sleep", 0.001) for place in range(first, first + 100)))
        driver.until(lambda first=first: len(driver.finished) > first + 10)  # type: ignore[misc]
        (guardian,) = psutil.Process().children()
        guardian.kill()
        driver.until(lambda: driver.pool.idle)
    # Only what ran at that moment is charged: at most one call for each core.
    assert sorted(each.report.place for each in driver.finished) == list(range(800))
    assert sum(each.report.status != "ok" for each in driver.finished) <= 10
    assert {each.report.status for each in driver.finished} <= {"ok", "crashed"}


def test_killing_the_guardian_while_all_is_idle(start: Start) -> None:
    driver = start(2)
    for place in range(5):
        assert value(driver.run(item(place, "calls.pid"))[0])
        (guardian,) = psutil.Process().children()
        guardian.kill()
        guardian.wait(30)


def test_deaths_among_a_thousand_calls_are_each_charged_to_one(start: Start) -> None:
    driver = start(4)
    warm(driver)
    chance = random.Random(9)
    dying = set(chance.sample(range(300, 1300), 25))
    ways = ["abort", "exit", "_exit", "kill", "segfault"]
    reports = driver.run(
        *(
            item(place, "calls.die", chance.choice(ways)) if place in dying else item(place, "calls.pid")
            for place in range(300, 1300)
        )
    )
    assert [report.place for report in reports] == list(range(300, 1300))
    assert {report.place for report in reports if report.status == "crashed"} == dying
    assert {report.status for report in reports} == {"ok", "crashed"}
