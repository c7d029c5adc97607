"""A pool under test, and what its owner would do around it."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import msgspec

from executor import codec
from executor.cores import CoreSet
from executor.messages import Buffer, Item, Report
from executor.pool import Pool

#: Seconds that anything may take. Ample: these tests ask whether, not how fast.
LIMIT = 60.0


def item(place: int, function: str, *params: Any, width: int = 1, **limits: Any) -> Item:
    """A call as a dispatcher would send it."""
    head, *_ = codec.encode([function, list(params), {}])
    return Item(place, 1, width, limits.get("timeout"), limits.get("memory"), msgspec.Raw(head))


def value(report: Report) -> Any:
    """What a call returned, which must have gone well."""
    assert report.status == "ok", report.error
    return codec.decode([report.value])


class Finished(NamedTuple):
    """A report, with the run it belongs to and the large buffers of its value."""

    run: str
    report: Report
    buffers: Sequence[Buffer]


class Driver:
    """A pool and the loop that its owner would have around it."""

    def __init__(self, pool: Pool, cores: CoreSet) -> None:
        self.pool = pool
        self.cores = cores
        self.finished: list[Finished] = []
        self.frames = 0  # in which they came

    def add(self, *items: Item, run: str = "run") -> None:
        self.pool.add(run, items, [])

    def until(self, condition: Callable[[], bool]) -> None:
        """Drive the pool until a condition holds."""
        deadline = time.monotonic() + LIMIT
        while not condition():
            assert time.monotonic() < deadline, f"not within {LIMIT:g} s; finished: {self.finished}"
            patience = self.pool.patience()
            self.step(0.02 if patience is None else min(0.02, patience))

    def step(self, seconds: float = 0) -> None:
        """Let the pool do what there is to do, when something is, or after so long."""
        for some in self.pool.step(self.pool.ears.wait(seconds)):
            self.frames += 1
            self.finished += [Finished(some.run, report, buffers) for report, buffers in some.reports.each()]

    def run(self, *items: Item) -> list[Report]:
        """Run calls; return their reports by place."""
        self.add(*items)
        before = len(self.finished)
        self.until(lambda: len(self.finished) - before == len(items))
        return sorted((f.report for f in self.finished[before:]), key=lambda report: report.place)
