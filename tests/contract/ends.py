"""Both ends of a wire inside the test's own process: a dispatcher, and workers that are threads.

What runs is the real contract, over real sockets; only the pool of processes is left out, so that fifty
workers cost no more than fifty threads.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from itertools import pairwise
from typing import Any

import msgspec

import transports
from executor import codec
from executor.messages import NIL, Hello, Holding, Item, Report, introduce, share_out
from executor.packed import pack
from executor.run import Earlier, Run
from executor.session import Begin, Ended, GiveBack, Stop, Take
from executor.task import Result, Task
from tests.contract.wires import Wire
from transports.base import DispatcherEnd, WorkerEnd

#: Seconds that anything here may take; the machine may be busy.
LIMIT = 30.0

#: Signs of life come quickly, and silence is a death only after long: a busy machine is silent, too. Tests
#: that wait for a death choose a patience of their own.
HEARTBEAT, PATIENCE = 0.2, 12.0


class Place:
    """Where the ends of one test meet: addresses, and both ends' YAML."""

    def __init__(self, wire: Wire, workers: int = 1, reach: Sequence[str] = (), **more: Any) -> None:
        self.wire = wire
        self.listen = wire.free_addresses(workers)
        self.reach = self.listen
        self._more = {"transport": wire.transport, "heartbeat": HEARTBEAT, "patience": PATIENCE, **more}

    def dispatcher(self) -> dict[str, Any]:
        return {**self._more, **self.wire.dispatcher(self.listen, self.reach)}

    def worker(self, index: int = 0) -> dict[str, Any]:
        at = index if self.wire.workers_listen else 0
        return {**self._more, **self.wire.worker(self.listen[at], self.reach[at])}

    def dispatcher_end(self, say: Callable[[str], None] = print) -> DispatcherEnd:
        transport = transports.load(self.wire.transport)
        settings = msgspec.convert(self.dispatcher(), transport.Settings)
        return transport.dispatcher_end(settings, say=say, wait=LIMIT)

    def worker_end(self, hello: Hello, index: int = 0, say: Callable[[str], None] = print) -> WorkerEnd:
        transport = transports.load(self.wire.transport)
        settings = msgspec.convert(self.worker(index), transport.Settings)
        return transport.worker_end(settings, hello, say=say)


class StandIn(threading.Thread):
    """A worker without processes: it answers each call with `work(params)`, one after the other.

    It shows that it lives while it holds a call, and all behind it, for as long as `waits(params)` says so.

    Use it as a context; it ends without a word, as one does whose power is cut, unless it was idle.
    """

    def __init__(
        self, place: Place, index: int = 0, *, cores: int = 1, hello: Hello | None = None,
        work: Callable[[list[Any]], Any] = lambda params: params[0],
        waits: Callable[[list[Any]], bool] | None = None,
    ) -> None:  # fmt: skip
        super().__init__(daemon=True)
        self.took: list[int] = []  # places, in the order in which they came
        self.did: list[int] = []  # ... in which they were answered
        self.runs: list[str] = []
        self.left: list[Ended] = []
        self.said: list[str] = []
        self.failure: BaseException | None = None
        self.unclaimed: dict[str, int] = {}  # what it keeps of runs that were left
        self._place, self._index, self._work, self._waits = place, index, work, waits
        self._hello = hello or introduce(f"stand-in-{index}", cores)
        self._line: list[tuple[str, Item, Sequence[Any]]] = []
        self._end = threading.Event()
        self._open = threading.Event()

    def __enter__(self) -> StandIn:
        self.start()
        assert self._open.wait(LIMIT)
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def leave(self) -> None:
        """Begin to end, without waiting for it."""
        self._end.set()

    def stop(self) -> None:
        self.leave()
        self.join(LIMIT)
        assert not self.is_alive()
        if self.failure is not None:
            raise self.failure

    def run(self) -> None:
        try:
            with self._place.worker_end(self._hello, self._index, self.said.append) as end:
                end.holding = self._holding
                self._open.set()
                while not self._end.is_set():
                    self._turn(end)
        except BaseException as failure:
            self.failure = failure
            self._open.set()

    def _holding(self) -> Holding:
        held: Holding = {}
        for run, item, _ in self._line:
            held.setdefault(run, {})[item.place] = item.attempt
        return held

    def _turn(self, end: WorkerEnd) -> None:
        for order in end.pull(0 if self._line and not self._held_up() else 0.05):
            if isinstance(order, Take):
                shares = share_out(order.items, order.buffers)
                self.took += [item.place for item in order.items]
                for index, item in enumerate(order.items):
                    self._line.append((order.run, item, shares.get(index, ())))
                self._line.sort(key=lambda entry: entry[1].place)
            elif isinstance(order, Begin):
                self.runs.append(order.run)
            elif isinstance(order, GiveBack | Stop):
                most = order.most if isinstance(order, GiveBack) else None
                back = [entry for entry in self._line if entry[0] == order.run]
                back = back[max(0, len(back) - most) :] if most is not None else back
                self._line = [entry for entry in self._line if entry not in back]
                end.give_back(order.run, [item.place for _, item, _ in back])
            elif isinstance(order, Ended):
                self.left.append(order)
                over = {order.run, *order.earlier}
                self._line = [entry for entry in self._line if entry[0] not in over]
        self.unclaimed = end.unclaimed
        if self._line and not self._held_up():
            run, item, buffers = self._line[0]
            started = time.time()
            report, values = self._answer(item, buffers, started)
            del self._line[0]  # until now it is held
            self.did.append(item.place)
            end.reply(run, pack([report], values))

    def _held_up(self) -> bool:
        """Whether the call that is next waits."""
        if self._waits is None:
            return False
        _, item, buffers = self._line[0]
        return self._waits(codec.decode([item.call, *buffers])[1])

    def _answer(self, item: Item, buffers: Sequence[Any], started: float) -> tuple[Report, Sequence[Any]]:
        try:
            _, params, _ = codec.decode([item.call, *buffers])
            head, *values = codec.encode(self._work(params))
        except Exception as error:
            text = (type(error).__name__, str(error), "")
            return Report(item.place, item.attempt, "error", NIL, 0, text, (0,), started, time.time()), ()
        value = msgspec.Raw(head)
        return Report(
            item.place, item.attempt, "ok", value, len(values), None, (0,), started, time.time()
        ), values


