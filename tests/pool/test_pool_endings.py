"""Timeouts that kill, deaths that are told, and neighbours that do not notice."""

from __future__ import annotations

import errno
import os
import re
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from driving import LIMIT, Driver, item, value

from executor.errors import NoProcess
from executor.line import Entry
from executor.process import Child

Start = Callable[..., Driver]
Gone = Callable[[int], bool]


def test_a_timeout_kills_and_frees_the_cores(start: Start) -> None:
    driver = start(1)
    late, after = driver.run(item(0, "time.sleep", 600, timeout=0.3), item(1, "calls.pid"))
    assert late.status == "timeout"
    assert late.error is not None
    had = re.fullmatch(r"killed after ([0-9.]+) s; its timeout is 0\.3 s", late.error[1])
    assert had
    assert float(had[1]) >= 0.3
    assert 0.3 <= late.finished - late.started < 30
    assert value(after)
    assert after.cores == late.cores


def test_a_timeout_is_kept_however_seldom_calls_are_looked_at(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("executor.pool._WATCH_SECONDS", 3600.0)
    monkeypatch.setattr("executor.pool._WATCH_LEAST", 3600.0)
    driver = start()
    driver.run(item(0, "calls.pid"))  # a child is there, and begins at once
    (late,) = driver.run(item(1, "time.sleep", 600, timeout=1.0))
    assert late.status == "timeout"


def test_a_timeout_kills_c_code_that_never_returns(start: Start, gone: Gone) -> None:
    driver = start(1)
    (late,) = driver.run(item(0, "calls.hold_the_gil", "held", timeout=2.0))
    assert late.status == "timeout"
    assert gone(int(Path("held").read_text()))


def test_a_timeout_kills_what_has_left_its_process_group(start: Start) -> None:
    driver = start(1)
    late, after = driver.run(item(0, "calls.leave_its_group", timeout=0.3), item(1, "calls.pid"))
    assert late.status == "timeout"
    assert value(after)


def test_processes_stand_ready_for_the_first_calls(start: Start) -> None:
    driver = start(3)
    (guardian,) = psutil.Process().children()
    driver.until(lambda: len(guardian.children()) == 3)
    ready = {child.pid for child in guardian.children()}
    used = driver.run(*(item(place, "calls.nap", 0.05) for place in range(3)))
    assert {value(report) for report in used} <= ready


def test_a_fresh_child_stands_ready_after_a_kill(start: Start) -> None:
    driver = start(1)
    driver.run(item(0, "time.sleep", 600, timeout=0.2))
    (guardian,) = psutil.Process().children()
    driver.until(lambda: len(guardian.children()) == 1)


def test_each_call_of_a_batch_has_its_own_time(start: Start) -> None:
    driver = start(1)
    driver.run(*(item(i, "calls.pid") for i in range(300)))
    reports = driver.run(
        *(item(i, "time.sleep", 600 if i == 350 else 0, timeout=0.5) for i in range(300, 400))
    )
    assert [r.place for r in reports if r.status == "timeout"] == [350]
    assert sum(r.status == "ok" for r in reports) == 99


def test_a_timeout_that_makes_a_call_raise_is_one(start: Start) -> None:
    driver = start(1, grace=30.0)
    (late,) = driver.run(item(0, "calls.raise_on_sigterm", "a", timeout=1.0))
    assert late.status == "timeout"
    assert late.error is not None
    assert late.error[0] == "Timeout"
    assert late.error[1].endswith("its timeout is 1 s")


def test_an_exception_may_say_what_is_no_text(start: Start) -> None:
    driver = start(1)
    (failed,) = driver.run(item(0, "calls.fail", "half a pair: \udcff"))
    assert failed.status == "error"
    assert failed.error is not None
    assert failed.error[:2] == ("ValueError", "half a pair: \\udcff")
    assert "half a pair" in failed.error[2]


@pytest.mark.parametrize(
    ("how", "words"),
    [
        ("abort", "signal 6 (SIGABRT)"),
        ("segfault", "signal 11 (SIGSEGV)"),
        ("exit", "exited with code 3"),
        ("_exit", "exited with code 4"),
        ("kill", "signal 9 (SIGKILL)"),
    ],
)
def test_a_death_is_that_tasks_alone_and_told_in_words(start: Start, how: str, words: str) -> None:
    driver = start(1)
    before = {value(report) for report in driver.run(*(item(i, "calls.pid") for i in range(300)))}
    calls = [item(i, "calls.die" if i == 350 else "calls.pid", *[how] * (i == 350)) for i in range(300, 400)]
    reports = driver.run(*calls)
    dead = [report for report in reports if report.status != "ok"]
    assert [(report.place, report.status) for report in dead] == [(350, "crashed")]
    assert dead[0].error is not None
    assert words in dead[0].error[1]
    # Those behind it run in another process, once each; those before it did not run again.
    assert len(driver.finished) == 400
    assert {value(report) for report in reports[:50]} == before
    assert not before & {value(report) for report in reports[51:]}


def test_who_begins_while_its_predecessor_is_to_be_killed_is_not_disturbed(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The call that is too late returns at the last moment, between the decision and the signal."""
    driver = start(1)
    driver.run(*(item(i, "calls.pid") for i in range(300)))
    take_back = Child.take_back

    def late(child: Child) -> list[Entry]:
        current = child.current()
        if current is not None and current[0].item.place == 300:
            Path("go").touch()
            deadline = time.monotonic() + LIMIT
            while not Path("mark").exists():
                assert time.monotonic() < deadline
        return take_back(child)

    driver.add(
        item(300, "calls.wait_for", "go", timeout=0.3), item(301, "calls.nap_undisturbed", "mark", 0.5)
    )
    monkeypatch.setattr("executor.batching.SLOW_SECONDS", 600.0)  # what waits behind it is left where it is
    monkeypatch.setattr(Child, "take_back", late)
    driver.until(lambda: len(driver.finished) == 302)
    first, second = (each.report for each in driver.finished[300:])
    assert (first.place, first.status) == (300, "ok")
    assert (second.place, second.status, second.attempt) == (301, "ok", 1)


def test_cancelling_kills_what_runs_and_drops_what_has_not_begun(start: Start) -> None:
    driver = start(2)
    driver.add(
        item(0, "calls.touch", "a"), item(1, "calls.touch", "b"), item(2, "calls.pid"), item(3, "calls.pid")
    )
    driver.add(item(0, "calls.pid"), run="another")
    driver.until(lambda: Path("a").exists() and Path("b").exists())
    began = time.monotonic()
    assert driver.pool.cancel("run") == [2, 3]
    driver.until(lambda: len(driver.finished) == 3)
    statuses = {(each.run, each.report.place): each.report.status for each in driver.finished}
    assert statuses == {("run", 0): "cancelled", ("run", 1): "cancelled", ("another", 0): "ok"}
    assert time.monotonic() - began < 30


def test_a_killed_guardian_is_replaced(start: Start) -> None:
    driver = start(1)
    driver.add(item(0, "calls.touch", "a"), item(1, "calls.pid"))
    driver.until(lambda: Path("a").exists())
    (guardian,) = psutil.Process().children()
    guardian.kill()
    driver.until(lambda: len(driver.finished) == 2)
    assert [each.report.status for each in driver.finished] == ["crashed", "ok"]


@pytest.mark.parametrize("heard", [True, False])
def test_a_killed_guardian_for_which_there_can_be_no_other_just_now(
    start: Start, gone: Gone, monkeypatch: pytest.MonkeyPatch, heard: bool
) -> None:
    """What ran is told, and another is made when it is needed. It is heard, or a new child asks for one."""
    monkeypatch.setattr("executor.pool.READY_MOST", 1)
    monkeypatch.setattr("executor.children._REFUSED_SECONDS", 0.0)

    def refuse() -> None:
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN))

    driver = start(2)
    driver.add(item(0, "calls.touch", "a"))
    driver.until(Path("a").exists)
    (guardian,) = psutil.Process().children()
    with monkeypatch.context() as patched:
        patched.setattr("executor.guardian.spawn", refuse)
        guardian.kill()
        deadline = time.monotonic() + LIMIT
        while not gone(guardian.pid):
            assert time.monotonic() < deadline
        if not heard:
            driver.add(item(1, "calls.pid"))
            assert driver.pool.step([]) == []
            assert driver.pool.recall("run") == [1]
        driver.until(lambda: driver.pool.idle)
        assert [each.report.status for each in driver.finished] == ["crashed"]
        driver.add(item(2, "calls.pid"))
        with pytest.raises(NoProcess):
            driver.step()
    driver.until(lambda: driver.pool.idle)
    assert [each.report.status for each in driver.finished] == ["crashed", "ok"]


def test_a_new_run_gets_new_processes(start: Start) -> None:
    driver = start(1)
    (first,) = driver.run(item(0, "calls.pid"))
    (again,) = driver.run(item(1, "calls.pid"))
    driver.pool.finish("run")
    (second,) = driver.run(item(0, "calls.pid"))
    assert value(first) == value(again) != value(second)


def test_no_two_processes_have_the_same_random_state(start: Start) -> None:
    driver = start(2)
    driver.add(item(0, "calls.draw"), run="one")
    driver.add(item(0, "calls.draw"), run="two")
    driver.until(lambda: len(driver.finished) == 2)
    one, two = (value(each.report) for each in driver.finished)
    assert not set(one) & set(two)


def test_two_runs_at_once_share_no_process(start: Start) -> None:
    driver = start(2)
    for place in range(0, 40, 2):
        driver.add(item(place, "calls.pid"), item(place + 1, "calls.pid"), run="one")
        driver.add(item(place, "calls.pid"), item(place + 1, "calls.pid"), run="two")
    driver.until(lambda: len(driver.finished) == 80)
    pids = {
        run: {value(each.report) for each in driver.finished if each.run == run} for run in ("one", "two")
    }
    assert not pids["one"] & pids["two"]


@pytest.mark.parametrize(
    "result", [None, True, 2**64 - 1, 2**64, -(2**63) - 1, 0.5, "word", "half \udc80", [1, (2,)]]
)
def test_a_value_comes_back_as_it_was(start: Start, result: object) -> None:
    (report,) = start(1).run(item(0, "copy.copy", result))
    came = value(report)
    assert (type(came), came) == (type(result), result)


def test_an_error_of_halves_of_characters_is_told(start: Start) -> None:
    (report,) = start(1).run(item(0, "calls.fail", "half \udc80"))
    assert report.error is not None
    assert report.error[:2] == ("ValueError", "half \\udc80")
