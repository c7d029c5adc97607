"""A task of k cores gets k cores, alone: which, pinned how, with how many threads, and in what order."""

from __future__ import annotations

import os
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

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


def test_the_number_of_threads_is_known_when_a_users_module_is_loaded(start: Start) -> None:
    driver = start(3)
    (report,) = driver.run(item(0, "calls.threads_when_imported", width=3))
    assert value(report) == "3"


@linux
def test_a_task_that_moves_to_other_cores_moves_itself_alone(start: Start) -> None:
    driver = start(pinned=1)
    _, after = driver.run(item(0, "calls.unpin"), item(1, "calls.affinity"))
    assert value(after) == list(after.cores)


def plain_rate(threads: int) -> float:
    """What the same multiplication reaches in a plain interpreter, in GFLOP/s."""
    code = "import example_compute; print(example_compute.compute_flops(4, 1024))"
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": str(threads), "PYTHONPATH": str(ROOT)}
    return float(subprocess.check_output([sys.executable, "-c", code], env=environment, timeout=60))


@linux
def test_two_cores_multiply_faster_than_one(start: Start) -> None:
    driver = start(pinned=2)
    seen = []
    for attempt in range(5):
        (one,) = driver.run(item(2 * attempt, "example_compute.compute_flops", 4, 1024))
        (two,) = driver.run(item(2 * attempt + 1, "example_compute.compute_flops", 4, 1024, width=2))
        gain = value(two) / value(one)
        if gain > 1.25:
            return
        # A machine that is busy with others may give no gain to anybody.
        seen.append((gain, plain_rate(2) / plain_rate(1)))
    assert any(gain > 0.8 * possible for gain, possible in seen), f"gains here and in plain Python: {seen}"


def pair_of_plain(cores: tuple[int, ...]) -> float:
    """What two plain interpreters reach at once, one on each core, as a multiple of one alone."""
    code = (
        "import os, sys; os.sched_setaffinity(0, [int(sys.argv[1])]); import example_compute;"
        " print(example_compute.compute_flops(8, 1024))"
    )
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}

    def rates(*where: int) -> float:
        commands = [[sys.executable, "-c", code, str(core)] for core in where]
        running = [subprocess.Popen(each, env=environment, stdout=subprocess.PIPE) for each in commands]
        return sum(float(each.communicate(timeout=60)[0]) for each in running)

    return rates(*cores) / rates(cores[0])


@linux
def test_two_on_a_core_each_do_not_disturb_one_another(start: Start) -> None:
    driver = start(pinned=2)
    driver.run(*(item(i, "example_compute.compute_flops", 1, 64) for i in range(2)))  # NumPy is loaded
    seen = []
    for attempt in range(1, 6):
        calls = [item(3 * attempt + i, "example_compute.compute_flops", 8, 1024) for i in range(3)]
        (alone,) = driver.run(calls[0])
        pair = driver.run(*calls[1:])
        assert {core for each in pair for core in each.cores} == set(driver.cores.ids)
        gain = sum(value(each) for each in pair) / value(alone)
        if gain > 1.6:
            return
        # A machine that is busy with others may give no gain to anybody.
        seen.append((gain, pair_of_plain(driver.cores.ids)))
    assert any(gain > 0.8 * possible for gain, possible in seen), f"gains here and in plain Python: {seen}"


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


def test_without_backfill_a_wide_task_is_not_overtaken(start: Start) -> None:
    driver = start(2)
    driver.add(item(0, "calls.wait_for", "go"), item(1, "calls.pid", width=2), item(2, "calls.pid"))
    driver.until(lambda: bool(driver.pool.running()))
    for _ in range(20):
        driver.pool.step()
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
    monkeypatch.setattr("executor.pool.PUT_OFF_SECONDS", 0.2)
    driver = start(2, backfill=True)
    # Narrow ones that would keep one of the cores busy for much longer than that.
    driver.add(item(0, "time.sleep", 0.1), item(1, "calls.pid", width=2))
    driver.add(*(item(i, "time.sleep", 0.1) for i in range(2, 40)))
    driver.until(lambda: len(driver.finished) == 40)
    order = [each.report.place for each in sorted(driver.finished, key=lambda f: f.report.started)]
    assert 1 < order.index(1) < 20
