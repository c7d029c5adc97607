"""What crosses on its way between the ends of a brokerless wire."""

from __future__ import annotations

from collections import Counter

from executor.messages import PROTOCOL, Welcome, decode, encode
from executor.session import Begin, Ended
from tests.unit.test_conversation_resumed import COUNT, interrupted
from tests.unit.world import HEARTBEAT, PATIENCE, FakeWorker, World
from transports.link import Came, Frame, Gone


def test_a_dispatcher_that_vanishes_before_it_is_heard_takes_nothing(world: World) -> None:
    """It continues a run whose dispatcher the worker still has patience with, and answers an old greeting."""
    worker = interrupted(world, renames=True)
    (first,) = world.dispatchers
    worker.link.put(Came(b"heir"))
    worker.turn()
    welcome = Welcome(PROTOCOL, "heir", HEARTBEAT, PATIENCE, [first.run.id], episode=0)
    worker.link.put(Frame(b"heir", encode(welcome)))
    worker.link.put(Gone(b"heir", "cut"))
    world.turns(2 * PATIENCE)
    assert worker.count(Ended) == 1
    assert worker.end.unclaimed[first.run.id] > 0
    last = world.resume(first)
    worker.cable.plug(last.link, worker.link)
    worker.lazy = False
    world.until(last.done, seconds=PATIENCE)
    last.check()
    assert sum(worker.ran.values()) == COUNT


def test_what_came_with_the_news_of_a_death_is_acknowledged_when_it_was_returned(world: World) -> None:
    dispatcher = world.dispatcher(2)
    worker, dead = world.worker("a", 1, at=dispatcher), world.worker("b", 1, at=dispatcher)
    worker.lazy = dead.lazy = True
    world.until(lambda: worker.queue and dead.queue)
    world.turns(1)
    worker.work(1)
    dead.die()
    dispatcher.end.worker_died(dead.pid)
    dispatcher.end.acknowledge()  # of what was returned before
    worker.turn()
    assert not worker.end.settled
    came = dispatcher.end.results(0)
    assert [report.status for delivery in came for report in delivery.reports] == ["ok", "lost"]
    dispatcher.end.acknowledge()
    world.until(lambda: worker.end.settled, seconds=1.0)


def test_what_was_recorded_after_the_greeting_named_it_is_not_given_back(world: World) -> None:
    """Its next attempt may be leased to the same worker meanwhile."""
    world.fails = {(0, 1)}
    dispatcher = world.dispatcher(1)
    worker = world.worker(at=dispatcher)
    worker.lazy = True
    world.until(lambda: worker.queue)
    worker.work(1)
    worker.cable.slow = True
    world.turns(0.1)  # it is recorded, and handed out again
    worker.link.put(Gone(b"dispatcher", "for a moment"))
    worker.link.put(Came(b"dispatcher"))
    world.turns(0.1)  # it greets
    worker.cable.arrive()
    world.turns(1)
    worker.lazy = False
    world.until(dispatcher.done, seconds=1)
    world.turns(1)
    assert worker.ran == Counter({0: 2})


def is_welcomed(worker: FakeWorker) -> bool:
    """Whether its greeting was answered, and what it is sent counts."""
    return all(session.welcomed for session in worker.end._sessions.values())


def reconnected_unnoticed(worker: FakeWorker) -> None:
    """Have a worker's link break and be there again before the worker looks: to the dispatcher it is new."""
    dispatcher, there = worker.cable.links[0], worker.cable.peers[0]
    worker.cable.cut()
    del dispatcher.cables[there]
    worker.cable.heal()
    assert worker.link.receive() == [Came(worker.cable.peers[1])]


def test_a_link_that_breaks_unnoticed_as_a_worker_is_welcomed_back_costs_a_heartbeat(world: World) -> None:
    """The answer is lost, and the worker greets as before, over a link that is another one."""
    dispatcher = world.dispatcher(6)
    worker = world.worker(at=dispatcher)
    worker.lazy = True
    world.until(lambda: worker.queue)
    worker.cable.cut()
    worker.cable.heal()
    world.until(lambda: not is_welcomed(worker))
    worker.turn()  # it greets
    worker.cable.slow = True
    for _ in range(3):
        dispatcher.turn()
    assert any(isinstance(decode(parts)[0], Welcome) for _, parts in worker.cable.transit)
    reconnected_unnoticed(worker)
    world.until(lambda: is_welcomed(worker), seconds=2 * HEARTBEAT)
    assert worker.count(Begin) == 1
    worker.lazy = False
    world.until(dispatcher.done, seconds=1)
    assert worker.ran == Counter(range(6))


def test_a_greeting_that_comes_again_over_an_earlier_link_brings_nothing_twice(world: World) -> None:
    """What a link that broke had brought may be read after what came over the next one."""
    dispatcher = world.dispatcher(2)
    worker = world.worker(at=dispatcher)
    worker.lazy = True
    world.until(lambda: worker.queue)
    earlier, again = worker.cable.peers[0], dispatcher.end._roster.peers[worker.end._hello.instance].hello
    assert not again.holding
    worker.cable.cut()
    worker.cable.heal()
    world.turns(1)
    idle = world.worker("idle", at=dispatcher)
    dispatcher.link.put(Frame(earlier, encode(again)))
    world.turns(1)
    worker.lazy = False
    world.until(dispatcher.done, seconds=1)
    world.turns(1)
    assert worker.ran == Counter(range(2))
    assert not idle.ran
