"""A task of k cores gets k cores, alone: which, pinned how, with how many threads, and in what order."""

from __future__ import annotations

import os
import random
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest
from driving import Driver, item, value

from executor.messages import Report

ROOT = Path(__file__).parents[2]

Start = Callable[..., Driver]
linux = pytest.mark.skipif(sys.platform != "linux", reason="only Linux can pin")


def overlapping(reports: list[Report]) -> list[tuple[Report, Report]]:
    """Pairs that had a core in common at the same time."""
    pairs = []
    for i, one in enumerate(reports):
        for other in reports[i + 1 :]:
            together = max(one.started, other.started) < min(one.finished, other.finished)
            if together and set(one.cores) & set(other.cores):
                pairs.append((one, other))
    return pairs


def test_tasks_run_at_once_on_cores_of_their_own(start: Start) -> None:
    driver = start(8)
    chance = random.Random(5)
    items = [item(i, "time.sleep", 0.01, width=chance.choice([1, 2, 3, 8])) for i in range(60)]
    reports = driver.run(*items)
    assert all(len(report.cores) == each.width for report, each in zip(reports, items, strict=True))
    assert not overlapping(reports)
    assert len({core for report in reports for core in report.cores}) == 8


def test_narrow_tasks_do_run_at_once(start: Start) -> None:
    driver = start(3)
    driver.add(*(item(i, "calls.wait_for", "go") for i in range(3)))
    driver.until(lambda: len(driver.pool.running()) == 3)
    assert sorted(core for each in driver.pool.running() for core in each.cores) == [0, 1, 2]
    Path("go").touch()
    driver.until(lambda: len(driver.finished) == 3)


@linux
def test_every_thread_is_pinned_and_the_blas_has_as_many_threads(start: Start) -> None:
    driver = start(pinned=2)
    # One process, its BLAS soon loaded, gets one width after the other: threads that were made earlier move.
    for place, width in enumerate([2, 1, 2, 1]):
        (report,) = driver.run(item(place, "calls.thread_masks", width=width))
        masks = value(report)
        assert len(masks) > 1, "the BLAS made a thread of its own"
        assert all(mask == sorted(report.cores) for mask in masks)


@linux
def test_a_warm_child_changes_its_threads_with_its_width(start: Start) -> None:
    driver = start(pinned=2)
    pids = []
    for place, width in enumerate([1, 2, 1]):
        (report,) = driver.run(item(place, "calls.thread_counts", width=width))
        found = value(report)
        assert found["variables"] == [str(width)] * 4
        assert found["pools"]
        assert set(found["pools"]) == {width}
        pids.append(found["pid"])
    assert len(set(pids)) == 1


def test_where_threads_are_made_for_good_another_width_gets_another_process(start: Start) -> None:
    Path("numexpr.py").write_text("import os\nnthreads = int(os.environ['NUMEXPR_NUM_THREADS'])\n")
    driver = start(2)
    seen = []
    for place, width in enumerate([1, 1, 2, 2, 1]):
        (report,) = driver.run(item(place, "calls.fixed_threads", width=width))
        seen.append(value(report))
        driver.until(lambda: driver.pool.idle)  # or it has reported, and is still about to be free
    assert [threads for threads, _ in seen] == [1, 1, 2, 2, 1]
    pids = [pid for _, pid in seen]
    assert pids[0] == pids[1] != pids[2] == pids[3] != pids[4]
    assert len(driver.finished) == 5


def test_the_number_of_threads_is_known_when_a_users_module_is_loaded(start: Start) -> None:
    driver = start(3)
    (report,) = driver.run(item(0, "calls.threads_when_imported", width=3))
    assert value(report) == "3"


@linux
def test_a_task_that_moves_to_other_cores_moves_itself_alone(start: Start) -> None:
    driver = start(pinned=1)
    _, after = driver.run(item(0, "calls.unpin"), item(1, "calls.affinity"))
    assert value(after) == list(after.cores)


