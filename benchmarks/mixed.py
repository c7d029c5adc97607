"""Tasks of several widths at once: how much of the cores a dispatcher and its workers keep busy."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from benchmarks.measure import Bench, Figure, Part, at_least, rounds
from benchmarks.scripts import dispatch, folder, write_tasks
from benchmarks.work import CORES, IDEAL, SLEEP, WIDTHS

#: The workers that share the cores.
CASES = {"1 worker of 8 cores": 1, "2 workers of 4 cores": 2}


def efficiency(here: Path, workers: int) -> float:
    """Return the share of the ideal that so many workers reach."""
    tasks = write_tasks(
        here / "mixed.jsonl",
        ({"function": "time.sleep", "params": [SLEEP], "resources": width} for width in WIDTHS),
    )
    options = ["--workers", str(workers), "--cores", str(CORES // workers)]
    return IDEAL / dispatch(tasks, len(WIDTHS), *options, results=here / "results.jsonl").span


def measure(bench: Bench) -> Part:
    """Measure one worker with all cores, and two with half of them each."""
    with folder() as here:

        def case(name: str) -> dict[str, float]:
            return {name: efficiency(here, CASES[name])}

        cases = {name: partial(case, name) for name in CASES}
        values = rounds(bench.repeats, cases, bench.say)
    figures = [Figure(name, "of the ideal", each) for name, each in values.items()]
    targets = [at_least(f"{figure.name}, efficiency", 0.95, figure.values) for figure in figures]
    asleep = f"each asleep for {SLEEP * 1000:g} ms"
    title = f"Mixed widths over ZeroMQ: {len(WIDTHS)} tasks of 1, 2 and 4 cores, {asleep}"
    return Part("mixed", title, figures, targets)
