"""Scale: many tasks, many workers, and what the broker's decisions cost with thousands of either."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

from benchmarks import simulate
from benchmarks.machine import ROOT
from benchmarks.measure import Bench, Case, Failed, Figure, Part, Target, at_least, at_most, ratios, rounds
from benchmarks.scripts import dispatch, folder, no_ops, write_settings

#: Tasks of a large run and of one beside it, of a run on many stand-ins, and of one on a virtual clock.
LARGE, SMALL, ON_FEW, VIRTUAL = 1_000_000, 100_000, 200_000, 1_000_000

#: Stand-ins of workers, and as few beside them.
MANY, FEW = 500, 2

#: Workers on the virtual clock.
VIRTUAL_WORKERS = (10, 100, 1000, 10_000)

#: Bytes that a dispatcher may hold.
MEMORY = 1e9

#: A decision among the most workers still has this share of the speed of one among the fewest.
FLAT = 0.8


def run(here: Path, tasks: Path, count: int, name: str) -> dict[str, float]:
    """Run so many no-op calls on two workers; return the rate, and the dispatcher's memory."""
    ran = dispatch(tasks, count, "--workers", "2", "--cores", "1", results=here / "results.jsonl")
    return {name: ran.rate, f"{name}, dispatcher's memory": ran.memory}


@contextmanager
def standins(settings: Path, count: int) -> Iterator[None]:
    """So many stand-ins of workers, in a process of their own."""
    process = subprocess.Popen(
        [sys.executable, "-m", "benchmarks.standins", str(settings), str(count)], cwd=ROOT
    )
    try:
        yield
        if process.poll() is not None:
            raise Failed(f"the stand-ins ended with {process.returncode}")
    finally:
        process.terminate()
        process.wait()


def crowd(here: Path, tasks: Path, count: int, workers: int) -> dict[str, float]:
    """Run no-op calls on stand-ins; return the rate, how many of them took part, and the memory."""
    settings = write_settings(here / "crowd.yml", transport="zmq", address=f"unix:{here / 'crowd'}")
    with standins(settings, workers):
        ran = dispatch(tasks, count, "--yaml", settings, "--wait", "60", results=here / "results.jsonl")
    name = f"{workers} stand-ins"
    return {
        name: ran.rate, f"{name} that took part": len(ran.workers), f"{name}, dispatcher's memory": ran.memory
    }  # fmt: skip


def virtual(tasks: int, workers: int) -> dict[str, float]:
    """Replay a run on a virtual clock; return what the broker's decisions cost, and what came of them."""
    one, figures = simulate.replay_heavy(workers, tasks, seed=1)
    simulate.check(one)
    name = f"{workers:,} workers"
    return {
        f"{name}, decisions": figures.per_second,
        f"{name}, makespan / least possible": figures.makespan / figures.bound,
        f"{name}, messages a task": figures.messages / tasks,
    }


def measure(bench: Bench) -> Part:
    """Measure real runs of two sizes, real runs on many stand-ins, and runs on a virtual clock."""
    with folder() as here:
        large, small = bench.count(LARGE, least=10_000), bench.count(SMALL, least=1000)
        on_few = bench.count(ON_FEW, least=1000)
        on_the_clock = bench.count(VIRTUAL, least=10 * VIRTUAL_WORKERS[-1])
        names = {f"{small:,} tasks": small, f"{large:,} tasks": large}
        cases: dict[str, Case] = {
            name: partial(run, here, no_ops(here / f"{count}.jsonl", count), count, name)
            for name, count in names.items()
        }
        # On many, as many calls as there are: fewer are over before all have connected.
        for workers, count in ((FEW, on_few), (MANY, large)):
            tasks = no_ops(here / f"{count}.jsonl", count)
            cases[f"{workers} stand-ins"] = partial(crowd, here, tasks, count, workers)
        for workers in VIRTUAL_WORKERS:
            cases[f"{workers} virtual workers"] = partial(virtual, on_the_clock, workers)
        values = rounds(bench.repeats, cases, bench.say)
    figures = [Figure(name, _unit(name), each) for name, each in values.items()]
    title = "Scale: no-op calls over ZeroMQ; on a virtual clock, workers of 16 cores and a heavy tail"
    return Part("scale", title, figures, targets(figures, *names))


def _unit(name: str) -> str:
    for ending, unit in (("memory", "bytes"), ("decisions", "/s"), (" tasks", "tasks/s"), ("ins", "tasks/s")):
        if name.endswith(ending):
            return unit
    return ""


def targets(figures: list[Figure], small: str, large: str) -> list[Target]:
    """Return the targets."""
    known = {figure.name: figure for figure in figures}
    few, many = (
        known[f"{count:,} workers, decisions"] for count in (VIRTUAL_WORKERS[0], VIRTUAL_WORKERS[-1])
    )
    memory = f"{large}, dispatcher's memory"
    present = f"{MANY} stand-ins that took part"
    return [
        at_least(f"{large} / {small}, rate", 0.9, ratios(known[large], known[small])),
        at_most(memory, MEMORY, known[memory].values, "bytes"),
        at_least(present, MANY, known[present].values),
        at_least(
            f"decisions, {VIRTUAL_WORKERS[-1]:,} workers / {VIRTUAL_WORKERS[0]}", FLAT, ratios(many, few)
        ),
    ]
