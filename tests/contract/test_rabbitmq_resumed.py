"""Runs on RabbitMQ that another continues: what the broker and the workers have of them is taken."""

from __future__ import annotations

import json
import math
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from pika.exceptions import ChannelClosedByBroker

from executor.history import RUNS
from executor.messages import introduce
from executor.run import Earlier, Run, Span
from executor.task import Task
from tests.contract.conftest import start_rabbitmq
from tests.contract.ends import Gathered, Place, StandIn, are_in_order, task, tasks
from tests.contract.proxy import Proxy
from tests.contract.rabbit import RabbitMQ as Broker
from tests.contract.runs import Runs, echoes, holds
from tests.contract.wires import RabbitMQ
from tests.e2e.scripts import task as record
from tests.e2e.scripts import wait_until
from transports.base import DispatcherEnd
from transports.rabbitmq import pushing
from transports.rabbitmq.pushing import Pushing
from transports.rabbitmq.telling import TELL, Telling

pytestmark = pytest.mark.timeout(120)


@pytest.fixture
def wire(rabbitmq_url: str) -> RabbitMQ:
    return RabbitMQ(rabbitmq_url)


class Work:
    """What workers do: they count executions, by task, and hold calls of numbers from `go` on.

    Each takes some `seconds`. Of calls that take no time they fetch hundreds ahead, and few wait in line.
    """

    def __init__(self, seconds: float = 0.0) -> None:
        self.counts: Counter[int] = Counter()
        self.go = 10**9
        self._seconds = seconds

    def __call__(self, params: list[Any]) -> Any:
        time.sleep(self._seconds)
        self.counts[params[0]] += 1
        return params[0]

    def worker(self, place: Place, index: int = 0, cores: int = 1) -> StandIn:
        return StandIn(place, index, cores=cores, work=self, waits=lambda params: params[0] >= self.go)


def waiting(wire: RabbitMQ, queue: str) -> int | None:
    """How many messages wait in a queue of ours; None if there is none of that name."""
    with wire.channel() as channel:
        try:
            count: int = channel.queue_declare(f"{wire.queue}.{queue}", passive=True).method.message_count
        except ChannelClosedByBroker:
            return None
        return count


def all_pushed(gathered: Gathered) -> None:
    gathered.until(lambda: gathered.end.pushed == len(gathered.run.tasks), "all is pushed")


def left_behind(gathered: Gathered, until: Callable[[], object] = lambda: True) -> Gathered:
    """Have the dispatcher of a run die once something holds; return the run."""
    gathered.until(until, "what comes before its death")
    gathered.pushed = gathered.end.pushed  # as its history has it
    gathered.end.resumable = True  # that is: it closes as if it had died
    gathered.end.close()
    return gathered


class Resumed(Gathered):
    """A run that continues others; `places` are its tasks' places, by those in the last of them."""

    def __init__(
        self,
        end: DispatcherEnd,
        some: list[Task],
        *before: Gathered,
        places: list[int] | None = None,
        **options: Any,
    ) -> None:
        self.end = end
        self.results = {}
        self.pushed = 0
        earlier = [Earlier(each.run.id, pushed=each.pushed) for each in before[:-1]]
        earlier.append(Earlier(before[-1].run.id, places, before[-1].pushed))
        self.run = Run(some, earlier=earlier, **options)
        for each in before:
            found = [self.run.place_of(each.run.id, place) for place in each.results]
            self.run.skip(place for place in found if place is not None)
        end.push(self.run)

    def catch_up(self, before: Gathered) -> None:
        """Gather what came while no dispatcher was there (`half_done`)."""
        self.until(lambda: len(before.results) + len(self.results) >= 60, "what came meanwhile")

    def finish(self) -> None:
        self.until(lambda: not self.run.unrecorded, "the rest of the results", 60.0)
        assert {place: result.value for place, result in self.results.items()} == {
            place: self.run.tasks[place].params[0] for place in self.results
        }
        assert {result.status for result in self.results.values()} <= {"ok"}


