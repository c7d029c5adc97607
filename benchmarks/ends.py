"""A dispatcher's end in this process, with workers of its own: what the library does, without the scripts."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

import msgspec

import transports
from benchmarks.measure import Failed
from executor import codec
from executor.config import Wire
from executor.launch import LocalWorkers
from executor.messages import Buffer, Item, encode_calls
from executor.run import Run
from executor.task import Result, Task
from transports.base import DispatcherEnd

#: Seconds that workers get to come, and that a result may take.
LIMIT = 120.0


def quiet(text: str) -> None:
    """Say nothing."""


class Served(NamedTuple):
    """A dispatcher's end, and the workers that it has."""

    end: DispatcherEnd
    workers: int

    def wait_for_workers(self) -> None:
        """Wait until all workers are there, before anything is pushed."""
        deadline = time.monotonic() + LIMIT
        while len(self.end.workers()) < self.workers:
            self.end.results(0.01)
            if time.monotonic() > deadline:
                raise Failed(f"{self.workers} workers have not come within {LIMIT:g} s")


@contextmanager
def serving(workers: int, cores: int = 1, transport: str = "zmq", **keys: Any) -> Iterator[Served]:
    """Open a dispatcher's end on a wire, with workers of so many cores each."""
    kind = transports.load(transport)
    wire = Wire(kind, msgspec.convert({"transport": transport, **keys}, kind.Settings))
    local = LocalWorkers(workers, cores, wire, say=quiet)
    try:
        local.open()
        with kind.dispatcher_end(local.settings, say=quiet, wait=LIMIT) as end:
            yield Served(end, workers)
    finally:
        local.close()


def gather(end: DispatcherEnd, run: Run) -> tuple[list[float], Result]:
    """Gather all results of a run that was pushed, and acknowledge them as they come.

    Return when each came, on the monotonic clock, and the one of the last task.

    Raises:
        Failed: one is not ok.
    """
    arrived: list[float] = []
    last: Result | None = None
    while run.unrecorded:
        deliveries = end.results(LIMIT)
        if not deliveries:
            raise Failed(f"{run.unrecorded} results have not come within {LIMIT:g} s")
        for delivery in deliveries:
            for report, buffers in delivery.each():
                result = run.accept(report, buffers, worker=delivery.worker, host=delivery.host)
                arrived.append(time.monotonic())
                if result is not None and result.status != "ok":
                    raise Failed(f"a task ended as {result.status}: {result.error}")
                if report.place == len(run.tasks) - 1:
                    last = result
        end.acknowledge()
    assert last is not None
    return arrived, last


def task(number: int, function: str, *params: Any) -> Task:
    """Return a call as a task."""
    return Task(id=f"t{number}", function=function, params=list(params))


class Feed:
    """One call at a time, to an end whose tasks are pushed all at once.

    An end takes tasks once (`DispatcherEnd.push`) and none later, so each further call is another attempt at
    one and the same task: what travels, runs and comes back is the same as for a task of its own.
    """

    def __init__(self, function: str, *params: Any) -> None:
        self.id = "feed"
        self.widths: Sequence[int] = [1]
        self.earlier: Sequence[str] = []
        self._call = [function, list(params), {}]
        self._attempt = 1

    def is_recorded(self, place: int) -> bool:
        """Whether nobody need run it any more: never."""
        return False

    def recorded(self) -> Iterator[int]:
        """Yield what nobody need run any more: nothing."""
        return iter(())

    def attempt(self, place: int) -> int:
        """Return the number of the present call."""
        return self._attempt

    def tried(self, place: int, attempt: int) -> None:
        """Nobody else tries."""

    def place_of(self, run: str, place: int) -> int | None:
        """Return the place here of a place of a run."""
        return place if run == self.id else None

    def left(self, run: str) -> Iterator[int]:
        """Yield what an earlier run left: nothing."""
        return iter(())

    def item(self, place: int) -> tuple[Item, Sequence[Buffer]]:
        """Encode the call, as is done for each task of a run."""
        head, *buffers = codec.encode(self._call)
        return Item(place, self._attempt, 1, None, None, msgspec.Raw(head), len(buffers), None), buffers

    def frame(self, places: Sequence[int]) -> bytes | None:
        """Encode the call as a message, as is done for the tasks of a run."""
        return encode_calls(self.id, [(0, self._attempt, 1, None, None, self._call, 0, None, False)])

    def call(self, end: DispatcherEnd) -> Any:
        """Make the next call and return its value; the first one was made by `push`.

        Raises:
            Failed: it did not return within `LIMIT` seconds, or something else than a value came back.
        """
        self._attempt += 1
        end.again(0)
        return self.value(end)

    def value(self, end: DispatcherEnd) -> Any:
        """Return the value of the present call when it comes."""
        deliveries = end.results(LIMIT)
        if not deliveries:
            raise Failed(f"a call did not return within {LIMIT:g} s")
        [(report, buffers)] = deliveries[0].each()
        if report.status != "ok":
            raise Failed(f"a call came to nothing: {report}")
        value = report.read(buffers)
        end.acknowledge()
        return value
