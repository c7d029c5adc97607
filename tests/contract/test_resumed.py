"""A dispatcher vanishes, and another continues its run: what the workers of a direct wire do meanwhile."""

from __future__ import annotations

import re
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from tests.contract.ends import Gathered, Place, StandIn, tasks
from tests.contract.suite import Contract
from tests.contract.wires import WIRES, Wire
from tests.e2e.scripts import Scripts, wait_until
from tests.e2e.scripts import task as record

pytestmark = pytest.mark.timeout(60)


@pytest.fixture(params=WIRES, ids=repr)
def wire(request: pytest.FixtureRequest) -> Wire:
    wire: Wire = request.param
    return wire


class Held:
    """Work that takes as long as the test wants: each call waits for `go`."""

    def __init__(self) -> None:
        self.go = threading.Event()
        self.begun = 0

    def __call__(self, params: list[Any]) -> Any:
        self.begun += 1
        assert self.go.wait(30)
        return params[0]


@contextmanager
def interrupted(place: Place) -> Iterator[tuple[StandIn, Gathered]]:
    """A worker that runs the sixth of twenty tasks when its dispatcher vanishes, and goes on.

    As long as it has patience it begins others, too, of those that it holds.
    """
    held = Held()

    def work(params: list[Any]) -> Any:
        return held(params) if params[0] == 5 else params[0]

    with StandIn(place, work=work) as worker:
        end = place.dispatcher_end()
        gathered = Gathered(end, tasks(20))
        gathered.until(lambda: held.begun, "the sixth begins")
        gathered.until(lambda: len(gathered.results) == 5, "five results")
        gathered.vanish()
        held.go.set()
        yield worker, gathered


def check(gathered: Gathered, worker: StandIn, count: int = 20) -> None:
    results = gathered.all()
    assert sorted(result.value for result in results) == list(range(count))
    assert {(result.status, result.attempt) for result in results} == {("ok", 1)}


@pytest.mark.parametrize("when", ["within its patience", "later"])
def test_a_run_that_continues_it_gets_what_a_worker_has(wire: Wire, when: str) -> None:
    place = Place(wire, **({"patience": 1.0} if when == "later" else {}))
    with interrupted(place) as (worker, first):
        if when == "later":
            wait_until(lambda: worker.left, "the worker knows that it lost its dispatcher")
            assert not worker.left[0].complete
            wait_until(lambda: list(worker.unclaimed) == [first.run.id], "its results are kept")
        other_way = first.run.tasks[::-1]
        with place.dispatcher_end() as end:
            end.paused = True
            second = Gathered(end, other_way, after=first)
            second.until(lambda: 14 in second.results, "what the worker had")
            assert second.results[14].value == 5
            end.paused = False
            check(second, worker)
        wait_until(lambda: worker.left and worker.left[-1].complete, "the worker knows that all is over")
        assert not worker.unclaimed
    assert len(worker.did) == 20, "each ran once"


def test_a_strangers_run_in_between_is_served_and_gets_nothing_of_it(wire: Wire) -> None:
    place = Place(wire, patience=2.0)
    said: list[str] = []
    with interrupted(place) as (worker, first):
        with place.dispatcher_end(said.append) as end:
            stranger = Gathered(end, tasks(7))
            check(stranger, worker, 7)
            assert not said
        wait_until(lambda: list(worker.unclaimed) == [first.run.id], "the first run's result is kept")
        with place.dispatcher_end() as end:
            check(Gathered(end, first.run.tasks, after=first), worker)
    assert len(worker.did) == 27


def test_one_that_continues_a_continued_run_gets_what_is_left_of_both(wire: Wire) -> None:
    place = Place(wire, patience=1.0)
    with interrupted(place) as (worker, first):
        wait_until(lambda: list(worker.unclaimed) == [first.run.id], "the first run's result is kept")
        second = Gathered(place.dispatcher_end(), first.run.tasks[::-1], after=first)
        second.end.paused = True
        wait_until(lambda: second.end.results(0.1) and len(worker.runs) == 2, "it came, and is unrecorded")
        second.vanish()
        wait_until(lambda: list(worker.unclaimed) == [first.run.id], "it is kept again, as the first run's")
        with place.dispatcher_end() as end:
            check(Gathered(end, first.run.tasks, after=second), worker)
    assert len(worker.did) == 20