SHORT = {"heartbeat": 0.2, "patience": 1.0}


#: Seconds that a call takes of which a worker has few in hand.
SLOW = 0.03


def half_done(place: Place, work: Work, some: list[Task]) -> Gathered:
    """Return a run that is all in the broker, with some results recorded, and some that come meanwhile."""
    work.go = 30
    gathered = Gathered(place.dispatcher_end(), some)
    left_behind(gathered, lambda: len(gathered.results) >= 20 and gathered.end.pushed == len(some))
    work.go = 60
    wait_until(lambda: work.counts[59], "others are done while no dispatcher is there")
    return gathered


def test_what_broker_and_workers_have_is_taken_and_runs_once(wire: RabbitMQ) -> None:
    place, work, some = Place(wire), Work(), tasks(600)  # three calls in a message
    with work.worker(place) as worker:
        before = half_done(place, work, some)
        with place.dispatcher_end() as end:
            resumed = Resumed(end, some, before)
            resumed.catch_up(before)
            assert end.pushed == 600, "all is in the broker, or recorded"
            resumed.until(end.workers, "the worker")
            assert len(end.workers()) == 1
            resumed.until(lambda: end.workers()[0].held > 0, "what it has of the earlier run counts as ours")
            work.go = 600
            resumed.finish()
        assert work.counts == dict.fromkeys(range(600), 1)
        assert worker.runs == [before.run.id]
        wait_until(lambda: worker.left, "the worker knows that the run is over")
    for run in (before.run.id, resumed.run.id):
        assert waiting(wire, f"results.{run}") is None


def test_what_is_delivered_twice_and_in_any_order_is_recorded_once(wire: RabbitMQ) -> None:
    draw = random.Random(5)

    def deliver_twice(queue: str) -> None:
        """Put each message of a queue into it twice, in another order."""
        with wire.channel() as channel:
            found = []
            while (got := channel.basic_get(f"{wire.queue}.{queue}", auto_ack=True))[0] is not None:
                found += [got, got]
            draw.shuffle(found)
            for _, properties, body in found:
                channel.basic_publish("", f"{wire.queue}.{queue}", body, properties)
        # What the worker reported last may come to it meanwhile.
        wait_until(lambda: (waiting(wire, queue) or 0) >= len(found) > 0, f"all is in {queue} again")

    place, work, some = Place(wire), Work(), tasks(600)
    before = Gathered(place.dispatcher_end(), some)
    all_pushed(before)
    left_behind(before)
    deliver_twice("1")
    with work.worker(place):
        wait_until(lambda: waiting(wire, "1") == 0 and len(work.counts) == 600, "all is done")
        wait_until(lambda: waiting(wire, f"results.{before.run.id}"), "there are reports")
    deliver_twice(f"results.{before.run.id}")
    with work.worker(place), place.dispatcher_end() as end:
        resumed = Resumed(end, some, before)
        resumed.finish()
    assert len(resumed.results) == 600


def test_what_was_not_pushed_is_and_nothing_is_twice(wire: RabbitMQ, monkeypatch: pytest.MonkeyPatch) -> None:
    place, work, some = Place(wire), Work(), [*tasks(300), *tasks(300, resources=2)]
    go_on = Pushing.go_on

    def pause_in_the_middle(self: Pushing) -> None:
        go_on(self)
        first.paused = first.paused or self.safe > 100

    monkeypatch.setattr(pushing, "WINDOW", 5)
    monkeypatch.setattr(Pushing, "go_on", pause_in_the_middle)
    first = place.dispatcher_end()
    gathered = Gathered(first, some)
    gathered.until(lambda: first.paused, "it pauses")
    gathered.until(lambda: not first._pushing._unsafe, "what was on its way is there")  # type: ignore[attr-defined]
    pushed = first.pushed
    gathered.turn(0.3)
    assert 100 < first.pushed == pushed < 300, "it pushes while it is paused"
    monkeypatch.undo()
    before = left_behind(gathered)
    with place.dispatcher_end() as end:
        end.paused = True
        resumed = Resumed(end, some, before)
        resumed.turn(1.0)
        assert end.pushed == 0
        end.paused = False
        all_pushed(resumed)
        with work.worker(place, cores=2) as worker:
            resumed.finish()
    assert Counter(worker.runs) == {before.run.id: 1, resumed.run.id: 1}
    first_done = worker.did[:pushed]
    assert are_in_order(first_done)
    # What was delivered as its subscription ended, which may be a message of many, comes a moment later.
    others = sum(place >= pushed for place in first_done)
    assert others < pushed / 2, "what is of the earlier run is first in line"
    assert Counter(worker.did) == Counter(range(600))


