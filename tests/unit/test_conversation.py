"""How the ends of a brokerless wire meet and part, and what they do meanwhile."""

from __future__ import annotations

import os
import threading
from collections import Counter

import pytest

from executor.messages import (
    NIL,
    PROTOCOL,
    Hello,
    Report,
    Running,
    Welcome,
    encode,
    introduce,
)
from executor.packed import pack
from executor.run import Earlier, Run
from executor.session import Begin, Ended, Take
from executor.task import Task
from tests.unit.world import (
    HEARTBEAT,
    PATIENCE,
    Cable,
    FakeLink,
    FakeWorker,
    World,
)
from transports.direct import DirectDispatcherEnd, DirectWorkerEnd
from transports.link import Frame
from transports.settings import Settings

# -- meeting


def test_the_dispatcher_may_come_first(world: World) -> None:
    dispatcher = world.dispatcher()
    world.turns(3)
    worker = world.worker(at=dispatcher)
    world.until(dispatcher.done)
    dispatcher.check()
    assert worker.count(Begin) == 1
    assert worker.ran == Counter(range(10))


def test_the_worker_may_come_first(world: World) -> None:
    worker = world.worker()
    world.turns(3)
    dispatcher = world.dispatcher(push=False)
    worker.cable.join(dispatcher.link, worker.link)
    world.turns(2)
    assert not worker.end.connected
    dispatcher.push()
    world.until(dispatcher.done)
    dispatcher.check()
    assert worker.count(Begin) == 1
    assert worker.ran == Counter(range(10))


def test_greetings_that_pile_up_are_one(world: World) -> None:
    """While the dispatcher has no time for it, a worker greets again and again: it gets its tasks once."""
    dispatcher = world.dispatcher(200)
    workers = [world.worker(name, at=dispatcher) for name in "abc"]
    for worker in workers:
        worker.lazy = True
    dispatcher.asleep = True
    world.turns(1)
    dispatcher.asleep = False
    world.turns(1)
    for worker in workers:
        worker.lazy = False
    world.until(dispatcher.done)
    dispatcher.check()
    assert sum((worker.ran for worker in workers), Counter()) == Counter(range(200))


def test_both_say_that_their_protocols_differ(world: World) -> None:
    dispatcher = world.dispatcher()
    worker = FakeWorker(world, "old", protocol=PROTOCOL + 1)
    world.workers.append(worker)
    worker.cable.join(dispatcher.link, worker.link)
    world.turns(30)
    assert len(dispatcher.said) == 1
    assert f"it speaks protocol {PROTOCOL + 1}" in dispatcher.said[0]
    assert len(worker.said) == 1
    assert f"it speaks protocol {PROTOCOL}" in worker.said[0]
    assert not worker.end.connected
    other = world.worker(at=dispatcher)
    world.until(dispatcher.done)
    assert sum(other.ran.values()) == 10


def test_a_worker_says_that_a_dispatcher_speaks_another_protocol(world: World) -> None:
    worker = world.worker()
    link = FakeLink()
    worker.cable.join(link, worker.link)
    welcome = Welcome(PROTOCOL + 1, "run", HEARTBEAT, PATIENCE)
    for _ in range(3):
        world.turns(1)
        link.send(worker.cable.peers[0], encode(welcome))
    world.turns(1)
    link.close()
    assert len(worker.said) == 1
    assert f"it speaks protocol {PROTOCOL + 1}" in worker.said[0]
    assert not worker.end.connected


def test_what_makes_no_sense_is_said_and_ignored(world: World) -> None:
    dispatcher = world.dispatcher()
    worker = world.worker(at=dispatcher)
    worker.lazy = True
    world.until(lambda: worker.queue)
    for parts in ([b"GET / HTTP/1.1"], [], [b"\x93"], [b"", b""], [os.urandom(100)]):
        for link in (dispatcher.link, worker.link):
            link.put(Frame(b"stranger", parts))
        world.turn()
    worker.lazy = False
    world.until(dispatcher.done)
    dispatcher.check()
    for said in (dispatcher.said, worker.said):
        assert len([line for line in said if "stranger" in line]) == 1


def test_reports_about_tasks_that_there_are_not_do_no_harm(world: World) -> None:
    dispatcher = world.dispatcher(3)
    worker = world.worker(at=dispatcher)
    worker.lazy = True
    world.until(lambda: worker.queue)
    run = dispatcher.run.id
    worker.end.reply(run, pack([Report(place, 1, "ok", NIL) for place in (3, 10**15)]))
    worker.end.reply("another run", pack([Report(0, 1, "ok", NIL)]))
    worker.end.reply(run, pack([Report(0, 7, "error", NIL)]))
    worker.end.give_back(run, [7, -1, 10**15])
    worker.lazy = False
    world.until(dispatcher.done)
    dispatcher.check()
    assert [line for line in dispatcher.said if "place 3 of 3" in line]
    assert [line for line in dispatcher.said if "attempt 7 at place 0" in line]
    assert {(result.status, result.attempt) for result in dispatcher.results} == {("ok", 1)}