@pytest.mark.parametrize(
    ("keep", "why"),
    [
        ({"seconds": 1}, "nobody continued it within 1 s"),
        ({"bytes": "100"}, "more than 100 bytes would be kept"),
        ({"seconds": 0}, "nothing is kept"),
    ],
)
def test_what_is_kept_is_bounded_and_its_end_is_said(wire: Wire, keep: dict[str, Any], why: str) -> None:
    place = Place(wire, patience=1.0, keep=keep)
    with interrupted(place) as (worker, first):
        line = re.compile(rf"dropped \d+ results? of run {first.run.id}: {why}")
        wait_until(lambda: any(map(line.match, worker.said)), "it says so")
        wait_until(lambda: not worker.unclaimed, "nothing is kept")
        with place.dispatcher_end() as end:
            check(Gathered(end, first.run.tasks, after=first), worker)
    assert worker.did.count(5) == 2


def test_the_worker_says_what_it_keeps(wire: Wire, scripts: Scripts) -> None:
    """And one that was to serve one run waits for who continues it, until it is told to end."""
    own, (each, *_) = Contract().yaml(
        scripts, Place(wire, heartbeat=0.2, patience=1.0, keep={"seconds": 7200})
    )
    worker = scripts.worker("--yaml", each, "--cores", "1", "--once")
    held = scripts.tasks(record("jobs.hold", "held"), record("jobs.echo", 1))
    dispatcher = scripts.dispatcher("--yaml", own, "--tasks", held)
    wait_until((scripts.folder / "held.runs").exists)
    dispatcher.kill()
    worker.says("is left: it has been silent for 1 s; 0 results sent")
    worker.says("in case it is resumed: 1 task that still runs")
    (scripts.folder / "held.go").touch()
    time.sleep(0.5)  # there is nothing to wait for: it just must not end
    assert not worker.ended
    worker.send(signal.SIGTERM)
    assert worker.ends() == 0
    assert worker.says("dropped 1 result of run")


def test_once_is_over_when_nothing_is_kept_any_more(wire: Wire, scripts: Scripts) -> None:
    own, (each, *_) = Contract().yaml(scripts, Place(wire, heartbeat=0.2, patience=1.0, keep={"seconds": 1}))
    worker = scripts.worker("--yaml", each, "--cores", "1", "--once")
    dispatcher = scripts.dispatcher("--yaml", own, "--tasks", scripts.tasks(record("jobs.hold", "held")))
    wait_until((scripts.folder / "held.runs").exists)
    dispatcher.kill()
    worker.says("for 1 s")
    (scripts.folder / "held.go").touch()
    assert worker.ends() == 0
    assert "dropped 1 result" in worker.stderr


def test_the_scripts_take_what_a_worker_kept(wire: Wire, scripts: Scripts) -> None:
    """A dispatcher is killed while a task runs; resumed, it has that task's result, which ran once."""
    own, (each, *_) = Contract().yaml(scripts, Place(wire, heartbeat=0.2, patience=1.0))
    worker = scripts.worker("--yaml", each, "--cores", "1", "--once")
    calls = [record("jobs.echo", 1, id="before"), record("jobs.hold", "held", id="held")]
    calls.append(record("jobs.echo", 2, id="after"))
    options = ["--yaml", own, "--tasks", scripts.tasks(*calls), "--output", "results.jsonl"]
    dispatcher = scripts.dispatcher(*options)
    wait_until((scripts.folder / "held.runs").exists)
    process = (scripts.folder / "held.runs").read_text()
    dispatcher.kill()
    worker.says("is left")
    (scripts.folder / "held.go").touch()
    scripts.run(*options, "--resume")
    found = scripts.by_id()
    assert {key: (each["status"], each["attempt"]) for key, each in found.items()} == dict.fromkeys(
        ("before", "held", "after"), ("ok", 1)
    )
    assert (scripts.folder / "held.runs").read_text() == process, "it ran again"
    assert worker.ends() == 0
    assert "dropped" not in worker.stderr
