"""Runs on RabbitMQ that were stopped: nothing of them ever runs again."""

from __future__ import annotations

import signal
import threading

import psutil
import pytest

from tests.contract.ends import Gathered, Place, StandIn, tasks
from tests.contract.proxy import Proxy
from tests.contract.runs import NAME, Runs, echoes, holds, one_line
from tests.contract.wires import RabbitMQ
from tests.e2e.scripts import Scripts, wait_until


def test_a_run_that_is_cancelled_never_runs_again(runs: Runs) -> None:
    runs.detach(*holds(20))
    worker = runs.worker(2)
    running = [
        psutil.Process(int((runs.runs(name).with_suffix(".runs")).read_text()))
        for name in ("held-0", "held-1")
    ]
    said = runs.run("--cancel", NAME)
    assert f"run {NAME} is cancelled" in one_line(said)
    wait_until(lambda: not any(process.is_running() for process in running), "what ran is killed")
    runs.nothing_is_left()
    runs.never_again(worker, 2)
    for option in ("--collect", "--cancel"):
        assert "there is no run of that name" in one_line(runs.run(option, NAME, status=2))


def test_a_run_that_is_cancelled_before_any_worker_came_never_runs(runs: Runs) -> None:
    runs.detach(*holds(3))
    runs.run("--cancel", NAME)
    runs.never_again(runs.worker(2), 0)


def test_a_run_is_none_of_an_earlier_one_of_its_name(runs: Runs) -> None:
    runs.detach(*holds(3))
    runs.run("--cancel", NAME)
    runs.detach(*echoes(3))
    worker = runs.worker(2)
    runs.collect()
    assert {key: result["value"] for key, result in runs.scripts.by_id().items()} == {"0": 0, "1": 1, "2": 2}
    runs.detach(*echoes(2))  # nor does the worker take it for one that is over
    runs.collect(output="next.jsonl")
    runs.never_again(worker, 0)


def test_cancelling_a_run_ends_who_collects_it(runs: Runs) -> None:
    runs.detach(*holds(4))  # of which two never begin
    runs.worker(2)
    collector = runs.collector("results.jsonl")
    runs.runs("held-0").touch()
    wait_until(lambda: runs.recorded("results.jsonl") == ["0"], "a result is collected")
    runs.run("--cancel", NAME)
    assert collector.ends() == 1
    assert "the run is gone from amqp://" in collector.stderr.splitlines()[-1]
    assert "stays with the broker" not in collector.stderr


def test_a_run_whose_dispatcher_was_interrupted_never_runs_again(runs: Runs) -> None:
    dispatcher = runs.dispatcher("--tasks", runs.scripts.tasks(*holds(20)))
    wait_until(lambda: runs.waiting("1") == 20, "all is pushed")
    dispatcher.send(signal.SIGINT)
    assert dispatcher.ends() == 130
    runs.never_again(runs.worker(2), 0)


@pytest.mark.parametrize("patience", [0.6, 20.0], ids=["for long", "for a moment"])
def test_a_worker_that_was_away_while_its_run_was_stopped_stops_it_too(
    scripts: Scripts, rabbitmq_url: str, patience: float
) -> None:
    runs = Runs(scripts, RabbitMQ(rabbitmq_url), patience=patience)
    dispatcher = runs.dispatcher("--tasks", scripts.tasks(*holds(20)))
    with Proxy(runs.place.listen[0]) as proxy:
        runs.place.listen = runs.place.reach = [proxy.address]
        runs.yaml = runs.write("proxy.yml")
        worker = runs.worker()
        running = psutil.Process(int(runs.runs("held-0").with_suffix(".runs").read_text()))
        proxy.cut()
        dispatcher.send(signal.SIGINT)
        assert dispatcher.ends() == 130
        if patience < 1.0:
            worker.says("is left")  # so others may have what it held
        proxy.heal()
        wait_until(lambda: not running.is_running(), "what runs is killed")
        runs.never_again(worker, 1)