def plain_rates(threads: int, *cores: int) -> float:
    """What plain interpreters reach at once, one pinned to each core (none: one, anywhere), in GFLOP/s."""
    code = (
        "import os, sys; cores = [int(text) for text in sys.argv[1:]];"
        " cores and os.sched_setaffinity(0, cores);"
        " import example_compute; print(example_compute.compute_flops(8, 1024))"
    )
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": str(threads), "PYTHONPATH": str(ROOT)}
    commands = [[sys.executable, "-c", code, str(core)] for core in cores] or [[sys.executable, "-c", code]]
    running = [subprocess.Popen(each, env=environment, stdout=subprocess.PIPE) for each in commands]
    return sum(float(each.communicate(timeout=60)[0]) for each in running)


def others_time() -> float:
    """Seconds of processor time that went to others than this process and its descendants so far."""
    every = psutil.cpu_times()
    us = psutil.Process()
    ours = [sum(each.cpu_times()[:4]) for each in (us, *us.children(recursive=True))]
    return float(every.user + every.nice + every.system + getattr(every, "steal", 0.0) - sum(ours))


def reaches(gain: float, measure: Callable[[], float], possible: Callable[[], float]) -> None:
    """Measure a gain until it is as large as that.

    What a second core brings is only to be seen where others leave the machine alone, and a plain
    interpreter gains by it, too: elsewhere the test is skipped.
    """
    seen = []
    for _ in range(5):
        began, before = time.monotonic(), others_time()
        found = measure(), possible()
        share = (others_time() - before) / (time.monotonic() - began) / (os.cpu_count() or 1)
        if found[0] > gain:
            return
        seen.append((*found, share))
    telling = [each for each in seen if each[1] > gain and each[2] < 0.1]
    if len(telling) < 2:
        pytest.skip(f"others keep this machine busy; gains here, in plain Python, and their share: {seen}")
    pytest.fail(f"gains here and in plain Python, and others' share of the machine: {telling}")


@linux
def test_two_cores_multiply_faster_than_one(start: Start) -> None:
    driver = start(pinned=2)
    places = iter(range(100))

    def rate(width: int) -> float:
        (report,) = driver.run(item(next(places), "example_compute.compute_flops", 8, 1024, width=width))
        return float(value(report))

    reaches(1.25, lambda: rate(2) / rate(1), lambda: plain_rates(2) / plain_rates(1))


@linux
def test_two_on_a_core_each_do_not_disturb_one_another(start: Start) -> None:
    driver = start(pinned=2)
    driver.run(*(item(i, "example_compute.compute_flops", 1, 64) for i in range(2)))  # NumPy is loaded
    places = iter(range(2, 100))

    def rates(count: int) -> float:
        calls = [item(next(places), "example_compute.compute_flops", 8, 1024) for _ in range(count)]
        reports = driver.run(*calls)
        assert len({core for each in reports for core in each.cores}) == count
        return float(sum(value(each) for each in reports))

    one, other = driver.cores.ids
    reaches(1.6, lambda: rates(2) / rates(1), lambda: plain_rates(1, one, other) / plain_rates(1, one))


def test_more_cores_than_there_are_run_unpinned(start: Start) -> None:
    driver = start(64)
    (report,) = driver.run(item(0, "calls.affinity", width=64))
    assert report.cores == tuple(range(64))
    assert value(report)


def test_the_next_in_order_waits_until_its_cores_are_free(start: Start) -> None:
    driver = start(2)
    reports = driver.run(
        item(0, "time.sleep", 0.1), item(1, "time.sleep", 0.0, width=2), item(2, "time.sleep", 0.0)
    )
    assert reports[0].finished <= reports[1].started <= reports[2].started


@pytest.mark.parametrize("seed", range(3))
def test_no_wider_task_starts_while_a_narrower_one_is_unstarted(start: Start, seed: int) -> None:
    driver = start(4)
    chance = random.Random(seed)
    widths = sorted(chance.choices([1, 2, 4], k=150))
    items = [
        item(i, "time.sleep", chance.choice([0, 0, 0, 0.001, 0.03]), width=w) for i, w in enumerate(widths)
    ]
    driver.run(*items[:20])  # batches form when durations are known
    reports = driver.run(*items[20:])
    by_start = sorted(reports, key=lambda report: report.started)
    assert [len(report.cores) for report in by_start] == sorted(widths[20:])
    assert not overlapping(reports)


