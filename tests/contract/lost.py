"""What every wire must do when a worker vanishes: one that is killed, and one that was only cut off."""

from __future__ import annotations

import copy
import json
import signal
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.contract.ends import Gathered, Place, task
from tests.contract.proxy import Proxy
from tests.contract.wires import Wire
from tests.e2e.scripts import Script, Scripts
from transports.base import DispatcherEnd

#: Seconds of silence after which a worker is gone here, and what a busy machine may take beyond them.
PATIENCE, A_LITTLE = 1.5, 6.0


class Crew:
    """A dispatcher's end in this process, and real workers, the first with a link that can be stalled."""

    def __init__(self, wire: Wire, scripts: Scripts, proxy: Proxy, place: Place) -> None:
        self.said: list[str] = []
        self.proxy = proxy
        self._scripts = scripts
        self._place = place
        self._first = copy.copy(place)
        self._first.reach = [proxy.address, *place.reach[1:]]
        if wire.workers_listen:
            place.reach = self._first.reach
        self._workers: list[Script] = []

    def dispatcher_end(self) -> DispatcherEnd:
        return self._place.dispatcher_end(self.said.append)

    def worker(self, name: str, cores: int = 1) -> Script:
        """Start the next worker."""
        index = len(self._workers)
        file = self._scripts.folder / f"{name}.json"
        file.write_text(json.dumps((self._place if index else self._first).worker(index)))
        started = self._scripts.worker("--yaml", file, "--cores", str(cores), "--no-pin", "--name", name)
        self._workers.append(started)
        return started

    def has_lost(self, name: str) -> bool:
        """Whether it was said that a worker is gone."""
        return any(line.startswith(f"worker {name} on ") and "is gone" in line for line in self.said)

    def has_begun(self, name: str, times: int = 1) -> bool:
        """Whether ``jobs.hold_each`` of that name was begun so many times."""
        return (self._scripts.folder / f"{name}.{times}.runs").exists()

    def let_end(self, name: str, *times: int) -> None:
        """Let those runs of ``jobs.hold_each`` of that name end."""
        for number in times:
            (self._scripts.folder / f"{name}.{number}.go").touch()

    @contextmanager
    def cut_off(self, how: str) -> Iterator[None]:
        """Keep the first worker from being heard, or from anything at all."""
        if how == "stalled":
            self.proxy.stall()
        else:
            self._workers[0].send(signal.SIGSTOP)
        yield
        if how == "stalled":
            self.proxy.heal()
        else:
            self._workers[0].send(signal.SIGCONT)

    def drain(self) -> None:
        """End those workers that live."""
        for worker in self._workers:
            if not worker.ended:
                worker.send(signal.SIGTERM)
        for worker in self._workers:
            assert worker.ends() in (0, 137), worker.log()


@contextmanager
def a_crew(wire: Wire, scripts: Scripts, count: int) -> Iterator[Crew]:
    """A dispatcher's end and up to `count` workers."""
    place = Place(wire, count, heartbeat=0.3, patience=PATIENCE)
    with Proxy(place.listen[0]) as proxy:
        yield Crew(wire, scripts, proxy, place)


class LosingWorkers:
    """The tests; `wire` and `scripts` are fixtures of the suite that these belong to."""

    def test_the_tasks_of_a_worker_that_was_killed_go_first_to_others(
        self, wire: Wire, scripts: Scripts
    ) -> None:
        calls = [task("held", function="jobs.hold_each")]
        calls += [task(0.1, function="time.sleep") for _ in range(400)]
        with a_crew(wire, scripts, 2) as crew, crew.dispatcher_end() as end:
            gathered = Gathered(end, calls)
            first = crew.worker("first")
            gathered.until(lambda: crew.has_begun("held"), "the first one runs")
            crew.let_end("held", 2)
            crew.worker("second")
            first.kill()
            gathered.until(lambda: crew.has_lost("first"), "it is noticed", PATIENCE + A_LITTLE)
            assert "first" not in {view.name for view in end.workers()}
            gathered.until(lambda: 0 in gathered.results, "it runs elsewhere", PATIENCE + 2 * A_LITTLE)
            assert len(gathered.results) < len(calls) - 10, "others that were in line went before it"
            wanted = set(range(len(calls))) - set(end.withdraw())
            gathered.until(lambda: wanted <= gathered.results.keys(), "what was begun by then")
            results = gathered.results
            assert {result.status for result in results.values()} == {"ok"}
            assert {result.worker for result in results.values()} == {"second"}
            assert results[0].value == 2
            assert [place for place, result in results.items() if result.attempt > 1] == [0]
        crew.drain()

    def test_after_its_last_attempt_a_task_is_lost(self, wire: Wire, scripts: Scripts) -> None:
        calls = [
            task("once", function="jobs.hold_each", retries=0),
            task("twice", function="jobs.hold_each", retries=1),
            task("spared", resources=3, retries=0),
        ]
        with a_crew(wire, scripts, 3) as crew, crew.dispatcher_end() as end:
            gathered = Gathered(end, calls)
            first = crew.worker("first", cores=2)
            gathered.until(lambda: crew.has_begun("once") and crew.has_begun("twice"), "two run")
            first.kill()
            gathered.until(lambda: 0 in gathered.results, "the one is lost")
            second = crew.worker("second", cores=2)
            gathered.until(lambda: crew.has_begun("twice", 2), "the other one runs again")
            second.kill()
            gathered.until(lambda: 1 in gathered.results, "it is lost, too")
            crew.worker("third", cores=3)
            results = gathered.all()
        assert [(result.status, result.attempt) for result in results] == [
            ("lost", 1),
            ("lost", 2),
            ("ok", 1),
        ]
        for result, worker in zip(results, ("first", "second"), strict=False):
            assert result.error is not None
            assert result.error.type == "Lost"
            assert worker in result.error.message
            assert crew.has_lost(worker)
        assert results[2].worker == "third"
        crew.drain()

    @pytest.mark.parametrize("how", ["frozen", "stalled"])
    def test_what_a_worker_that_was_cut_off_ended_counts_where_it_is_first(
        self, wire: Wire, how: str, scripts: Scripts
    ) -> None:
        calls = [task(name, function="jobs.hold_each") for name in ("early", "late")]
        calls.append(task("new", function="jobs.hold_each", resources=3))
        with a_crew(wire, scripts, 2) as crew, crew.dispatcher_end() as end:
            gathered = Gathered(end, calls)
            crew.worker("first", cores=3)
            gathered.until(lambda: crew.has_begun("early") and crew.has_begun("late"), "two run")
            with crew.cut_off(how):
                gathered.until(lambda: crew.has_lost("first"), "it is noticed", PATIENCE + A_LITTLE)
                crew.worker("second", cores=2)
                gathered.until(lambda: crew.has_begun("early", 2) and crew.has_begun("late", 2), "again")
                crew.let_end("late", 2)
                gathered.until(lambda: 1 in gathered.results, "the new one is first")
                crew.let_end("early", 1)
                crew.let_end("late", 1)
            gathered.until(lambda: 0 in gathered.results, "the old one is first")
            gathered.until(lambda: crew.has_begun("new"), "the one that was cut off is given new tasks")
            crew.let_end("early", 2)
            crew.let_end("new", 1)
            results = gathered.all()
        told = [(result.value, result.attempt, result.worker) for result in results]
        assert told == [(1, 1, "first"), (2, 2, "second"), (1, 1, "first")]
        crew.drain()
