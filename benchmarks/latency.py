"""Latency: one call at a time, through a dispatcher's end and a worker, beside ProcessPoolExecutor."""

from __future__ import annotations

import operator
from functools import partial

from benchmarks import bare, processpool
from benchmarks.ends import Feed, serving
from benchmarks.measure import Bench, Figure, Part, at_most, percentile, ratios, rounds

#: Calls in each round, and those before it that warm everything.
CALLS, WARM = 2000, 100


def ours(count: int) -> list[float]:
    """Return the seconds of so many calls over ZeroMQ, one after the other."""
    with serving(2) as served:
        feed = Feed("operator.add", 1, 2)
        served.end.push(feed)
        assert feed.value(served.end) == 3
        processpool.one_by_one(lambda: feed.call(served.end), WARM)
        return processpool.one_by_one(lambda: feed.call(served.end), count)


def theirs(count: int) -> list[float]:
    """Return the seconds of so many calls of ProcessPoolExecutor."""
    with processpool.processes() as executor:
        return processpool.one_by_one(lambda: executor.submit(operator.add, 1, 2).result(), count)


def measure(bench: Bench) -> Part:
    """Measure both."""
    count = bench.count(CALLS, least=10)
    calls = {"zmq": ours, "ProcessPoolExecutor": theirs, "bare loop": bare.one_by_one}

    def case(name: str) -> dict[str, float]:
        seconds = calls[name](count)
        return {f"{name}, p{share}": percentile(seconds, share / 100) for share in (50, 99)}

    values = rounds(bench.repeats, {name: partial(case, name) for name in calls}, bench.say)
    figures = [Figure(name, "s", each) for name, each in values.items()]
    known = {figure.name: figure for figure in figures}
    pool = known["ProcessPoolExecutor, p50"]
    targets = [
        at_most("zmq, p50 / ProcessPoolExecutor, p50", 1.5, ratios(known["zmq, p50"], pool)),
        at_most("zmq, p99 / zmq, p50", 3, ratios(known["zmq, p99"], known["zmq, p50"])),
    ]
    title = f"Latency: {count:,} no-op calls, one at a time, 2 workers of 1 core"
    return Part("latency", title, figures, targets, pool.name)