def test_calls_behind_a_long_one_move_to_free_cores(start: Start) -> None:
    driver = start(2)
    driver.run(*(item(i, "calls.pid") for i in range(500)))  # known to be tiny: they come in batches
    driver.add(
        *(
            item(i, "calls.wait_for" if i == 520 else "calls.pid", *["go"] * (i == 520))
            for i in range(500, 1000)
        )
    )
    driver.until(lambda: len(driver.finished) == 999)
    assert [each.place for each in driver.pool.running()] == [520]
    Path("go").touch()
    driver.until(lambda: len(driver.finished) == 1000)


def test_a_call_in_a_child_moves_to_a_core_that_is_free_at_once(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not only when the one before it turns out to be slow."""
    monkeypatch.setattr("executor.batching.SLOW_SECONDS", 600.0)
    driver = start(2)
    driver.run(*(item(i, "time.sleep", 0.005) for i in range(20)))  # known: the next one waits in the child
    driver.add(item(20, "calls.wait_for", "go"), *(item(i, "time.sleep", 0.005) for i in range(21, 30)))
    driver.until(lambda: len(driver.finished) == 29)
    assert [each.place for each in driver.pool.running()] == [20]
    Path("go").touch()
    driver.until(lambda: len(driver.finished) == 30)


def test_one_wake_up_serves_many_calls(start: Start) -> None:
    driver = start(2)
    driver.run(*(item(i, "calls.pid") for i in range(1000)))
    driver.finished.clear()
    driver.add(*(item(i, "calls.pid") for i in range(1000, 6000)))
    wake_ups = 0
    while len(driver.finished) < 5000:
        done = len(driver.finished)
        driver.until(lambda done=done: len(driver.finished) > done)  # type: ignore[misc]
        wake_ups += 1
    assert wake_ups < 500


def test_without_backfill_a_wide_task_is_not_overtaken(start: Start) -> None:
    driver = start(2)
    driver.add(item(0, "calls.wait_for", "go"), item(1, "calls.pid", width=2), item(2, "calls.pid"))
    driver.until(lambda: bool(driver.pool.running()))
    for _ in range(20):
        driver.step()
    assert not driver.finished
    Path("go").touch()
    driver.until(lambda: len(driver.finished) == 3)
    assert [each.report.place for each in driver.finished] == [0, 1, 2]


def test_backfill_lets_narrow_tasks_start_before_a_wide_one(start: Start) -> None:
    driver = start(2, backfill=True)
    driver.add(item(0, "calls.wait_for", "go"), item(1, "calls.pid", width=2))
    driver.add(*(item(i, "calls.pid") for i in range(2, 7)))
    driver.until(lambda: len(driver.finished) == 5)
    assert {each.report.place for each in driver.finished} == {2, 3, 4, 5, 6}
    Path("go").touch()
    driver.until(lambda: len(driver.finished) == 7)


def test_backfill_does_not_put_a_wide_task_off_for_ever(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("executor.starting.PUT_OFF_SECONDS", 0.2)
    driver = start(2, backfill=True)
    driver.add(item(0, "calls.wait_for", "0"), item(1, "calls.pid", width=2))
    driver.add(*(item(place, "calls.wait_for", str(place)) for place in range(2, 1000)))
    driver.until(lambda: len(driver.pool.running()) == 2)  # to start the processes may take long
    # They end by turns, so that one of the cores is busy all the time, until both are kept for the wide one.
    while not any(each.report.place == 1 for each in driver.finished):
        alone_until = time.monotonic() + 0.3
        driver.until(lambda: len(driver.pool.running()) > (time.monotonic() < alone_until))  # noqa: B023
        oldest = min(driver.pool.running(), key=lambda each: each.since).place
        Path(str(oldest)).touch()
        driver.until(lambda: oldest not in {each.place for each in driver.pool.running()})  # noqa: B023
    assert {each.report.place for each in driver.finished} >= {0, 1, 2}
    assert len(driver.finished) < 500, "it was put off to the very end"
