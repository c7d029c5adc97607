"""A run: its tasks, the attempts at each, and what came of them. Pure: no I/O, and no clock of its own.

The dispatcher pushes a run as a whole. Every report that any worker sends goes through `Run.accept`, which
decides whether it is the one that is recorded, is due another attempt, or comes too late.
"""

from __future__ import annotations

import secrets
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from itertools import chain
from typing import NamedTuple, TypeAlias

import msgspec

from executor import codec
from executor.errors import BadFrame
from executor.jsonform import are_plain
from executor.messages import NIL, Buffer, Item, ReadReport, Report, encode_calls
from executor.task import Error, Result, Task, tries_again


class Due(NamedTuple):
    """A place whose next attempt is due.

    It is `suspect` if its worker vanished, and to be run `alone` if this attempt is its last besides.
    """

    place: int
    suspect: bool
    alone: bool


class Earlier(NamedTuple):
    """A run that another continues.

    `places` are the places that its tasks have in the other, by their places in this one: None if all stand
    where they stood, and -1 for a task that is none of the other's. `pushed` is how many of its tasks, from
    the first on, it had given a broker that keeps them.
    """

    id: str
    places: Sequence[int] | None = None
    pushed: int = 0


#: What tells the report that a superseded line came from: when the call started and finished.
Span: TypeAlias = tuple[float | None, float | None]


class Accepted(NamedTuple):
    """What came of reports: the results to record, and what is wrong with those that are ignored."""

    results: list[Result]
    bad: list[BadFrame]


