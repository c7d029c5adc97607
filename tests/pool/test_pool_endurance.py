"""Many tasks, many cores, and a system that refuses more: nothing grows, and nothing storms."""

from __future__ import annotations

import os
import random
import resource
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

import psutil
import pytest
from driving import Driver, item, value

from executor.descriptors import raise_descriptor_limit
from executor.errors import NoProcess

Start = Callable[..., Driver]

MB = 10**6


def held(driver: Driver) -> dict[str, tuple[int, int]]:
    """Descriptors and bytes that worker, guardian and children hold."""
    (guardian,) = psutil.Process().children()
    family = [psutil.Process(), guardian, *guardian.children()]
    return {
        str(process.pid): (process.num_fds(), process.memory_info().rss)
        for process in family
        if process.status() != psutil.STATUS_ZOMBIE
    }


def test_a_hundred_thousand_calls_leave_nothing_behind(start: Start) -> None:
    driver = start(2)
    calls = [item(0, "calls.pid"), item(0, "operator.add", "a" * 50, "b"), item(0, "print", "text")]
    place = 0

    def run(rounds: int) -> None:
        nonlocal place
        for _ in range(rounds):
            items = []
            for _ in range(1000):
                call = calls[place % 3]
                items.append(type(call)(place, 1, 1, None, None, call.call))
                place += 1
            driver.run(*items)
            driver.finished.clear()

    run(20)
    before = held(driver)
    run(100)
    after = held(driver)
    assert before.keys() == after.keys(), "the same processes all the time"
    for pid, (descriptors, memory) in after.items():
        assert descriptors == before[pid][0]
        assert memory - before[pid][1] < 16 * MB


def test_a_thousand_deaths_leave_nothing_behind(start: Start) -> None:
    driver = start(2)
    places = iter(range(10**6))

    def run(count: int) -> None:
        ways = ["_exit", "kill", "exit"]
        for way in ways:
            driver.run(*(item(next(places), "calls.die", way) for _ in range(count // len(ways))))
        driver.finished.clear()

    run(60)
    before = held(driver)[str(os.getpid())]
    run(1000)
    driver.run(item(next(places), "calls.pid"))
    after = held(driver)[str(os.getpid())]
    assert after[0] <= before[0] + 16, "descriptors of at most two children more"
    assert after[1] - before[1] < 16 * MB


def test_128_cores_are_all_used_and_never_more_processes_than_that(start: Start) -> None:
    driver = start(128)
    chance = random.Random(3)
    driver.add(*(item(i, "calls.touch", f"held{i}") for i in range(128)))
    driver.until(lambda: len(driver.pool.running()) == 128)
    assert len({core for each in driver.pool.running() for core in each.cores}) == 128
    (guardian,) = psutil.Process().children()
    driver.pool.cancel("run")
    most = 0
    while not driver.pool.idle:
        done = len(driver.finished)
        driver.until(lambda done=done: len(driver.finished) > done or driver.pool.idle)  # type: ignore[misc]
        most = max(most, len(guardian.children()))
    assert {each.report.status for each in driver.finished} == {"cancelled"}
    assert most <= 256  # at the worst all the dead are still there, and as many fresh ones
    widths = sorted(chance.choices([1, 2, 4, 64], k=1000))
    reports = driver.run(*(item(1000 + i, "time.sleep", 0, width=w) for i, w in enumerate(widths)))
    assert {report.status for report in reports} == {"ok"}
    driver.until(lambda: len(guardian.children()) <= 128)


@pytest.fixture
def many_descriptors() -> Iterator[None]:
    """Let this process open as many files as it may, as `worker.py` does."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    if before[1] != resource.RLIM_INFINITY and before[1] < 4096:
        pytest.skip("may open too few files")
    raise_descriptor_limit()
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


@pytest.mark.usefixtures("many_descriptors")
def test_more_cores_than_the_guardians_socket_holds_records(start: Start) -> None:
    driver = start(600)
    driver.add(*(item(i, "time.sleep", 600) for i in range(600)))
    driver.until(lambda: len(driver.pool.running()) == 600)
    driver.pool.cancel("run")
    driver.until(lambda: driver.pool.idle)
    assert {each.report.status for each in driver.finished} == {"cancelled"}


@pytest.fixture
def few_descriptors(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int], None]]:
    """Leave this process so many more descriptors, and have no children made before."""
    monkeypatch.setattr("executor.pool.READY_MOST", 0)
    before = resource.getrlimit(resource.RLIMIT_NOFILE)

    def limit(count: int) -> None:
        used = {int(entry.name) for entry in Path("/dev/fd").iterdir()}
        free = (number for number in range(before[0]) if number not in used)
        resource.setrlimit(resource.RLIMIT_NOFILE, (next(islice(free, count, None)), before[1]))

    yield limit
    resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_where_no_more_processes_can_be_made_those_that_are_there_do(
    start: Start, few_descriptors: Callable[[int], None]
) -> None:
    driver = start(8)
    (first,) = driver.run(item(0, "calls.pid"))
    few_descriptors(3)
    reports = driver.run(*(item(i, "time.sleep", 0.01) for i in range(1, 31)), item(31, "calls.pid"))
    assert {report.status for report in reports} == {"ok"}
    assert value(reports[-1]) == value(first)


def test_where_no_process_can_be_made_at_all_it_is_said(
    start: Start, few_descriptors: Callable[[int], None]
) -> None:
    driver = start(2)
    few_descriptors(3)
    with pytest.raises(NoProcess, match=r"refuses another process .*ulimit -n"):
        driver.run(item(0, "calls.pid"))
