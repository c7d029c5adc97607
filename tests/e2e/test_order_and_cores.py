"""In which order tasks start, on which cores they run, and what they see of their surroundings."""

from __future__ import annotations

import random
import sys
from itertools import pairwise
from typing import Any

import pytest
from scripts import Scripts, local, task, wait_until

from executor.cores import granted

CORES = granted().ids
needs_pinning = pytest.mark.skipif(
    len(CORES) < 2 or sys.platform != "linux", reason="needs two cores and a system that can pin"
)


def check_order_and_cores(results: list[dict[str, Any]], cores: int) -> None:
    """By the times recorded: increasing widths, never more than `cores` at once, no core twice at once."""
    results.sort(key=lambda result: (result["started"], result["resources"]))
    widths = [result["resources"] for result in results]
    assert widths == sorted(widths)
    events = [(result["started"], 1, result) for result in results]
    events += [(result["finished"], 0, result) for result in results]  # ends before begins of the same moment
    busy: set[int] = set()
    most = 0
    for _, begins, result in sorted(events, key=lambda event: event[:2]):
        if begins:
            assert len(set(result["cores"])) == result["resources"]
            assert not busy & set(result["cores"])
            busy |= set(result["cores"])
            most = max(most, len(busy))
        else:
            busy -= set(result["cores"])
    assert most == cores


@pytest.mark.parametrize("seconds", [0.02, 0.0])
def test_four_cores_and_tasks_of_one_two_and_four(scripts: Scripts, seconds: float) -> None:
    widths = [1] * 40 + [2] * 20 + [4] * 10
    if not seconds:
        widths *= 20  # so small that they travel and run in batches
    random.Random(4).shuffle(widths)
    records = [task("jobs.nap", seconds, resources=width) for width in widths]
    scripts.worker("--cores", "4")
    scripts.run("--tasks", scripts.tasks(*records), "--output", "results.jsonl")
    results = scripts.results()
    assert len(results) == len(widths)
    assert {result["status"] for result in results} == {"ok"}
    assert {core for result in results for core in result["cores"]} <= set(
        range(4) if len(CORES) < 4 else CORES[:4]
    )
    check_order_and_cores(results, 4)


def test_uneven_durations_do_not_change_the_order(scripts: Scripts) -> None:
    draw = random.Random(5)
    widths = [1] * 60 + [2] * 30 + [3] * 10
    draw.shuffle(widths)
    records = [task("jobs.nap", draw.choice([0, 0, 0.0005, 0.02, 0.1]), resources=width) for width in widths]
    scripts.worker("--cores", "4", "--no-pin")
    scripts.run("--tasks", scripts.tasks(*records), "--output", "results.jsonl")
    results = sorted(scripts.results(), key=lambda result: (result["started"], result["resources"]))
    assert [result["resources"] for result in results] == sorted(widths)


def test_backfill_lets_narrow_tasks_pass_a_wide_one_that_waits(scripts: Scripts) -> None:
    records = [task("jobs.hold", "held", id="held"), task("jobs.nap", 0, resources=2, id="wide")]
    records += [task("jobs.nap", 0, id=str(n)) for n in range(3)]
    scripts.worker("--cores", "2", "--no-pin", "--backfill")
    dispatcher = scripts.dispatcher(
        "--tasks", scripts.tasks(*records), "--output", "results.jsonl", "--order", "file"
    )
    wait_until((scripts.folder / "results.jsonl").exists, "results come")
    wait_until(lambda: len(scripts.results()) == 3, "those behind the wide one are done")
    assert scripts.by_id().keys() == {"0", "1", "2"}
    (scripts.folder / "held.go").touch()
    assert dispatcher.ends() == 0
    assert len(scripts.results()) == 5