def test_a_run_that_is_stopped_waits_for_the_first_words_of_workers_that_have_calls(
    rabbitmq_url: str,
) -> None:
    place = Place(RabbitMQ(rabbitmq_url))
    with place.dispatcher_end() as end:
        gathered = Gathered(end, tasks(2))
        wait_until(lambda: [gathered.turn(0.05)] and end.pushed == 2, "all is in line")
        with StandIn(place, waits=lambda params: True) as worker:
            wait_until(lambda: worker.took, "it has some, of which we have not heard")
            assert not end.workers()
            end.cancel()
            assert not end.knows_all
            wait_until(lambda: [gathered.turn(0.05)] and end.knows_all, "it was heard")
            assert len(end.workers()) == 1
            wait_until(lambda: [gathered.turn(0.05)] and not sum(view.held for view in end.workers()))
            assert not gathered.results


@pytest.mark.parametrize("how", ["before", "while it ends", "silent"])
def test_a_run_is_ended_though_its_connection_breaks_at_that_moment(how: str, rabbitmq_url: str) -> None:
    wire = RabbitMQ(rabbitmq_url)
    place, behind = Place(wire), Place(wire)
    with Proxy(place.listen[0]) as proxy, StandIn(place):
        behind.listen = [proxy.address]
        end = behind.dispatcher_end()
        gathered = Gathered(end, tasks(20))
        gathered.all()
        queue = f"results.{gathered.run.id}"
        assert wire.waiting(queue) is not None
        proxy.stall() if how == "silent" else proxy.cut()
        if how == "before":
            wait_until(lambda: [gathered.turn(0.05)] and not end._outage.opened, "it is known to be broken")
        healing = threading.Timer(0.3, proxy.heal)
        healing.start()
        end.close()
        healing.join()
        assert wire.waiting(queue) is None


def test_a_run_whose_end_nobody_can_be_told_ends_and_says_so(rabbitmq_url: str) -> None:
    wire = RabbitMQ(rabbitmq_url)
    place, said = Place(wire, heartbeat=0.2, patience=1.0), list[str]()
    with Proxy(place.listen[0]) as proxy:
        place.listen = [proxy.address]
        end = place.dispatcher_end(said.append)
        Gathered(end, tasks(1)).turn()
        proxy.cut()
        end.close()
    assert "what is left of the run there goes by itself in 3600 s" in said[-1]


def test_a_run_whose_dispatcher_was_killed_runs_until_its_time_is_over_and_never_again(runs: Runs) -> None:
    dispatcher = runs.dispatcher("--tasks", runs.scripts.tasks(*holds(20)))
    first = runs.worker()
    runs.runs("held-0")
    dispatcher.kill()
    first.kill()
    wait_until(lambda: runs.waiting("returned"), "what it held comes back")
    runs.expire(first)
    runs.never_again(runs.worker(2), 1)


def test_a_run_whose_time_is_over_while_it_runs_is_dropped(runs: Runs) -> None:
    dispatcher = runs.dispatcher("--tasks", runs.scripts.tasks(*holds(20)))
    worker = runs.worker()
    go = runs.runs("held-0")
    dispatcher.kill()
    runs.expire(worker)
    go.touch()
    worker.says("is left")
    runs.never_again(worker, 1)


def test_a_dispatcher_whose_run_was_removed_from_the_broker_says_so(runs: Runs) -> None:
    dispatcher = runs.dispatcher("--tasks", runs.scripts.tasks(*holds(3)), "--output", "results.jsonl")
    worker = runs.worker()
    runs.runs("held-0").touch()
    runs.runs("held-1")
    wait_until(lambda: runs.recorded("results.jsonl") == ["0"], "a result is recorded")
    runs.expire(worker)
    assert dispatcher.ends() == 1
    assert "the run is gone from amqp://" in dispatcher.stderr.splitlines()[-1]
    runs.never_again(worker, 2)