def test_tasks_that_moved_came_and_went_in_between(wire: RabbitMQ) -> None:
    place, work, first = Place(wire), Work(), tasks(100)
    work.go = 20
    with work.worker(place):
        before = Gathered(place.dispatcher_end(), first)
        left_behind(before, lambda: len(before.results) >= 10 and before.end.pushed == 100)
        # The first forty are none of ours any more, the rest stands the other way round, and ten are new.
        new = [task(number) for number in range(1000, 1010)]
        second = [*new[:5], *reversed(first[40:]), *new[5:]]
        places = [-1] * 40 + [5 + 59 - index for index in range(60)]
        work.go = 10**9
        with place.dispatcher_end() as end:
            resumed = Resumed(end, second, before, places=places)
            resumed.finish()
            assert sorted(resumed.results) == list(range(70))
    assert {number: count for number, count in work.counts.items() if count > 1} == {}


def test_a_run_continues_one_that_continued_another(wire: RabbitMQ) -> None:
    place, work, some = Place(wire), Work(), tasks(200)
    work.go = 20
    with work.worker(place):
        first = Gathered(place.dispatcher_end(), some)
        left_behind(first, lambda: first.end.pushed == 200)
        second = Resumed(place.dispatcher_end(), some, first)
        work.go = 50
        left_behind(second, lambda: len(second.results) >= 30)
        assert second.pushed == 200
        work.go = 200
        with place.dispatcher_end() as end:
            third = Resumed(end, some, first, second)
            third.finish()
    assert work.counts == dict.fromkeys(range(200), 1)


def test_a_failure_that_is_retried_and_comes_again_runs_once_more_and_no_more(wire: RabbitMQ) -> None:
    """It was recorded and set aside; its dispatcher died before the broker could forget the report."""
    place, some = Place(wire), tasks(20)
    counts: Counter[int] = Counter()

    def work(params: list[Any]) -> Any:
        counts[params[0]] += 1
        if counts[params[0]] == 1:
            raise ValueError("the first time")
        return params[0]

    before = Gathered(place.dispatcher_end(), some)
    spans: dict[int, set[Span]] = {}
    with StandIn(place, work=work):
        while len(spans) < 20:
            for delivery in before.end.results(1.0):  # none is acknowledged
                for report in delivery.reports:
                    spans[report.place] = {(report.started, report.finished)}
    left_behind(before)
    with place.dispatcher_end() as end:
        resumed = Resumed(end, some, before, superseded=spans, again=range(20))
        all_pushed(resumed)
        resumed.turn(0.5)  # all that had come comes again
        with StandIn(place, work=work):
            resumed.finish()
            resumed.turn(0.3)
    assert counts == dict.fromkeys(range(20), 2)


def test_a_run_whose_time_was_over_is_pushed_anew(wire: RabbitMQ) -> None:
    place, work, some = Place(wire), Work(), tasks(100)
    before = Gathered(place.dispatcher_end(), some)
    left_behind(before, lambda: before.end.pushed == 100)
    with wire.channel() as channel:
        channel.queue_delete(f"{wire.queue}.results.{before.run.id}")
    with work.worker(place) as worker, place.dispatcher_end() as end:
        resumed = Resumed(end, some, before)
        resumed.finish()
    assert work.counts == dict.fromkeys(range(100), 1)
    assert worker.runs == [resumed.run.id]


