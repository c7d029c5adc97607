"""The worker's pool alone: what the processes cost, without a wire and a dispatcher."""

from __future__ import annotations

import time
from typing import Any

import msgspec

from benchmarks import processpool
from benchmarks.measure import Bench, Case, Failed, Figure, Part, rounds
from benchmarks.work import CORES, IDEAL, SLEEP, WIDTHS
from executor import codec
from executor.cores import CoreSet
from executor.messages import Item
from executor.pool import Finished, Pool

#: No-op calls in a round.
CALLS = 30_000

OURS, THEIRS, MIXED = "the pool", "ProcessPoolExecutor.submit", "mixed widths on 8 logical cores"


def item(place: int, function: str, params: list[Any], width: int = 1) -> Item:
    """Return a call as a dispatcher would send it."""
    head, *_ = codec.encode([function, params, {}])
    return Item(place, 1, width, None, None, msgspec.Raw(head))


def drive(pool: Pool, items: list[Item]) -> float:
    """Run all items; return the seconds from the first's adding to the last's report."""
    began = time.perf_counter()
    pool.add("bench", items, [])
    left = len(items)
    finished: list[Finished] = []
    told: list[tuple[int, int]] = []
    while left:
        some = pool.step(told)
        finished += some
        left -= sum(each.reports.count for each in some)
        if left:
            told = pool.ears.wait(pool.patience())
    took = time.perf_counter() - began
    for each in finished:
        for report in each.reports.reports():
            if report.status != "ok":
                raise Failed(f"a call failed: {report.error}")
    return took


def measure(bench: Bench) -> Part:
    """Measure no-op calls on two processes, and tasks of mixed widths."""
    count = bench.count(CALLS, least=100)
    calls = [item(place, "operator.add", [place, 1]) for place in range(count)]
    sleeps = [item(place, "time.sleep", [SLEEP], width) for place, width in enumerate(WIDTHS)]
    narrow = Pool(CoreSet(range(2), pinned=False))
    wide = Pool(CoreSet(range(CORES), pinned=False))
    try:
        with processpool.processes() as executor:
            cases: dict[str, Case] = {
                OURS: lambda: {OURS: count / drive(narrow, calls)},
                THEIRS: lambda: {THEIRS: processpool.submit_all(executor.submit, count)},
                MIXED: lambda: {MIXED: IDEAL / drive(wide, sleeps)},
            }
            drive(narrow, calls[:100])
            drive(wide, sleeps)
            values = rounds(bench.repeats, cases, bench.say)
    finally:
        narrow.close()
        wide.close()
    units = {MIXED: "of the ideal"}
    figures = [Figure(name, units.get(name, "calls/s"), each) for name, each in values.items()]
    return Part("pool", f"The pool alone: {count:,} no-op calls on 2 processes", figures, [], THEIRS)