class Run:
    """The tasks of one run, in the order in which they are handed out.

    `id` tells this run from every other, and begins with its `name` where one is given; `retries` is for
    tasks that name none of their own, None for `DEFAULT_RETRIES`; `timeout` likewise, in seconds.

    It continues the runs `earlier`, the oldest first: what workers or a broker still have of them is its own.
    `superseded` names, by place, the reports whose lines were taken out of the results to run the task again;
    `again` are the places of those that had such a line until now.
    """

    def __init__(
        self,
        tasks: Sequence[Task],
        *,
        retries: int | None = None,
        timeout: float | None = None,
        name: str | None = None,
        earlier: Sequence[Earlier] = (),
        superseded: Mapping[int, Collection[Span]] | None = None,
        again: Iterable[int] = (),
    ) -> None:
        self.id = secrets.token_hex(8) if name is None else f"{name}.{secrets.token_hex(4)}"
        self.name = self.id if name is None else name
        self.tasks = tasks
        self.widths = [task.resources for task in tasks]
        #: Epoch seconds at which the tasks were pushed; None before.
        self.submitted: float | None = None
        self.counts: dict[str, int] = {}
        #: The next attempts that are due; the dispatcher empties it.
        self.due: list[Due] = []
        self.retries = retries
        self.timeout = timeout
        self._earlier = {each.id: each for each in earlier}
        self._superseded = superseded or {}
        self._again = frozenset(again)
        self._skipped = 0
        self._attempts: dict[int, int] = {}  # by place, where it is not the first
        self._recorded = bytearray(len(tasks))

    @property
    def unrecorded(self) -> int:
        """How many tasks have no result yet."""
        return len(self.tasks) - self._skipped - sum(self.counts.values())

    def skip(self, places: Iterable[int]) -> int:
        """Take these tasks for recorded, by somebody else; return how many were not yet."""
        before = self._skipped
        for place in places:
            if not self._recorded[place]:
                self._recorded[place] = 1
                self._skipped += 1
        return self._skipped - before

    def is_recorded(self, place: int) -> bool:
        """Whether there is a task at a place that has its result."""
        return 0 <= place < len(self.tasks) and bool(self._recorded[place])

    def recorded(self) -> Iterator[int]:
        """Yield the places of the tasks that have their result, in order."""
        place = self._recorded.find(1)
        while place >= 0:
            yield place
            place = self._recorded.find(1, place + 1)

    def attempt(self, place: int) -> int:
        """Return the number of the present attempt at a task, from 1."""
        return self._attempts.get(place, 1)

    def tried(self, place: int, attempt: int) -> None:
        """This attempt has been made: by a worker, where a broker lies between, or in an earlier run."""
        if 0 <= place < len(self.tasks) and attempt > self.attempt(place):
            self._attempts[place] = attempt

    @property
    def earlier(self) -> Sequence[str]:
        """The ids of the runs that this one continues, the oldest first."""
        return list(self._earlier)

    def place_of(self, run: str, place: int) -> int | None:
        """Return the place here of a task of this or an earlier run; None: it is none of this run's."""
        if run != self.id:
            earlier = self._earlier.get(run)
            if earlier is None:
                return None
            if earlier.places is not None:
                place = earlier.places[place] if 0 <= place < len(earlier.places) else -1
        return place if 0 <= place < len(self.tasks) else None

    def left(self, run: str) -> Iterator[int]:
        """Yield the places here of tasks without result that an earlier run had given its broker.

        A task that had one until now is none of these: its report came.
        """
        for there in range(self._earlier[run].pushed):
            here = self.place_of(run, there)
            if here is not None and not self._recorded[here] and here not in self._again:
                yield here

    def item(self, place: int) -> tuple[Item, Sequence[Buffer]]:
        """Encode the task at a place for its journey; return it and its large buffers."""
        task = self.tasks[place]
        head, *buffers = codec.encode([task.function, task.params, task.kwargs])
        timeout = self.timeout if task.timeout is None else task.timeout
        item = Item(
            place, self.attempt(place), task.resources, timeout, task.memory, msgspec.Raw(head), len(buffers),
            self.retries if task.retries is None else task.retries,
        )  # fmt: skip
        return item, buffers

    def frame(self, places: Sequence[int]) -> bytes | None:
        """Encode many tasks as one message, without buffers: a tenth of the time that takes one by one.

        None: one has its result, or holds more than plain values, so that they are to be looked at singly.
        """
        if any(map(self._recorded.__getitem__, places)):
            return None
        tasks = [self.tasks[place] for place in places]
        params = chain.from_iterable([task.params for task in tasks])
        kwargs = [task.kwargs for task in tasks if task.kwargs]
        if not are_plain([*params, *kwargs]):
            return None
        attempt, timeout, retries = self._attempts.get, self.timeout, self.retries
        calls = [
            (
                place, attempt(place, 1), task.resources, timeout if task.timeout is None else task.timeout,
                task.memory, (task.function, task.params, task.kwargs), 0,
                retries if task.retries is None else task.retries, False,
            )
            for place, task in zip(places, tasks, strict=True)
        ]  # fmt: skip
        return encode_calls(self.id, calls)

    def accept_all(
        self,
        reports: Sequence[Report],
        buffers: Mapping[int, Sequence[Buffer]],
        *,
        worker: str | None = None,
        host: str | None = None,
    ) -> Accepted:
        """Take reports that came together, those with `buffers` by index; see `accept`.

        Nearly all are of a first attempt that went well, with a value that was read. These take a loop of
        their own, with nothing to decide in it: a sixth of the time.
        """
        accepted = Accepted([], [])
        take, usual = accepted.results.append, 0
        tasks, recorded, submitted, unset = self.tasks, self._recorded, self.submitted, msgspec.UNSET
        count = len(tasks) if set(map(type, reports)) == {ReadReport} and not self._superseded else 0
        for index, report in enumerate(reports):
            place = report.place
            if (
                report.attempt == 1 and report.status == "ok" and report.error is None
                and 0 <= place < count and not recorded[place]
            ):  # fmt: skip
                recorded[place] = 1
                usual += 1
                task = tasks[place]
                take(
                    Result(
                        task.id, task.function, task.params, task.kwargs, task.resources, "ok", report.value,
                        None, 1, worker, host, report.cores, submitted, report.started, report.finished,
                        report.stdout or unset, report.stderr or unset,
                    )
                )  # fmt: skip
                continue
            try:
                result = self.accept(report, buffers.get(index, ()), worker=worker, host=host)
            except BadFrame as bad:
                accepted.bad.append(bad)
                continue
            if result is not None:
                take(result)
        if usual:
            self.counts["ok"] = self.counts.get("ok", 0) + usual
        return accepted

    def accept(
        self,
        report: Report,
        buffers: Sequence[Buffer] = (),
        *,
        worker: str | None = None,
        host: str | None = None,
    ) -> Result | None:
        """Return the result to record, or None: another attempt is due (`attempt` grew), or it has one.

        Raises:
            BadFrame: the report is about no task of this run, or about an attempt that was not made.
        """
        place = report.place
        if not 0 <= place < len(self.tasks):
            raise BadFrame(f"a report about place {place} of {len(self.tasks)}")
        if report.attempt > self.attempt(place):
            raise BadFrame(
                f"a report about attempt {report.attempt} at place {place}, after {self.attempt(place)}"
            )
        if self._recorded[place]:
            return None
        if (report.started, report.finished) in self._superseded.get(place, ()):
            self.due.append(Due(place, suspect=False, alone=False))  # of what is to be run again
            return None
        status, value, error = report.status, None, None
        if status == "ok":
            try:
                value = report.read(buffers)
            except BadFrame as bad:
                status, error = "error", Error("BadFrame", f"the result could not be read: {bad}")
        if status != "ok" and report.attempt not in (0, self.attempt(place)):
            return None  # of an attempt that was given up meanwhile
        if report.error is not None:
            error = Error(*report.error)
        retries = self.retries if (own := self.tasks[place].retries) is None else own
        if tries_again(status, self.attempt(place), retries, error.type if error else ""):
            self._attempts[place] = self.attempt(place) + 1
            vanished = status == "lost"
            self.due.append(
                Due(place, vanished, vanished and not tries_again("lost", self.attempt(place), retries))
            )
            return None
        self._recorded[place] = 1
        self.counts[status] = self.counts.get(status, 0) + 1
        task = self.tasks[place]
        return Result(
            id=task.id,
            function=task.function,
            params=task.params,
            kwargs=task.kwargs,
            resources=task.resources,
            status=status,
            value=value,
            error=error,
            attempt=self.attempt(place) if status == "lost" else report.attempt,
            worker=worker,
            host=host,
            cores=report.cores,
            submitted=self.submitted,
            started=report.started,
            finished=report.finished,
            stdout=report.stdout or msgspec.UNSET,
            stderr=report.stderr or msgspec.UNSET,
        )

    def reject(self, place: int, reason: str) -> Result | None:
        """Return the result of a task that can never run, unless it has one."""
        return self.accept(Report(place, 0, "rejected", NIL, error=("TooWide", reason, "")))
