"""The worker's pool alone, without a wire, beside ProcessPoolExecutor and joblib in the same run.

    python benchmarks/pool.py [--repeats 5] [--tasks 20000]

Prints medians over interleaved repeats, and ratios. Two cases:

- no-op calls: ``operator.add(1, 2)`` many times on two processes, submitted at once, all results gathered;
- mixed widths: sleeping tasks of 20 ms, 120 of 1 core, 40 of 2 and 20 of 4, in increasing order, on 8 logical
  cores. The ideal is the area of the tasks over the cores: 700 ms.
"""

from __future__ import annotations

import argparse
import operator
import select
import statistics
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import msgspec

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from executor import codec
from executor.cores import CoreSet
from executor.messages import Item
from executor.pool import Pool

#: Widths of the mixed case, in the order handed out, and how long each task sleeps.
MIXED = [1] * 120 + [2] * 40 + [4] * 20
SLEEP = 0.02
CORES = 8
IDEAL = sum(MIXED) * SLEEP / CORES


def item(place: int, function: str, params: list[Any], width: int = 1) -> Item:
    """Return a call as a dispatcher would send it."""
    head, *_ = codec.encode([function, params, {}])
    return Item(place, 1, width, None, None, msgspec.Raw(head))


def drive(pool: Pool, items: list[Item]) -> float:
    """Run all items; return the seconds from the first's adding to the last's report."""
    began = time.perf_counter()
    pool.add("bench", items, [])
    left = len(items)
    while left:
        finished = pool.step()
        for each in finished:
            if each.report.status != "ok":
                raise SystemExit(f"a call failed: {each.report.error}")
        left -= len(finished)
        if left:
            select.select([pool.fileno()], [], [], pool.patience())
    return time.perf_counter() - began


def submit_all(executor: ProcessPoolExecutor, count: int) -> float:
    """Submit no-op calls one by one and gather their results; return the seconds."""
    began = time.perf_counter()
    for future in [executor.submit(operator.add, 1, 2) for _ in range(count)]:
        future.result()
    return time.perf_counter() - began


def joblib_all(count: int) -> float:
    """Run no-op calls through joblib, which batches by itself; return the seconds."""
    import joblib

    began = time.perf_counter()
    joblib.Parallel(n_jobs=2)(joblib.delayed(operator.add)(1, 2) for _ in range(count))
    return time.perf_counter() - began


def median_of(repeats: int, cases: dict[str, Callable[[], float]]) -> dict[str, float]:
    """Run all cases in turn, again and again; return each one's median, in seconds."""
    seconds: dict[str, list[float]] = {name: [] for name in cases}
    for _ in range(repeats):
        for name, case in cases.items():
            seconds[name].append(case())
    return {name: statistics.median(values) for name, values in seconds.items()}


def main() -> None:
    """Measure and print."""
    parse = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parse.add_argument("--repeats", type=int, default=5)
    parse.add_argument("--tasks", type=int, default=20_000)
    arguments = parse.parse_args()
    count = arguments.tasks
    calls = [item(place, "operator.add", [1, 2]) for place in range(count)]
    sleeps = [item(place, "time.sleep", [SLEEP], width) for place, width in enumerate(MIXED)]
    narrow = Pool(CoreSet(range(2), pinned=False))
    wide = Pool(CoreSet(range(CORES), pinned=False))
    with ProcessPoolExecutor(2) as executor:
        cases: dict[str, Callable[[], float]] = {
            "function-executor": lambda: drive(narrow, calls),
            "ProcessPoolExecutor.submit": lambda: submit_all(executor, count),
        }
        try:
            joblib_all(100)
            cases["joblib"] = lambda: joblib_all(count)
        except ModuleNotFoundError:
            print("joblib is not installed and left out: pip install joblib")
        for case in cases.values():  # all warm
            case()
        drive(wide, sleeps)
        seconds = median_of(arguments.repeats, cases)
        mixed = median_of(arguments.repeats, {"mixed": lambda: drive(wide, sleeps)})["mixed"]
    narrow.close()
    wide.close()
    base = seconds["ProcessPoolExecutor.submit"]
    print(f"{count:,} no-op calls on 2 processes, medians of {arguments.repeats}")
    for name, value in sorted(seconds.items(), key=lambda pair: pair[1]):
        print(f"  {name:<28}{count / value:>10,.0f} calls/s{base / value:>8.1f} x ProcessPoolExecutor")
    share = f"{IDEAL / mixed:.3f} of the ideal {IDEAL * 1000:.0f} ms"
    print(f"mixed widths on {CORES} logical cores: {mixed * 1000:.0f} ms, {share}")


if __name__ == "__main__":
    main()