@needs_pinning
def test_a_task_is_pinned_to_the_cores_in_its_result(scripts: Scripts) -> None:
    records = [task("jobs.where", resources=width) for width in [1, 2] * 10]
    records += [task("jobs.thread_cores", resources=width) for width in (1, 2)]
    records += [task("jobs.blas_threads", resources=width) for width in (1, 2)]
    scripts.worker("--cores", "2")
    scripts.run("--tasks", scripts.tasks(*records), "--output", "results.jsonl")
    for result in scripts.results():
        assert result["status"] == "ok", result
        width, value = result["resources"], result["value"]
        assert len(result["cores"]) == width
        assert set(result["cores"]) <= set(CORES[:2])
        if result["function"] == "jobs.where":
            assert value["affinity"] == sorted(result["cores"])
            assert value["threads"] == [str(width)] * 3
        elif result["function"] == "jobs.thread_cores":
            assert value
            assert all(cores == sorted(result["cores"]) for cores in value)
        else:
            assert set(value) == {width}


@needs_pinning
def test_what_a_task_does_to_itself_its_successor_does_not_feel(scripts: Scripts) -> None:
    records = []
    for _ in range(5):
        records += [task("jobs.unpin"), task("jobs.where"), task("jobs.leave_folder"), task("jobs.where")]
    scripts.run("--tasks", scripts.tasks(*records), *local(1, 1), "--output", "results.jsonl")
    seen = [result for result in scripts.results() if result["function"] == "jobs.where"]
    assert len(seen) == 10
    for result in seen:
        assert result["value"]["cwd"] == str(scripts.folder)
        assert result["value"]["affinity"] == result["cores"]


def test_without_pinning_a_task_may_run_anywhere(scripts: Scripts) -> None:
    scripts.worker("--cores", "1", "--no-pin", "--once")
    scripts.run("--tasks", scripts.tasks(task("jobs.where")), "--output", "results.jsonl")
    [result] = scripts.results()
    assert result["cores"] == [0]
    assert result["value"]["affinity"] == sorted(CORES)
    assert result["value"]["threads"] == ["1"] * 3


def test_the_surroundings_of_a_task_are_its_workers(scripts: Scripts) -> None:
    """The dispatcher stands elsewhere, where a module of the same name must play no part."""
    elsewhere = scripts.folder / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "jobs.py").write_text("raise RuntimeError('the wrong one')\n")
    (scripts.folder / "package").mkdir()
    (scripts.folder / "package" / "inner.py").write_text(
        "class C:\n    @staticmethod\n    def m(): return __file__\n"
    )
    records = scripts.tasks(
        task("jobs.where", id="where"), task("jobs.read_stdin", id="stdin"),
        task("package.inner.C.m", id="module"),
        task("example_compute.where", id="ours"), task("jobs.spawn_many", id="spawn"),
    )  # fmt: skip
    scripts.worker("--cores", "2", "--no-pin", "--once", stdin=b"not for tasks\n")
    scripts.run(
        "--tasks",
        records,
        "--output",
        scripts.folder / "results.jsonl",
        folder=elsewhere,
        stdin=b"nor this\n",
    )
    values = {key: result["value"] for key, result in scripts.by_id().items()}
    assert values["where"]["cwd"] == str(scripts.folder)
    assert values["stdin"] == ""
    assert values["module"] == str(scripts.folder / "package" / "inner.py")
    assert values["ours"]["pid"] > 0
    assert values["spawn"] == [1, 2, 3]


def test_several_runs_one_after_the_other_keep_their_order(scripts: Scripts) -> None:
    scripts.worker("--cores", "4", "--no-pin")
    for seed in range(3):
        widths = [1, 2, 4] * 10
        random.Random(seed).shuffle(widths)
        records = scripts.tasks(*(task("jobs.nap", 0.005, resources=width) for width in widths))
        scripts.run("--tasks", records, "--output", f"{seed}.jsonl")
        results = scripts.results(f"{seed}.jsonl")
        check_order_and_cores(results, 4)
        assert all(first["submitted"] == second["submitted"] for first, second in pairwise(results))
