"""How long it takes until anything happens: whole processes, from their start to their end."""

from __future__ import annotations

from functools import partial
from pathlib import Path

from benchmarks.measure import Bench, Case, Figure, Part, at_most, rounds
from benchmarks.scripts import folder, no_ops, seconds_of

#: Seconds to reach.
ONE_TASK, HELP = 1.2, 0.2

SCRIPTS = ("dispatcher.py", "worker.py", "executor_cli.py")


def one_task(here: Path) -> float:
    """Return the seconds of a run of one task, workers and all."""
    tasks = no_ops(here / "one.jsonl", 1)
    output = ["--output", str(here / "r.jsonl"), "--overwrite"]
    return seconds_of("dispatcher.py", "--workers", "2", "--tasks", tasks, *output)


def measure(bench: Bench) -> Part:
    """Measure a run of one task, and the help of each script."""
    run = "dispatcher.py --workers 2, one task"
    with folder() as here:
        cases: dict[str, Case] = {run: lambda: {run: one_task(here)}}
        for script in SCRIPTS:
            name = f"{script} --help"
            cases[name] = partial(lambda name, script: {name: seconds_of(script, "--help")}, name, script)
        for case in cases.values():  # what is read from disk for the first time is the disk's affair
            case()
        values = rounds(max(3, bench.repeats), cases, bench.say)
    figures = [Figure(name, "s", each) for name, each in values.items()]
    targets = [at_most(name, ONE_TASK if name == run else HELP, each, "s") for name, each in values.items()]
    return Part("start", "Start: seconds of the whole process", figures, targets)
