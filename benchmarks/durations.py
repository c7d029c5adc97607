"""Tasks that take their time: how much of two cores a run keeps busy."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from benchmarks.measure import Bench, Case, Figure, Part, Target, at_least, rounds
from benchmarks.scripts import dispatch, folder, write_tasks

#: Tasks in a run.
TASKS = 2000

CORES = 2

#: Seconds of each task, and the share of the ideal to reach.
WANTED = {0.01: 0.98, 0.001: 0.9}

#: How the tasks spend their time. Asleep, they leave the cores to the dispatcher and the workers.
KINDS = {"computing": "benchmarks.work.compute", "asleep": "time.sleep"}


def case(here: Path, name: str, function: str, seconds: float, count: int) -> dict[str, float]:
    """Run one kind; return the share of the ideal, and of the tasks' own time, that the run reached.

    And what share of the cores' time passed before a worker's first task, and after its last.
    """
    path = write_tasks(
        here / "tasks.jsonl", ({"function": function, "params": [seconds]} for _ in range(count))
    )
    ran = dispatch(path, count, "--workers", "2", "--cores", "1", results=here / "results.jsonl")
    return {
        name: seconds * count / CORES / ran.span,
        f"{name}, by their own time": ran.area / CORES / ran.span,
        f"{name}, idle before the first": ran.late / CORES / ran.span,
        f"{name}, idle after the last": ran.early / CORES / ran.span,
    }


def measure(bench: Bench) -> Part:
    """Measure tasks of both durations, of both kinds."""
    count = bench.count(TASKS, least=10)
    names = {
        f"{seconds * 1000:g} ms {kind}": (function, seconds)
        for seconds in WANTED
        for kind, function in KINDS.items()
    }
    with folder() as here:
        cases: dict[str, Case] = {
            name: partial(case, here, name, function, seconds, count)
            for name, (function, seconds) in names.items()
        }
        values = rounds(bench.repeats, cases, bench.say)
    figures = [
        Figure(name, "of the cores" if ", idle" in name else "of the ideal", each)
        for name, each in values.items()
    ]
    targets: list[Target] = [
        at_least(f"{name}, share of the ideal", WANTED[seconds], values[name])
        for name, (_, seconds) in names.items()
    ]
    title = f"Long tasks over ZeroMQ: {count:,} on 2 workers of 1 core; the ideal is their nominal time / 2"
    return Part("durations", title, figures, targets)