def test_an_earlier_run_that_somebody_deletes_is_pushed_anew(wire: RabbitMQ) -> None:
    place, work, some = Place(wire), Work(), tasks(100)
    said: list[str] = []
    with work.worker(place):
        before = half_done(place, work, some)
        with place.dispatcher_end(said.append) as end:
            resumed = Resumed(end, some, before)
            resumed.catch_up(before)
            with wire.channel() as channel:
                channel.queue_delete(f"{wire.queue}.results.{before.run.id}")
            resumed.until(lambda: said, "it is said")
            work.go = 10**9
            resumed.finish()
    assert "the broker has lost 40 tasks; pushed again" in said
    assert set(work.counts) == set(range(100))


@pytest.mark.parametrize("how", ["purged", "deleted"])
def test_what_the_broker_has_lost_is_pushed_again(wire: RabbitMQ, how: str) -> None:
    place, work, some = Place(wire, **SHORT), Work(SLOW), tasks(100)
    work.go = 10
    said: list[str] = []
    with work.worker(place), place.dispatcher_end(said.append) as end:
        gathered = Gathered(end, some)
        gathered.until(lambda: len(gathered.results) == 10, "it stands at a call")
        all_pushed(gathered)
        lose(wire, "1", how)
        work.go = 10**9
        results = gathered.all(60.0)
    assert {result.status for result in results} == {"ok"}
    lost = [line for line in said if "the broker has lost" in line]
    assert len(lost) == 1, said
    assert set(work.counts) == set(range(100))


def test_what_the_broker_has_lost_of_an_earlier_run_is_pushed_as_ours(wire: RabbitMQ) -> None:
    place, work, some = Place(wire, **SHORT), Work(SLOW), tasks(100)
    said: list[str] = []
    with work.worker(place):
        before = half_done(place, work, some)
        lose(wire, "1", "deleted")  # while nobody looks
        work.go = 10**9
        with place.dispatcher_end(said.append) as end:
            resumed = Resumed(end, some, before)
            resumed.finish()
    assert any("the broker has lost" in line for line in said), said
    assert set(work.counts) == set(range(100))