@contextmanager
def crowd(place: Place, count: int) -> Iterator[list[StandIn]]:
    """Many workers, which come one by one and leave together, however the test ends.

    One after the other they would take so long to close, where it went wrong, that the test's time limit
    would hide what did.
    """
    with ExitStack() as stack:
        workers = [stack.enter_context(StandIn(place, index)) for index in range(count)]
        for worker in workers:
            stack.callback(worker.leave)
        yield workers


class Gathered:
    """A run, and its results as they come; with `after`, it continues that one, and has its results."""

    def __init__(
        self, end: DispatcherEnd, tasks: Sequence[Task], *, after: Gathered | None = None, **options: Any
    ) -> None:
        self.end = end
        self.before: list[Earlier] = []
        self.results: dict[int, Result] = {}
        self.pushed = 0  # of its tasks, when its dispatcher left
        if after is not None:
            where = {task.id: place for place, task in enumerate(tasks)}
            there = [where.get(task.id, -1) for task in after.run.tasks]
            for run, places, pushed in after.before:
                moved = None if places is None else [there[p] if p >= 0 else -1 for p in places]
                self.before.append(Earlier(run, moved, pushed))
            self.before.append(Earlier(after.run.id, there, after.end.pushed))
            self.results = {there[place]: result for place, result in after.results.items()}
        self.run = Run(tasks, earlier=self.before, **options)
        self.run.skip(self.results)
        end.push(self.run)

    def vanish(self) -> None:
        """End as if this process had died."""
        self.end.resumable = True
        self.end.close()

    def turn(self, seconds: float = 0.1) -> None:
        for delivery in self.end.results(seconds):
            for report, buffers in delivery.each():
                result = self.run.accept(report, buffers, worker=delivery.worker, host=delivery.host)
                if result is not None:
                    assert report.place not in self.results
                    self.results[report.place] = result
        self.end.acknowledge()
        for due in self.run.due:
            self.end.again(due.place, suspect=due.suspect, alone=due.alone)
        self.run.due.clear()

    def until(self, condition: Callable[[], object], what: str, limit: float = LIMIT) -> None:
        deadline = time.monotonic() + limit
        while not condition():
            assert time.monotonic() < deadline, f"not within {limit:g} s: {what}"
            self.turn()

    def all(self, limit: float = LIMIT) -> list[Result]:
        """Gather the rest; return the results in the order of their tasks."""
        self.until(lambda: not self.run.unrecorded, f"{len(self.run.tasks)} results", limit)
        return [self.results[place] for place in range(len(self.run.tasks))]


def are_in_order(places: Sequence[int]) -> bool:
    """Whether places are in order, but for a few.

    On RabbitMQ what is delivered as its subscription ends goes back, and comes again a moment later.
    """
    return sum(later < earlier for earlier, later in pairwise(places)) <= 5


def tasks(count: int, *, resources: int = 1, **fields: Any) -> list[Task]:
    """Return tasks that ask for their own number back."""
    return [task(number, resources=resources, **fields) for number in range(count)]


_numbers = iter(range(10**9))


def task(*params: Any, **fields: Any) -> Task:
    """Return a task of these parameters."""
    return Task(**{"id": f"t{next(_numbers)}", "function": "jobs.echo", "params": list(params), **fields})