# -- partings


def test_two_dispatchers_one_after_the_other(world: World) -> None:
    first = world.dispatcher(5)
    worker = world.worker(at=first)
    world.until(first.done)
    first.end.close()
    assert worker.count(Ended) == 1
    assert worker.orders[-1] == Ended(first.run.id, True, worker.orders[-1].why)
    worker.cable.cut(noticed=True)
    world.turns(1)
    second = world.dispatcher(7)
    worker.cable.join(second.link, worker.link)
    world.until(second.done)
    second.check()
    assert (worker.count(Begin), worker.count(Ended)) == (2, 1)


def test_a_dispatcher_that_closes_takes_no_time_with_workers_that_answer(world: World) -> None:
    dispatcher = world.dispatcher(3)
    world.worker(at=dispatcher)
    world.until(dispatcher.done)
    before = world.now
    dispatcher.end.close()
    dispatcher.end.close()
    assert world.now - before < 0.5


def test_a_new_dispatcher_in_the_place_of_one_that_died(world: World) -> None:
    first = world.dispatcher(5)
    worker = world.worker(at=first)
    worker.lazy = True
    world.until(lambda: worker.queue)
    worker.cable.cut()
    first.asleep = True
    second = world.dispatcher(7)
    worker.cable.join(second.link, worker.link)
    worker.lazy = False
    world.until(second.done, seconds=1)
    second.check()
    ended = [order for order in worker.orders if isinstance(order, Ended)]
    assert [(end.run, end.complete) for end in ended] == [(first.run.id, False)]
    assert not first.results


def test_a_drain_gives_back_what_has_not_begun(world: World) -> None:
    dispatcher = world.dispatcher(30)
    worker = world.worker("leaving", cores=4, at=dispatcher)
    worker.lazy = True
    world.until(lambda: len(worker.queue) == 4)
    worker.drain()
    assert len(worker.queue) == 1
    other = world.worker("other", at=dispatcher)
    world.until(lambda: len(dispatcher.results) == 29, seconds=5)
    assert other.ran == Counter(range(1, 30))
    assert {view.name for view in dispatcher.end.workers()} == {"leaving", "other"}
    worker.work()
    world.until(dispatcher.done)
    assert {view.name for view in dispatcher.end.workers()} == {"other"}
    dispatcher.check()
    assert worker.end.settled
    assert not worker.queue


def test_tasks_that_meet_a_drain_on_their_way_go_back(world: World) -> None:
    dispatcher = world.dispatcher(4, push=False)
    worker = world.worker("leaving", at=dispatcher)
    world.turns(0.5)
    dispatcher.push()
    worker.turn()
    worker.drain()
    assert worker.end.connected
    world.worker("other", at=dispatcher)
    world.until(dispatcher.done, seconds=1)
    dispatcher.check()


def test_the_last_result_of_a_drained_worker_survives_a_cut(world: World) -> None:
    dispatcher = world.dispatcher(1)
    worker = world.worker(at=dispatcher)
    worker.lazy = True
    world.until(lambda: worker.queue)
    worker.cable.cut()
    worker.drain()
    world.turns(1)
    worker.work()
    worker.cable.heal()
    world.until(dispatcher.done, seconds=1)
    dispatcher.check()
    assert worker.ran == Counter([0])
    world.until(lambda: worker.end.settled, seconds=1)


def test_a_drained_worker_that_nobody_needs_does_not_spin(world: World) -> None:
    dispatcher = world.dispatcher(1)
    worker = world.worker(at=dispatcher)
    world.until(dispatcher.done)
    dispatcher.end.close()
    worker.drain()
    world.turn()
    waits = [worker.end.patience() for _ in range(3)]
    assert all(wait is None or wait > 0.01 for wait in waits)
    sent = len(dispatcher.link.events)
    world.turns(2)
    assert len(dispatcher.link.events) == sent


def test_after_a_halt_what_runs_finishes_and_the_rest_stays(world: World) -> None:
    dispatcher = world.dispatcher(50)
    worker = world.worker(cores=4, at=dispatcher)
    worker.lazy = True
    world.until(lambda: len(worker.queue) == 4)
    dispatcher.end.halt()
    world.turns(0.2)
    assert len(worker.queue) == 1
    worker.lazy = False
    world.turns(1)
    assert [result.id for result in dispatcher.results] == ["0"]
    assert sum(view.held for view in dispatcher.end.workers()) == 0


def test_cancelled_is_what_runs(world: World) -> None:
    dispatcher = world.dispatcher(50)
    worker = world.worker(cores=4, at=dispatcher)
    worker.lazy = True
    world.until(lambda: len(worker.queue) == 4)
    dispatcher.end.cancel()
    world.turns(0.2)
    assert [(result.id, result.status) for result in dispatcher.results] == [("0", "cancelled")]
    assert not worker.queue
    assert sum(view.held for view in dispatcher.end.workers()) == 0


