"""The runs whose reports a dispatcher gathers: its own, and the earlier ones that it continues. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from executor.messages import Buffer, Holding, Report
from transports.base import Jobs
from transports.rabbitmq.topology import Topology


class Continued:
    """Knows which runs there are, and where their calls stand in `jobs`; `own` is the dispatcher's own run.

    Of an earlier run all is there for as long as its results queue is: its calls in line, in the hands of
    workers, and its reports. Without that queue the workers drop what they find of it.
    """

    def __init__(self, names: Topology, own: str, jobs: Jobs) -> None:
        self._own = own
        self._jobs = jobs
        self._queues = {names.results(run): run for run in [*jobs.earlier, own]}
        self._there: dict[str, bool | None] = dict.fromkeys(jobs.earlier)  # None: not known yet

    @property
    def known(self) -> bool:
        """Whether it is known of all earlier runs whether they are there."""
        return None not in self._there.values()

    def run_of(self, queue: str) -> str | None:
        """Return the run whose reports come in a queue; None if they are none of ours."""
        return self._queues.get(queue)

    def present(self) -> list[str]:
        """Return the runs that are there; the own one is the last."""
        return [*(run for run, there in self._there.items() if there), self._own]

    def all(self) -> list[str]:
        """Return these and those that are gone."""
        return [*self._there, self._own]

    def sought(self) -> list[str]:
        """Return the earlier runs that are there, or may be."""
        return [run for run, there in self._there.items() if there is not False]

    def found(self, run: str, there: bool) -> None:
        """An earlier run's results queue was looked for."""
        self._there[run] = there

    def left(self) -> Iterator[int]:
        """Yield the places here of what earlier runs, which are there, had pushed and not reported."""
        for run, there in self._there.items():
            if there:
                yield from self._jobs.left(run)

    def place_of(self, run: str, place: int) -> int | None:
        """Return the place here of a call of a run; None if it is none of these runs'."""
        return place if run == self._own else self._jobs.place_of(run, place)

    def translate(
        self, run: str, some: Sequence[Report], buffers: Mapping[int, list[Buffer]]
    ) -> tuple[list[Report], dict[int, list[Buffer]]]:
        """Return an earlier run's reports of tasks that are ours, with places here, and their buffers."""
        reports: list[Report] = []
        ours: dict[int, list[Buffer]] = {}
        for index, report in enumerate(some):
            place = self.place_of(run, report.place)
            if place is None:  # of a task that is none of ours any more
                continue
            report.place = place
            if index in buffers:
                ours[len(reports)] = buffers[index]
            reports.append(report)
        return reports, ours

    def is_recorded(self, place: int) -> bool:
        """Whether the call at a place here has its result."""
        return self._jobs.is_recorded(place)

    def places(self, holding: Holding) -> list[int]:
        """Return the places here of what a worker has; of a run that is gone it can report to nobody."""
        heard = {self._own, *self.sought()}
        found = [self.place_of(run, place) for run in holding if run in heard for place in holding[run]]
        return [place for place in found if place is not None]