@contextmanager
def mute() -> Iterator[None]:
    """Let nobody hear that calls are in line: the connection breaks, or its dispatcher dies, just before."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Telling, "tell", lambda telling, now: setattr(telling, "due", math.inf))
        yield


def test_workers_that_were_not_told_of_calls_are_told_once_these_are_seen_to_wait(wire: RabbitMQ) -> None:
    place, work = Place(wire, **SHORT), Work()
    with work.worker(place), place.dispatcher_end() as end:
        wait_until(lambda: end.results(0.1) or end.workers(), "a worker is there")
        with mute():
            gathered = Gathered(end, tasks(10))
            all_pushed(gathered)
            gathered.turn(2 * TELL)
        assert {result.status for result in gathered.all()} == {"ok"}


def test_who_continues_a_run_tells_workers_of_its_calls(wire: RabbitMQ) -> None:
    place, work, some = Place(wire, heartbeat=0.2, patience=60.0), Work(), tasks(10)
    with work.worker(place):
        end = place.dispatcher_end()
        wait_until(lambda: end.results(0.1) or end.workers(), "a worker is there")
        with mute():
            before = Gathered(end, some)
            left_behind(before, lambda: end.pushed == len(some))
        with place.dispatcher_end() as end:
            resumed = Resumed(end, some, before)
            resumed.all()
    assert work.counts == Counter(range(10))


def lose(wire: RabbitMQ, queue: str, how: str) -> None:
    with wire.channel() as channel:
        if how == "purged":
            channel.queue_purge(f"{wire.queue}.{queue}")
        else:
            channel.queue_delete(f"{wire.queue}.{queue}")


def test_what_a_dead_worker_had_is_not_taken_for_lost(wire: RabbitMQ) -> None:
    """It takes its time to come back; pushed again as well, it would run twice."""
    place, behind, work = Place(wire, **SHORT), Place(wire, **SHORT), Work(SLOW)
    work.go = 10
    said: list[str] = []
    with Proxy(place.listen[0]) as proxy, place.dispatcher_end(said.append) as end:
        behind.reach = [proxy.address]
        with work.worker(behind):
            gathered = Gathered(end, tasks(11))
            gathered.until(lambda: len(gathered.results) == 10, "it stands at the last call")
            gathered.until(lambda: [view.held for view in end.workers()] == [1], "which it tells")
            proxy.stall()  # for good, and without a word: the broker has to find out
            gathered.until(lambda: any("is gone" in line for line in said), "it is missed")
            with StandIn(place, 1) as saver:
                results = gathered.all(60.0)
            proxy.heal()
    assert [result.attempt for result in results] == [*[1] * 10, 2]
    assert saver.did == [10]
    assert not any("lost" in line for line in said), said


def test_runs_that_share_queues_find_what_each_has_lost(wire: RabbitMQ) -> None:
    place, work = Place(wire, **SHORT), Work(SLOW)
    work.go = 5
    with work.worker(place), place.dispatcher_end() as one, place.dispatcher_end() as other:
        both = [Gathered(one, tasks(50)), Gathered(other, tasks(70))]
        wait_until(
            lambda: [gathered.turn(0.05) for gathered in both] and [one.pushed, other.pushed] == [50, 70],
            "all is pushed",
        )
        lose(wire, "1", "purged")
        work.go = 10**9

        def done() -> bool:
            for gathered in both:
                gathered.turn(0.05)
            return not any(gathered.run.unrecorded for gathered in both)

        wait_until(done, "both are whole")
    for gathered in both:
        assert [gathered.results[at].value for at in sorted(gathered.results)] == [
            task.params[0] for task in gathered.run.tasks
        ]


def test_a_strangers_run_is_never_mixed_with_one_that_is_resumed(wire: RabbitMQ) -> None:
    place, work, some = Place(wire), Work(), tasks(100)
    strange = [task(number) for number in range(-40, 0)]
    with work.worker(place) as worker:
        before = half_done(place, work, some)
        with place.dispatcher_end() as end, place.dispatcher_end() as other:
            stranger = Gathered(other, strange)
            resumed = Resumed(end, some, before)
            work.go = 10**9

            def done() -> bool:
                stranger.turn(0.02)
                resumed.turn(0.02)
                return not stranger.run.unrecorded and not resumed.run.unrecorded

            wait_until(done, "both are whole")
            resumed.finish()
    assert [stranger.results[at].value for at in range(40)] == list(range(-40, 0))
    assert set(worker.runs) == {before.run.id, stranger.run.id}
    assert set(work.counts.values()) == {1}


# -- the broker itself


@pytest.fixture(scope="module")
def broker() -> Iterator[Broker]:
    """A broker that these tests may kill."""
    server = start_rabbitmq()
    yield server
    server.close()


@pytest.fixture
def own(broker: Broker) -> RabbitMQ:
    """The wire to the broker that may be killed."""
    return RabbitMQ(broker.url)


def test_the_broker_is_killed_while_no_dispatcher_is_there(broker: Broker, own: RabbitMQ) -> None:
    place, work, some = Place(own, patience=60.0), Work(), tasks(300)
    with work.worker(place) as worker:
        before = half_done(place, work, some)
        broker.kill()
        wait_until(lambda: any("can't reach RabbitMQ" in line for line in worker.said), "it is missed")
        broker.start()
        with place.dispatcher_end() as end:
            resumed = Resumed(end, some, before)
            work.go = 10**9
            resumed.finish()
    assert set(work.counts) == set(range(300))
    # What was on its way from the line into a worker's hands may be in both when the broker dies.
    assert work.counts.total() <= 300 + 2


def test_the_brokers_data_are_wiped_while_the_run_goes_on(broker: Broker, own: RabbitMQ) -> None:
    place, work, some = Place(own, **SHORT), Work(), tasks(300)
    said: list[str] = []
    with work.worker(place):
        before = half_done(place, work, some)
        with place.dispatcher_end(said.append) as end:
            resumed = Resumed(end, some, before)
            resumed.catch_up(before)
            work.go = 120
            for command in ("stop_app", "reset", "start_app"):
                broker.control(command)
                resumed.turn()
            work.go = 10**9
            resumed.finish()
    assert any("the broker has lost" in line and "pushed again" in line for line in said), said
    assert set(work.counts) == set(range(300))


# -- the scripts


def test_a_collector_finds_what_the_broker_has_lost(runs: Runs) -> None:
    runs.detach(*echoes(50))
    with runs.wire.channel() as channel:
        channel.queue_purge(f"{runs.wire.queue}.1")
    worker = runs.worker()
    collected = runs.collect()
    assert "the broker has lost 50 tasks; pushed again" in collected.stderr
    assert {key: result["value"] for key, result in runs.scripts.by_id().items()} == {
        str(number): number for number in range(50)
    }
    runs.nothing_is_left()
    runs.drain(worker)


def counted(count: int, seconds: float) -> list[dict[str, Any]]:
    """Return tasks that last so long, each of which returns how often it was begun."""
    return [record("jobs.count", f"count-{number}", seconds, id=f"c{number}") for number in range(count)]


def recorded(runs: Runs, output: str = "r.jsonl") -> list[dict[str, Any]]:
    return runs.scripts.results(output) if (runs.folder / output).exists() else []


def noted(runs: Runs, count: int) -> None:
    """Wait until it is noted that so many tasks are with the broker."""
    notes = runs.folder / "r.jsonl.d" / RUNS
    wait_until(
        lambda: f'"pushed":{count}' in notes.read_text().replace(" ", ""), "it is noted what was pushed"
    )


def test_a_dispatcher_is_killed_and_its_run_resumed(runs: Runs) -> None:
    worker = runs.worker(2)
    # Two hold the rest up until the first dispatcher is dead.
    some = [*counted(20, 0.1), *holds(2), *counted(80, 0.1)[20:]]
    arguments = ["--tasks", runs.scripts.tasks(*some), "--output", "r.jsonl"]
    first = runs.dispatcher(*arguments)
    wait_until(lambda: len(recorded(runs)) >= 10, "some results")
    noted(runs, 82)
    first.kill()
    before = len(recorded(runs))
    for number in range(2):
        runs.runs(f"held-{number}").touch()
    id_ = worker.says("serving run").rpartition(" ")[2]
    wait_until(lambda: (runs.waiting(f"results.{id_}") or 0) > 3, "more is done while no dispatcher is there")
    second = runs.run(*arguments, "--resume")
    found = recorded(runs)
    assert len(found) == 82
    assert before < 60, "the first did nearly all"
    values = {result["id"]: result["value"] for result in found if result["id"].startswith("c")}
    assert values == {f"c{at}": 1 for at in range(80)}, second.log()
    assert runs.waiting(f"results.{id_}") is None
    runs.drain(worker)
    runs.no_call_waits()


def test_of_a_run_of_which_all_is_recorded_nothing_stays_with_the_broker(runs: Runs) -> None:
    """It was killed when the last line was written, and nobody had been told yet."""
    worker = runs.worker(2)
    arguments = [
        "--tasks",
        runs.scripts.tasks(*holds(1), *(record("jobs.echo", at, id=f"e{at}") for at in range(5))),
        "--output",
        "r.jsonl",
    ]
    first = runs.dispatcher(*arguments)
    go = runs.runs("held-0")
    wait_until(lambda: len(recorded(runs)) >= 5, "all but one")
    first.kill()
    id_ = worker.says("serving run").rpartition(" ")[2]
    go.touch()
    runs.id = id_  # those that the dead one had not acknowledged come again
    wait_until(lambda: 0 in runs.reported(), "the last is done")
    path = runs.folder / "r.jsonl"
    last = {**recorded(runs)[-1], **record("jobs.hold", "held-0", id="0"), "value": "held-0"}
    path.write_text(path.read_text() + json.dumps(last) + "\n")
    again = runs.run(*arguments, "--resume")
    assert "nothing to run" in again.stderr
    assert runs.waiting(f"results.{id_}") is None
    runs.drain(worker)
    runs.no_call_waits()


def test_what_had_failed_and_is_retried_is_not_taken_for_what_the_broker_has(runs: Runs) -> None:
    worker = runs.worker(1)
    # Not too short: of tiny calls a worker takes many out of line.
    failing = [record("jobs.flaky", f"marker-{number}", 0.05, id=f"f{number}") for number in range(5)]
    arguments = ["--tasks", runs.scripts.tasks(*failing, *holds(1)), "--output", "r.jsonl"]
    first = runs.dispatcher(*arguments)
    runs.runs("held-0")
    wait_until(lambda: len(recorded(runs)) == 5, "all have failed")
    noted(runs, 6)
    first.kill()
    second = runs.dispatcher(*arguments, "--retry-failed")
    wait_until(lambda: runs.waiting("1") == 5, "they are pushed, and nothing else")
    runs.runs("held-0").touch()
    assert second.ends() == 0, second.log()
    assert "lost" not in second.stderr
    assert {result["id"]: result["status"] for result in recorded(runs)} == dict.fromkeys(
        [*(f"f{number}" for number in range(5)), "0"], "ok"
    )
    runs.drain(worker)


def test_a_run_whose_worker_went_and_whose_tasks_moved_is_resumed(runs: Runs) -> None:
    worker = runs.worker(1)
    first = runs.dispatcher(
        "--tasks", runs.scripts.tasks(*holds(3), *counted(10, 0.0)), "--output", "r.jsonl"
    )
    runs.runs("held-0").touch()
    runs.runs("held-1")
    wait_until(lambda: len(recorded(runs)) == 1, "a result")
    noted(runs, 13)
    first.kill()
    worker.kill()
    for number in (1, 2):
        (runs.folder / f"held-{number}.go").touch()
    tasks = runs.scripts.tasks(*reversed([*holds(3), *counted(12, 0.0)]))
    second = runs.dispatcher("--tasks", tasks, "--order", "file", "--output", "r.jsonl", "--resume")
    last = runs.worker(1)
    assert second.ends() == 0, second.log()
    found = {result["id"]: result for result in recorded(runs)}
    assert len(recorded(runs)) == len(found) == 15
    assert {result["status"] for result in found.values()} == {"ok"}
    assert [found[str(number)]["attempt"] for number in range(2)] == [1, 2]
    assert {found[f"c{number}"]["value"] for number in range(12)} == {1}, "nothing ran twice"
    runs.drain(last)


def test_a_run_that_ends_while_its_link_is_down_is_removed_all_the_same(wire: RabbitMQ) -> None:
    place, behind = Place(wire), Place(wire)
    with Proxy(place.listen[0]) as proxy, StandIn(place):
        behind.listen = behind.reach = [proxy.address]
        with behind.dispatcher_end() as end:
            gathered = Gathered(end, tasks(10))
            gathered.all()
            proxy.cut()
            gathered.until(lambda: not end._outage.opened, "it is cut off")  # type: ignore[attr-defined]
            proxy.heal()
    assert waiting(wire, f"results.{gathered.run.id}") is None


def test_workers_that_end_in_peace_while_they_are_missed_break_nothing(wire: RabbitMQ) -> None:
    place = Place(wire)
    said: list[str] = []
    hello = introduce("here", 1)
    with place.dispatcher_end(said.append) as end:
        gathered = Gathered(end, tasks(10))
        with StandIn(place, hello=hello):
            gathered.all()
            gathered.until(end.workers, "it is known")
        generation = end._listening  # type: ignore[attr-defined]
        end._presence.meet(hello, time.monotonic())  # type: ignore[attr-defined] # as if its goodbye had not come
        end.worker_died(hello.pid)
        gathered.until(lambda: not end._reaping, "it has looked for its queues")  # type: ignore[attr-defined]
        assert end._listening == generation, "the connection broke over a queue that is gone"  # type: ignore[attr-defined]
