"""Memory that is bounded, and what becomes of a call when there is too little of it."""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path

import pytest
from driving import Driver, item, value

from executor.cgroup import kills

Start = Callable[..., Driver]
Gone = Callable[[int], bool]

MB = 10**6


def test_memory_beyond_the_limit_kills(start: Start) -> None:
    driver = start(1)
    (report,) = driver.run(item(0, "calls.grow", 200 * MB, memory=100 * MB))
    assert report.status == "crashed"
    assert report.error is not None
    assert report.error[0] == "MemoryLimit"
    said = re.fullmatch(r"killed because it held (\d+) MB; its limit is 100 MB", report.error[1])
    assert said
    assert 100 <= int(said[1]) < 500  # it is copied once


def test_what_grows_is_not_given_the_grace(start: Start) -> None:
    driver = start(1, grace=600.0)
    (report,) = driver.run(item(0, "calls.grow_undeterred", 200 * MB, memory=100 * MB))
    assert report.error is not None
    assert report.error[0] == "MemoryLimit"


def test_memory_of_descendants_counts(start: Start) -> None:
    driver = start(1)
    (report,) = driver.run(item(0, "calls.grow_elsewhere", 200 * MB, memory=100 * MB))
    assert report.error is not None
    assert report.error[0] == "MemoryLimit"


def test_memory_within_the_limit_is_none_of_our_business(start: Start) -> None:
    driver = start(1)
    (report,) = driver.run(item(0, "time.sleep", 0.5, memory=500 * MB))
    assert report.status == "ok"


def test_a_child_that_leaks_is_replaced(start: Start) -> None:
    driver = start(1)
    pids = [value(driver.run(item(i, "calls.leak", 300 * MB))[0]) for i in range(6)]
    assert 1 < len(set(pids)) < 6


def test_a_child_that_leaks_is_replaced_though_it_always_has_more_to_run(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("executor.batching.SLOW_SECONDS", 600.0)  # what waits behind one is left where it is
    driver = start(1, linger=0.0)
    driver.run(*(item(i, "calls.pid") for i in range(300)))  # from here on calls come in batches
    reports = driver.run(*(item(i, "calls.leak", 400 * MB) for i in range(300, 306)))
    assert len({value(report) for report in reports}) > 1


def test_memory_of_a_daemon_counts(start: Start) -> None:
    driver = start(1)
    (report,) = driver.run(item(0, "calls.grow_in_a_daemon", 200 * MB, memory=100 * MB))
    assert report.error is not None
    assert report.error[0] == "MemoryLimit"


def test_what_copies_of_a_process_share_counts_once(start: Start) -> None:
    driver = start(1)
    within, beyond = driver.run(
        item(0, "calls.share", 150 * MB, 3, 1.5, memory=400 * MB),
        item(1, "calls.share", 150 * MB, 3, 600, memory=120 * MB),
    )
    assert value(within) == 150 * MB
    assert beyond.error is not None
    assert beyond.error[0] == "MemoryLimit"


def test_who_is_within_the_limit_is_not_charged_for_its_predecessors(start: Start) -> None:
    driver = start(1)
    driver.run(*(item(i, "calls.pid") for i in range(300)))  # known to be tiny: they come in batches
    leaks, *rest = driver.run(
        item(300, "calls.leak", 200 * MB), *(item(i, "calls.pid", memory=150 * MB) for i in range(301, 320))
    )
    assert value(leaks) not in {value(report) for report in rest}
    slow = driver.run(item(320, "calls.leak", 200 * MB), item(321, "time.sleep", 1.0, memory=150 * MB))
    assert [report.status for report in slow] == ["ok", "ok"]


def test_a_call_that_died_for_its_memory_is_charged_alone(start: Start) -> None:
    driver = start(1)
    driver.run(*(item(i, "calls.pid") for i in range(300)))
    reports = driver.run(
        *(
            item(i, "calls.grow" if i == 310 else "calls.pid", *[200 * MB] * (i == 310), memory=100 * MB)
            for i in range(300, 330)
        )
    )
    assert [report.place for report in reports if report.status != "ok"] == [310]
    assert {report.attempt for report in reports} == {1}


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        ("oom_kill 3\n", "oom_kill 3\n", False),
        ("nr_free_pages 1\noom_kill 3\n", "nr_free_pages 1\noom_kill 4\n", True),
        ("nr_free_pages 1\n", "nr_free_pages 1\n", True),  # an old kernel: nobody knows
        (None, None, True),  # a system without
    ],
)
def test_memory_is_blamed_when_the_kernel_killed_or_nobody_can_tell(
    start: Start, monkeypatch: pytest.MonkeyPatch, before: str | None, after: str | None, said: bool
) -> None:
    counter = Path.cwd() / "proc/vmstat"
    counter.parent.mkdir()
    monkeypatch.setattr("executor.memory.kills", lambda: kills(Path.cwd(), ""))
    if before is not None:
        counter.write_text(before)
    driver = start(1)
    driver.add(item(0, "calls.touch", "pid"))
    driver.until(Path("pid").exists)
    if after is not None:
        counter.write_text(after)
    os.kill(int(Path("pid").read_text()), 9)
    driver.until(lambda: bool(driver.finished))
    error = driver.finished[0].report.error
    assert error is not None
    assert "signal 9 (SIGKILL)" in error[1]
    assert ("probably out of memory" in error[1]) == said


def test_the_kernel_would_rather_kill_a_task_than_its_worker(start: Start) -> None:
    ours = Path("/proc/self/oom_score_adj")
    if not ours.exists():  # macOS has nothing of the kind
        return
    before = int(ours.read_text())
    driver = start(1)
    (report,) = driver.run(item(0, "calls.oom_score"))
    assert value(report) >= 500
    assert int(ours.read_text()) == before