def test_an_idle_worker_gets_what_a_busy_one_has_not_begun(world: World) -> None:
    dispatcher = world.dispatcher(60)
    busy = world.worker("busy", cores=1, at=dispatcher)
    world.until(lambda: len(dispatcher.results) > 20)
    busy.lazy = True
    world.until(lambda: len(busy.queue) > 2)
    idle = world.worker("idle", cores=1, at=dispatcher)
    world.until(lambda: len(dispatcher.results) == 59, seconds=10)
    assert len(busy.queue) == 1
    assert idle.ran
    busy.work()
    world.until(dispatcher.done)
    dispatcher.check()


def test_how_long_calls_take_is_seen_for_each_width(world: World) -> None:
    """Of a long and a tiny one that are reported together, the tiny one says that its like are tiny."""
    dispatcher = world.dispatcher(0, push=False)
    widths = [2, *[1] * 60]
    dispatcher.end.push(Run([Task(function="f", id=str(n), resources=w) for n, w in enumerate(widths)]))
    worker = world.worker(cores=3, at=dispatcher)
    worker.lazy = True
    world.until(lambda: len(worker.queue) == 2)
    (run, _), _ = worker.queue
    worker.queue.clear()
    times = [(0, 100.0), (1, 0.001)]
    worker.end.reply(
        run, pack([Report(n, 1, "ok", NIL, started=1.0, finished=1.0 + took) for n, took in times])
    )
    world.until(lambda: len(worker.queue) > 3)


def test_withdrawn_tasks_are_not_handed_out(world: World) -> None:
    dispatcher = world.dispatcher(5)
    assert dispatcher.end.waiting() == {1: 5}
    assert dispatcher.end.withdraw(2) == []
    assert dispatcher.end.withdraw(1) == [0, 1, 2, 3, 4]
    worker = world.worker(at=dispatcher)
    world.turns(1)
    assert not worker.ran


# -- in real time


@pytest.mark.timeout(20)
def test_an_end_that_waits_is_woken() -> None:
    dispatcher_link, worker_link = FakeLink(), FakeLink()
    dispatcher = DirectDispatcherEnd(dispatcher_link, Settings(), say=lambda text: None)
    hello: Hello = introduce("w", 1)
    run = Run([Task(function="f", id="0")])
    served = threading.Event()

    def serve() -> None:
        with DirectWorkerEnd(worker_link, hello, say=lambda text: None) as worker:
            while not served.is_set():
                for order in worker.pull(None):
                    if isinstance(order, Take):
                        worker.reply(order.run, pack([Report(0, 1, "ok", NIL)]))
                    elif isinstance(order, Ended):
                        served.set()

    thread = threading.Thread(target=serve)
    thread.start()
    Cable(iter(range(1, 10))).join(dispatcher_link, worker_link)
    dispatcher.push(run)
    (delivery,) = dispatcher.results(None)
    assert (delivery.worker, [report.status for report in delivery.reports]) == ("w", ["ok"])
    dispatcher.acknowledge()
    assert dispatcher.results(0.01) == []
    dispatcher.close()
    thread.join()
    worker_link.close()


# -- what runs longest


def test_the_dispatcher_knows_what_runs_longest_from_the_workers_beats(world: World) -> None:
    dispatcher = world.dispatcher(push=False)
    dispatcher.run = Run(dispatcher.run.tasks, earlier=[Earlier("before", [7, -1])])
    dispatcher.push()
    worker = world.worker(at=dispatcher)
    worker.lazy = True
    run, told_at = dispatcher.run.id, world.now

    def running() -> list[Running]:
        since = world.now - told_at
        return [
            Running(run, 2, since + 5), Running("before", 0, since + 90), Running("before", 1, since + 8),
            Running("another's", 3, since + 7), Running(run, 99, since + 3), Running(run, 4, 0.0),
        ]  # fmt: skip

    worker.end.running = running
    world.until(lambda: dispatcher.end.workers() and dispatcher.end.workers()[0].longest)
    world.turns(HEARTBEAT / 2)  # they run on between two beats
    (view,) = dispatcher.end.workers()
    assert [place for place, _ in view.longest] == [7, 2]
    since = world.now - told_at
    assert [seconds for _, seconds in view.longest] == pytest.approx([since + 90, since + 5], abs=0.1)
    world.turns(10 * HEARTBEAT)
    assert dispatcher.end.workers()[0].longest[1][1] == pytest.approx(world.now - told_at + 5, abs=0.1)
    worker.lazy = False
    world.until(dispatcher.done)
    assert dispatcher.end.workers()[0].longest == []  # recorded, whatever the last beat said
